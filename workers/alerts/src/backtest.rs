//! A rule over the past: the real evaluation, minute by minute, over the minutes that are stored.

use std::sync::Arc;

use alerting::board::{Board, Scope};
use alerting::evaluation::{Condition, explain};
use alerting::notification::Labels;
use alerting::rule::{Rule, Source};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use store::PgConnection;
use store::rollups::{self, StoredMinute};

use crate::loading::view;
use crate::whole_minute;

/// Minutes that are fetched at once.
const PIECE: TimeDelta = TimeDelta::hours(6);

/// A change of condition that the rule would have made.
#[derive(Debug, Clone, Serialize)]
pub struct WouldHave {
    /// When, to the minute.
    pub at: DateTime<Utc>,
    /// The group's labels.
    pub labels: Labels,
    /// From which condition.
    pub from: Condition,
    /// To which.
    pub to: Condition,
    /// Why, in words.
    pub reason: String,
}

/// What a rule would have done between two times. `tell` hears how far it is.
///
/// # Errors
/// Where Postgres does not answer.
pub async fn backtest(
    connection: &mut PgConnection,
    rule: &Arc<Rule>,
    most_groups: usize,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    mut tell: impl FnMut(DateTime<Utc>),
) -> store::Result<Vec<WouldHave>> {
    let Source::Records(kind) = rule.source else { return Ok(Vec::new()) };
    let mut board = Board::new(std::slice::from_ref(rule), most_groups);
    let reach = board.reach().get(&kind).copied().unwrap_or_default();
    let baseline = board.baselines().first().map(|(_, distance, window)| (*distance, *window));
    let (from, to) = (whole_minute(from), whole_minute(to));
    rollups::between(connection, kind, from - reach, from, |minute| board.add(view(&minute))).await?;
    if let Some((distance, window)) = baseline {
        let until = from - distance;
        let is_known = rollups::is_known(connection, kind, until - window, until).await?;
        board.set_baseline_known(kind, distance, is_known);
        rollups::between(connection, kind, until - window, until, |minute| board.add_baseline(view(&minute), distance))
            .await?;
    }
    // What is there when a rule begins is not news to it.
    board.discover(from, |_| true);
    let mut found = Vec::new();
    let mut piece = from;
    while piece < to {
        let end = (piece + PIECE).min(to);
        let minutes = fetch(connection, kind, piece, end).await?;
        let before = match baseline {
            Some((distance, _)) => fetch(connection, kind, piece - distance, end - distance).await?,
            None => Vec::new(),
        };
        let (mut minutes, mut before) = (minutes.iter().peekable(), before.iter().peekable());
        let mut now = piece;
        while now < end {
            now += TimeDelta::minutes(1);
            while let Some(minute) = minutes.next_if(|minute| minute.minute < now) {
                board.add(view(minute));
            }
            if let Some((distance, _)) = baseline {
                while let Some(minute) = before.next_if(|minute| minute.minute + distance < now) {
                    board.add_baseline(view(minute), distance);
                }
            }
            // The last second of the minute before: a window looks back from there.
            step(&mut board, rule, now - TimeDelta::seconds(1), &mut found);
        }
        tell(end);
        piece = end;
    }
    Ok(found)
}

async fn fetch(
    connection: &mut PgConnection,
    kind: records::Kind,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> store::Result<Vec<StoredMinute>> {
    let mut minutes = Vec::new();
    rollups::between(connection, kind, from, to, |minute| minutes.push(minute)).await?;
    Ok(minutes)
}

fn step(board: &mut Board, rule: &Rule, now: DateTime<Utc>, found: &mut Vec<WouldHave>) {
    board.discover(now, |_| false);
    for change in board.evaluate(now, Scope::All) {
        if let Some(transition) = &change.transition {
            found.push(WouldHave {
                at: now,
                labels: board.labels(change.place),
                from: transition.from,
                to: transition.to,
                reason: explain(rule, &change.sample, &change.after, now),
            });
        }
        board.accept(change.place, change.after);
    }
    board.forget(now);
}
