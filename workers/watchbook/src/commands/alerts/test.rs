//! `watchbook alerts test`

use std::process::ExitCode;
use std::time::Duration;

use alerting::notification::Labels;
use anyhow::Context;
use chrono::Utc;
use clap::Args;
use runtime::Config;
use store::PgConnection;
use store::enqueue::{self, DeliveryStatus, NewNotification};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::process::somebody;
use crate::{output, process, rules};

/// How long the command waits for delivery. A notifier polls the outbox at least every second, and a receiver has ten
/// seconds to answer.
const WATCHED_FOR: Duration = Duration::from_secs(20);
const POLL_EVERY: Duration = Duration::from_millis(100);

/// Send a test notification to the receivers that an alert of this rule would reach.
///
/// The notification carries the label `test=true` and goes through the outbox and a running notifier, as every
/// notification does. Exits with 1 if any receiver did not accept it.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  watchbook alerts test new-error-type --label organization_id=acme")]
pub(crate) struct Test {
    /// Name of the rule.
    rule: String,
    /// Label of the alert, such as organization_id=acme; routes may depend on it. Repeat it for several labels.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

impl Test {
    pub(crate) async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        let alerting = rules::of(&config)?;
        let rule = alerting.rules.iter().find(|rule| rule.name == self.rule).with_context(|| {
            let names: Vec<_> = alerting.rules.iter().map(|rule| rule.name.as_str()).collect();
            format!("there is no rule `{}`: the rules are {}", self.rule, names.join(", "))
        })?;
        let group: Labels = self.labels.into_iter().collect();
        let mut labels = rule.alert_labels(&group);
        labels.insert("test".to_owned(), "true".to_owned());
        let route = alerting.route(&labels).with_context(|| {
            format!("no route matches an alert of `{}`: add [[receivers]] and [[routes]]", rule.name)
        })?;
        let bus = process::bus(&config).await?;
        let database = process::database(&config).await?;
        let mut connection = process::connect(&database).await?;
        let reason = format!("a test by {}: nothing is wrong", somebody());
        let mut sent = Vec::new();
        for receiver in &route.to {
            let notification = alerts::test_notification(receiver, rule, labels.clone(), reason.clone(), Utc::now());
            let new = NewNotification {
                id: Uuid::now_v7(),
                receiver: receiver.clone(),
                group_key: notification.group_key.clone(),
                notification: serde_json::to_value(&notification)?,
                wait: Duration::ZERO,
            };
            enqueue::insert(&mut connection, &new).await?;
            sent.push((receiver.clone(), new.id));
        }
        bus.raise(bus::Signals::OUTBOX);
        let mut all_delivered = true;
        let until = Instant::now() + WATCHED_FOR;
        for (receiver, id) in sent {
            match wait_for(&mut connection, id, until).await? {
                Some(DeliveryStatus::Delivered) => output::say(format_args!("{receiver}: delivered")),
                Some(DeliveryStatus::Failed(problem)) => {
                    all_delivered = false;
                    output::say(format_args!("{receiver}: NOT delivered: {problem}"));
                }
                Some(DeliveryStatus::Pending(problem)) => {
                    all_delivered = false;
                    let problem =
                        problem.unwrap_or_else(|| "not attempted: is a `notifier` worker running?".to_owned());
                    output::say(format_args!("{receiver}: not delivered yet: {problem}"));
                }
                None => anyhow::bail!("notification {id} is no longer in the outbox"),
            }
        }
        Ok(if all_delivered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Waits until a notification is delivered, is given up or had a first problem, or until `until`. Returns its state.
async fn wait_for(connection: &mut PgConnection, id: Uuid, until: Instant) -> anyhow::Result<Option<DeliveryStatus>> {
    loop {
        let delivery_status = enqueue::delivery_status(connection, id).await?;
        if !matches!(delivery_status, Some(DeliveryStatus::Pending(None))) || Instant::now() >= until {
            return Ok(delivery_status);
        }
        sleep(POLL_EVERY).await;
    }
}

/// Parses `name=value`.
fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
