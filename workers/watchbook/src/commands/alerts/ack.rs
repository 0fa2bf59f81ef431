//! `watchbook alerts ack`

use std::process::ExitCode;

use alerts::silences::Acknowledgement;
use chrono::{TimeDelta, Utc};
use clap::Args;
use runtime::Config;
use uuid::Uuid;

use crate::{output, process};

/// Acknowledge firing alerts, so that they are not notified again until they resolve.
///
/// The resolved notification is still sent.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  watchbook alerts ack 0199f5e2-7c1a-7d3e-9f1b-2a4c6e8d0b1f --for 2h --reason \"rolling back\""
)]
pub(crate) struct Ack {
    /// Ids of the alerts, as shown by `watchbook alerts list`.
    #[arg(required = true, value_name = "ALERT")]
    ids: Vec<Uuid>,
    /// Reason, or what is being done about the alert.
    #[arg(long)]
    reason: String,
    /// Name recorded with the acknowledgement.
    #[arg(long, value_name = "NAME", default_value_t = process::somebody())]
    by: String,
    /// End the acknowledgement after this time, such as 2h. Default: when the alert resolves.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    hold_for: Option<std::time::Duration>,
}

impl Ack {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        anyhow::ensure!(!self.reason.trim().is_empty(), "--reason is empty: say why the alert is acknowledged");
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
                output::say(format_args!("{id}: no such alert, or it is resolved: see `watchbook alerts list`"));
            }
        }
        Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
