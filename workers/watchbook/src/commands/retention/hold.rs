//! `watchbook retention hold`, `holds` and `release`

use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use clap::Args;
use retention::holds::{self, NewHold};
use runtime::{Config, When};
use uuid::Uuid;

use crate::{output, own_records, process};

/// Keep records from being removed, whatever their age, until the hold is released.
///
/// Keeps what all of the given name: the records of an organization, of a kind, of a time. Without any it keeps
/// everything. Of a day that is removed, what is held stays.
///     watchbook retention hold --org acme --kind audit --from 2026-01-01T00:00:00Z --to 2026-04-01T00:00:00Z --reason "case 17"
#[derive(Debug, Args)]
pub(crate) struct Hold {
    /// Only records of this organization; `_` for those without one.
    #[arg(long, value_name = "ORG")]
    org: Option<String>,
    /// Only records of this kind, or `dead_letters`.
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Only records from this time on: RFC 3339, a date (midnight UTC), or before now such as -30m, -24h or -7d.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<When>,
    /// Only records before this time, in the same forms.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<When>,
    /// Over by itself after this time; without it the hold is in force until it is released.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    lasts: Option<Duration>,
    /// Why.
    #[arg(long)]
    reason: String,
    /// Who, where not the user of this terminal.
    #[arg(long, value_name = "NAME", default_value_t = process::somebody(), value_parser = process::actor)]
    by: String,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// List holds that are in force, those that are over as well with --all.
#[derive(Debug, Args)]
pub(crate) struct Holds {
    /// Those that are over as well.
    #[arg(long)]
    all: bool,
    /// As a JSON array.
    #[arg(long)]
    json: bool,
}

/// Release a hold: the next run removes what only it kept.
#[derive(Debug, Args)]
pub(crate) struct Release {
    /// The hold's id.
    id: Uuid,
    /// Who, where not the user of this terminal.
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
        anyhow::ensure!(problems.is_empty(), "this cannot be held: {}", problems.join("; "));
        let database = process::database(&config).await?;
        process::check_migrations(&database).await?;
        let mut connection = process::connect(&database).await?;
        let hold = holds::add(&mut connection, new, now).await?;
        own_records::publish(&config, &mut connection).await;
        if self.json {
            output::json(&hold)?;
        } else {
            output::say(hold.id);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Holds that are listed at the most.
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
            "there is no hold {} that is in force: see `watchbook retention holds --all`",
            self.id
        );
        own_records::publish(&config, &mut connection).await;
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
