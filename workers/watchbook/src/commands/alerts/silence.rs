//! `watchbook alerts silence`

use std::process::ExitCode;
use std::time::Duration;

use alerting::matcher::{Matcher, MatcherError};
use alerting::recurrence::Recurrence;
use alerts::silences;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use clap::{Args, Subcommand};
use runtime::{Config, When};
use serde_json::json;
use store::silences::SilenceRow;
use uuid::Uuid;

use crate::{output, process};

/// Add, list and end silences.
///
/// A silenced alert is still evaluated and shown, but no firing notification is sent. A receiver that was notified
/// that an alert fires is always notified that it resolved, silenced or not.
#[derive(Debug, Args)]
pub(crate) struct Silence {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add a silence and print its id.
    Add(Add),
    /// List silences that have not ended; with --all, also ended ones.
    List {
        /// Include ended silences.
        #[arg(long)]
        all: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// End a silence early.
    End {
        /// Id of the silence.
        id: Uuid,
        /// Name recorded with the silence.
        #[arg(long, value_name = "NAME", default_value_t = process::somebody())]
        by: String,
    },
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  watchbook alerts silence add strategy_id=s-17 --for 2h --reason \"known, fix on the way\"\n\n  Every Saturday and Sunday night in Berlin, for a year:\n  watchbook alerts silence add severity!=critical --for 365d --every \"sat,sun 22:00-06:00\" --timezone Europe/Berlin --reason \"backups\""
)]
struct Add {
    /// Matchers: label=value, label!=value, label=~regex or label!~regex. All must match.
    #[arg(required = true, value_name = "MATCHER", value_parser = matcher)]
    matchers: Vec<Matcher>,
    /// Duration, such as 2h or 30d.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration, required_unless_present = "until", conflicts_with = "until")]
    hold_for: Option<Duration>,
    /// End of the silence, instead of --for: RFC 3339, or a date (midnight UTC).
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<When>,
    /// Start of the silence: RFC 3339, a date (midnight UTC), or relative to now such as -30m. Default: now.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<When>,
    /// Only at these hours, such as "sat,sun 22:00-06:00", "mon-fri 01:00-02:00" or "daily 02:30-03:30".
    #[arg(long, value_name = "DAYS HOURS", requires = "timezone")]
    every: Option<String>,
    /// Time zone of --every, such as Europe/Berlin.
    #[arg(long, value_name = "ZONE", requires = "every")]
    timezone: Option<String>,
    /// Reason for the silence.
    #[arg(long)]
    reason: String,
    /// Name recorded with the silence.
    #[arg(long, value_name = "NAME", default_value_t = process::somebody())]
    by: String,
}

impl Silence {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let database = process::database(&config).await?;
        let mut connection = process::connect(&database).await?;
        let now = Utc::now();
        match self.action {
            Action::Add(add) => {
                let silence = add.silence(now)?;
                store::silences::insert(&mut connection, &silences::row_from_silence(&silence, now)).await?;
                output::say(silence.id);
            }
            Action::List { all, json: as_json } => {
                let rows = store::silences::all(&mut connection, 1_000).await?;
                let rows: Vec<_> =
                    rows.into_iter().filter(|row| all || (row.ended_at.is_none() && row.ends_at > now)).collect();
                if as_json {
                    let is_active = |row: &SilenceRow| {
                        silences::silence_from_row(row.clone()).is_some_and(|silence| silence.active_at(now))
                    };
                    let listed: Vec<_> =
                        rows.iter().map(|row| json!({ "silence": row, "active": is_active(row) })).collect();
                    output::json(&listed)?;
                } else {
                    let silences: Vec<_> = rows.into_iter().filter_map(silences::silence_from_row).collect();
                    print(&silences, now);
                }
            }
            Action::End { id, by } => {
                anyhow::ensure!(
                    store::silences::end(&mut connection, id, &by, now).await?,
                    "silence {id} does not exist or has ended: see `watchbook alerts silence list --all`"
                );
                output::say(format_args!("{id}: ended"));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Add {
    fn silence(self, now: DateTime<Utc>) -> anyhow::Result<alerting::silence::Silence> {
        let starts_at = self.from.map_or(now, |from| from.at(now));
        let ends_at = match (self.until, self.hold_for) {
            (Some(until), _) => until.at(now),
            (None, Some(hold_for)) => starts_at + TimeDelta::from_std(hold_for)?,
            (None, None) => starts_at,
        };
        let recurrence = match (self.every, self.timezone) {
            (Some(every), Some(timezone)) => Some(Recurrence::parse(&every, &timezone)?),
            _ => None,
        };
        let silence = alerting::silence::Silence {
            id: Uuid::now_v7(),
            matchers: self.matchers,
            starts_at,
            ends_at,
            recurrence,
            created_by: self.by,
            reason: self.reason,
            ended_at: None,
        };
        let problems = silence.problems();
        anyhow::ensure!(problems.is_empty(), "{}", problems.join("; "));
        Ok(silence)
    }
}

fn print(silences: &[alerting::silence::Silence], now: DateTime<Utc>) {
    let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
    let mut table = output::table(["SILENCE", "NOW", "MATCHES", "FROM", "UNTIL", "EVERY", "BY", "REASON"], &[]);
    for silence in silences {
        let matchers: Vec<_> = silence.matchers.iter().map(ToString::to_string).collect();
        table.add_row([
            silence.id.to_string(),
            if silence.active_at(now) { "active" } else { "-" }.to_owned(),
            matchers.join(" "),
            time(silence.starts_at),
            time(silence.ends_at),
            silence.recurrence.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            silence.created_by.clone(),
            silence.reason.clone(),
        ]);
    }
    output::say(table);
}

fn matcher(text: &str) -> Result<Matcher, String> {
    text.parse().map_err(|error: MatcherError| error.to_string())
}
