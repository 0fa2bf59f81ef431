//! The lag of the writers: the age of the oldest record that is not in its table yet.

use std::time::Duration;

use alerting::rule_engine::Lag;
use bus::{Bus, BusError};
use chrono::{TimeDelta, Utc};
use records::Kind;
use store::positions::{self, Position};
use store::{Database, PgConnection};
use tokio::sync::watch;
use tokio::time::Instant;

/// Above this lag the figures of a kind are stale: the missing records could change the result.
const STALE_AFTER: TimeDelta = TimeDelta::seconds(60);
/// How long the streams may be unreachable before figures count as stale.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

/// How often the streams are queried.
const POLL_EVERY: Duration = Duration::from_secs(2);
/// How long a query to NATS may take. A stream without a leader must not make the others look late.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The lag of each kind.
pub(crate) type Lags = Vec<(Kind, Lag)>;

/// Measures the lag of every kind.
#[derive(Debug)]
pub(crate) struct Ingest {
    /// When the lag of each kind was last measured; `None` if it never was.
    known: Vec<(Kind, Option<Instant>)>,
}

impl Ingest {
    pub(crate) fn new() -> Self {
        Self { known: Kind::ALL.iter().map(|kind| (*kind, None)).collect() }
    }

    /// Measures the lag of every kind until dropped. Runs next to the evaluation, because servers that do not answer
    /// must not delay notifications.
    pub(crate) fn follow(bus: Bus, database: Database) -> (watch::Receiver<Lags>, AbortOnDrop) {
        let mut ingest = Self::new();
        let (sender, receiver) = watch::channel(ingest.lags(&[]));
        let task = tokio::spawn(async move {
            let mut connection = None;
            loop {
                // A failed connection is replaced. Until then the lag is unknown, as if NATS were unreachable.
                let lags = match ingest.poll(&mut connection, &bus, &database).await {
                    Ok(lags) => lags,
                    Err(error) => {
                        tracing::debug!(%error, "cannot measure how far ingest is behind");
                        connection = None;
                        ingest.lags(&[])
                    }
                };
                // No receiver is left: the worker has ended.
                if sender.send(lags).is_err() {
                    return;
                }
                tokio::time::sleep(POLL_EVERY).await;
            }
        });
        (receiver, AbortOnDrop(task))
    }

    async fn poll(
        &mut self,
        connection: &mut Option<PgConnection>,
        bus: &Bus,
        database: &Database,
    ) -> store::Result<Lags> {
        let connection = match connection {
            Some(connection) => connection,
            none => none.insert(database.connect("ingest").await?),
        };
        self.measure(bus, connection).await
    }

    /// Returns the lag of every kind. If NATS does not answer, the lag is unknown, which makes figures stale only
    /// after a while.
    ///
    /// # Errors
    /// Fails if Postgres does not answer.
    pub(crate) async fn measure(&mut self, bus: &Bus, connection: &mut PgConnection) -> store::Result<Lags> {
        let mut accounts = Vec::with_capacity(self.known.len());
        for (kind, _) in &self.known {
            // Read positions first: what is settled later only makes the lag look longer for a moment.
            let account = positions::find(connection, &bus.stream_name(*kind)).await?;
            accounts.push((*kind, account.map(|account| account.position)));
        }
        let asked = accounts.into_iter().map(async |(kind, position)| {
            let behind = tokio::time::timeout(ANSWER_WITHIN, behind(bus, kind, position)).await;
            behind.ok().and_then(Result::ok)
        });
        let behind = futures::future::join_all(asked).await;
        Ok(self.lags(&behind))
    }

    /// Turns the answers into lags. A missing answer leaves the lag unknown.
    fn lags(&mut self, behind: &[Option<TimeDelta>]) -> Lags {
        let answers = behind.iter().copied().chain(std::iter::repeat(None));
        let lag = |((kind, known), behind): (&mut (Kind, Option<Instant>), Option<TimeDelta>)| {
            if behind.is_some() {
                *known = Some(Instant::now());
            }
            (*kind, Lag { behind, stale: stale(*kind, behind, known.map(|known| known.elapsed())) })
        };
        self.known.iter_mut().zip(answers).map(lag).collect()
    }
}

/// A task that is aborted when the handle is dropped.
#[derive(Debug)]
pub(crate) struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Returns the age of the oldest unsettled message of a kind.
async fn behind(bus: &Bus, kind: Kind, position: Option<Position>) -> Result<TimeDelta, BusError> {
    let state = bus.stream_state(kind).await?;
    // If the stream was recreated, nothing of it is settled until a writer has seen it.
    let position = position.filter(|position| position.created_at == state.created_at);
    let (settled, count) = position.map_or((0, 0), |position| (position.settled_up_to(), position.settled_count()));
    if state.last_sequence <= count {
        return Ok(TimeDelta::zero());
    }
    // The first unsettled message can be missing from the stream, but later ones still wait.
    let Some(next) = bus.next_held(kind, settled + 1).await? else { return Ok(TimeDelta::zero()) };
    let published_ns = bus.published_ns(kind, next).await?.unwrap_or(i64::MAX);
    let now = Utc::now().timestamp_nanos_opt().unwrap_or_default();
    Ok(TimeDelta::nanoseconds(now.saturating_sub(published_ns).max(0)))
}

/// Returns why the figures of a kind cannot be trusted; `None` if they can.
fn stale(kind: Kind, behind: Option<TimeDelta>, unknown_for: Option<Duration>) -> Option<String> {
    let Some(unknown_for) = unknown_for else {
        return Some(format!("how far {kind} are behind is not known yet"));
    };
    match behind {
        Some(behind) if behind > STALE_AFTER => Some(format!("{kind} are written {} s behind", behind.num_seconds())),
        None if unknown_for > UNKNOWN_FOR => Some(format!(
            "NATS has not answered for {} s, so what is missing of {kind} is not known",
            unknown_for.as_secs()
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_stale_when_records_are_missing_or_nobody_knows() {
        let long = UNKNOWN_FOR + Duration::from_secs(1);
        assert_eq!(
            stale(Kind::Events, None, None).as_deref(),
            Some("how far events are behind is not known yet"),
            "a worker that begins in an outage trusts nothing"
        );
        assert_eq!(stale(Kind::Events, Some(STALE_AFTER), Some(long)), None);
        assert_eq!(
            stale(Kind::Events, Some(TimeDelta::seconds(200)), Some(Duration::ZERO)).as_deref(),
            Some("events are written 200 s behind")
        );
        assert_eq!(stale(Kind::Events, None, Some(UNKNOWN_FOR)), None);
        assert!(
            stale(Kind::Events, None, Some(long))
                .is_some_and(|reason| reason.starts_with("NATS has not answered for 61 s"))
        );
    }
}
