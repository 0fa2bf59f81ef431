//! `watchbook alerts list`

use std::process::ExitCode;
use std::sync::Arc;

use alerting::evaluation::Condition;
use alerts::overview::{self, AlertStatus};
use chrono::{SecondsFormat, Utc};
use clap::Args;
use runtime::Config;
use serde_json::json;
use store::outbox;

use super::words;
use crate::{output, process, rules};

/// List the alert state of every rule and group, with the figures and the reason.
///
/// The figures are computed now, from the same roll-ups and with the same evaluation as in the alert worker.
/// Receivers with undelivered notifications are listed below the table.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// List only this rule.
    #[arg(long)]
    rule: Option<String>,
    /// List only this organization.
    #[arg(long)]
    org: Option<String>,
    /// List only alerts that are pending, firing or recovering.
    #[arg(long)]
    firing: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl List {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let alerting = Arc::new(rules::of(&config)?);
        let bus = process::bus(&config).await?;
        let database = process::database(&config).await?;
        let mut connection = process::connect(&database).await?;
        let now = Utc::now();
        let mut statuses =
            overview::evaluate_all(&mut connection, &bus, &alerting, config.alerts.max_groups, now).await?;
        statuses.retain(|status| self.wants(status));
        statuses.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| (&a.rule, &a.labels).cmp(&(&b.rule, &b.labels))));
        let deliveries = outbox::summary(&mut connection).await?;
        if self.json {
            output::json(&json!({ "alerts": statuses, "deliveries": deliveries }))?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut table = output::table(["RULE", "GROUP", "STATE", "DATA", "SINCE", "WHY", ""], &[]);
        for status in &statuses {
            let since = status.started_at.filter(|_| status.condition != Condition::Inactive);
            table.add_row([
                status.rule.clone(),
                words(&status.labels),
                status.condition.to_string(),
                status.data.to_string(),
                since.map_or_else(|| "-".to_owned(), |since| since.to_rfc3339_opts(SecondsFormat::Secs, true)),
                status.reason.clone(),
                note(status),
            ]);
        }
        output::say(table);
        for receiver in deliveries.iter().filter(|receiver| receiver.pending > 0 || receiver.failed > 0) {
            let problem = receiver.problem.as_deref().map(|problem| format!(": {problem}")).unwrap_or_default();
            output::say(format_args!(
                "{}: {} not delivered yet, {} given up{problem}",
                receiver.receiver, receiver.pending, receiver.failed
            ));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn wants(&self, status: &AlertStatus) -> bool {
        self.rule.as_ref().is_none_or(|rule| *rule == status.rule)
            && self.org.as_ref().is_none_or(|organization| *organization == status.organization_id)
            && (!self.firing || status.condition != Condition::Inactive)
    }
}

/// Returns the sort key: firing alerts come first.
fn rank(status: &AlertStatus) -> u8 {
    match status.condition {
        Condition::Firing => 0,
        Condition::Recovering => 1,
        Condition::Pending => 2,
        Condition::Inactive => 3,
    }
}

fn note(status: &AlertStatus) -> String {
    let mut notes = Vec::new();
    if let Some(id) = status.silenced_by {
        notes.push(format!("silenced by {id}"));
    }
    if let Some(by) = status.acknowledgement.as_ref().and_then(|note| note["by"].as_str()) {
        notes.push(format!("acknowledged by {by}"));
    }
    if status.condition != Condition::Inactive {
        notes.push(status.id.to_string());
    }
    notes.join(", ")
}
