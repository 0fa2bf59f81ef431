//! `watchbook retention hold`, `holds` and `release`.

use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use clap::Args;
use retention::holds::{self, NewHold};
use runtime::{Config, When};
use uuid::Uuid;

use crate::{internal_records, output, process};

/// Keep records from being removed, whatever their age, until the hold is released. Prints the id of the hold.
///
/// The options for organization, kind and time all have to match. Without any of them the hold keeps everything. When
/// a partition expires, the held rows in it stay.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  watchbook retention hold --org acme --kind audit --from 2026-01-01T00:00:00Z --to 2026-04-01T00:00:00Z --reason \"case 17\""
)]
pub(crate) struct Hold {
    /// Hold only records of this organization; `_` for records without one.
    #[arg(long, value_name = "ORG")]
    org: Option<String>,
    /// Hold only records of this kind, or `dead_letters`.
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Start of the time range: RFC 3339, a date (midnight UTC), or relative to now such as -24h. Default: no limit.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<When>,
    /// End of the time range, exclusive, in the same formats. Default: no limit.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<When>,
    /// Duration after which the hold expires, such as 30d. Default: it lasts until it is released.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    lasts: Option<Duration>,
    /// Reason for the hold.
    #[arg(long)]
    reason: String,
    /// Name recorded in the audit log as the actor.
    #[arg(long, value_name = "NAME", default_value_t = process::somebody(), value_parser = process::actor)]
    by: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// List holds in force; with --all, also released and expired ones.
#[derive(Debug, Args)]
pub(crate) struct Holds {
    /// Include released and expired holds.
    #[arg(long)]
    all: bool,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
}

/// Release a hold. The next run removes expired records that no other hold keeps.
#[derive(Debug, Args)]
pub(crate) struct Release {
    /// Id of the hold.
    id: Uuid,
    /// Name recorded in the audit log as the actor.
    #[arg(long, value_name = "NAME", default_value_t = process::somebody(), value_parser = process::actor)]
    by: String,
}

impl Hold {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let now = Utc::now();
        let expires_at =
            self.lasts.map(TimeDelta::from_std).transpose()?.and_then(|lasts| now.checked_add_signed(lasts));
        let new = NewHold {
            organization_id: self.org,
            kind: self.kind,
            starts_at: self.from.map(|from| from.at(now)),
            ends_at: self.to.map(|to| to.at(now)),
            expires_at,
            reason: self.reason,
            created_by: self.by,
        };
        let problems = new.problems(now);
        anyhow::ensure!(problems.is_empty(), "invalid hold: {}", problems.join("; "));
        let database = process::database(&config).await?;
        process::check_migrations(&database).await?;
        let mut connection = process::connect(&database).await?;
        let hold = holds::add(&mut connection, new, now).await?;
        internal_records::publish(&config, &mut connection).await;
        if self.json {
            output::json(&hold)?;
        } else {
            output::say(hold.id);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Maximum number of holds listed.
const LISTED: u32 = 1_000;

impl Holds {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let database = process::database(&config).await?;
        process::check_migrations(&database).await?;
        let mut connection = process::connect(&database).await?;
        let holds = if self.all {
            store::holds::all(&mut connection, LISTED).await?
        } else {
            store::holds::in_force(&mut connection).await?
        };
        if self.json {
            output::json(&holds)?;
        } else {
            print(&holds);
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Release {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let database = process::database(&config).await?;
        process::check_migrations(&database).await?;
        let mut connection = process::connect(&database).await?;
        let released = holds::release(&mut connection, self.id, &self.by).await?;
        anyhow::ensure!(
            released.is_some(),
            "hold {} does not exist or is not in force: see `watchbook retention holds --all`",
            self.id
        );
        internal_records::publish(&config, &mut connection).await;
        output::say(format_args!("{}: released", self.id));
        Ok(ExitCode::SUCCESS)
    }
}

fn print(holds: &[store::holds::Hold]) {
    let time = |time: Option<DateTime<Utc>>| {
        time.map_or_else(|| "-".to_owned(), |time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "all".to_owned());
    let mut table =
        output::table(["HOLD", "ORGANIZATION", "KIND", "FROM", "TO", "SINCE", "UNTIL", "BY", "REASON"], &[]);
    for hold in holds {
        table.add_row([
            hold.id.to_string(),
            text(&hold.organization_id),
            text(&hold.kind),
            time(hold.starts_at),
            time(hold.ends_at),
            time(Some(hold.created_at)),
            time(hold.released_at.or(hold.expires_at)),
            hold.created_by.clone(),
            hold.reason.clone(),
        ]);
    }
    output::say(table);
}
