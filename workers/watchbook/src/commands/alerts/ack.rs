//! `watchbook alerts ack`

use std::process::ExitCode;

use alerts::notes::Acknowledgement;
use chrono::{TimeDelta, Utc};
use clap::Args;
use runtime::Config;
use uuid::Uuid;

use crate::{output, process};

/// Take note of alerts that fire: no repetition until they are over. That they are over is still told.
#[derive(Debug, Args)]
pub(crate) struct Ack {
    /// The alerts' ids, as `alerts list` shows them.
    #[arg(required = true, value_name = "ALERT")]
    ids: Vec<Uuid>,
    /// Why, or what is being done.
    #[arg(long)]
    reason: String,
    /// Who, where not the user of this terminal.
    #[arg(long, value_name = "NAME", default_value_t = process::somebody())]
    by: String,
    /// For so long at the most.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    hold_for: Option<std::time::Duration>,
}

impl Ack {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        anyhow::ensure!(!self.reason.trim().is_empty(), "--reason is empty: whoever looks next will want to know");
        let database = process::database(&config).await?;
        let mut connection = process::connect(&database).await?;
        let at = Utc::now();
        let until = match self.hold_for {
            Some(hold_for) => Some(at + TimeDelta::from_std(hold_for)?),
            None => None,
        };
        let note = serde_json::to_value(Acknowledgement { by: self.by, reason: self.reason, at, until })?;
        let mut all = true;
        for id in self.ids {
            if store::alerts::acknowledge(&mut connection, id, &note).await? {
                output::say(format_args!("{id}: acknowledged"));
            } else {
                all = false;
                output::say(format_args!("{id}: there is no such alert, or it is over: see `watchbook alerts list`"));
            }
        }
        Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
