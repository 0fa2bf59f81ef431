//! From changed alerts to outbox rows: which receiver is notified, in which notification, and when.

use std::collections::{BTreeMap, HashMap};

use alerting::Alerting;
use alerting::evaluation::Condition;
use alerting::notification::{Alert, Labels, Notification, NotificationReason, Status};
use alerting::notification_policy::{Decision, LastNotification, SkipReason, decide};
use alerting::receiver::Channel;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use store::PgConnection;
use store::alerts::AlertRow;
use store::enqueue::{self, DIGEST, DIGEST_WAIT, NewNotification, OpenRow};
use uuid::Uuid;

/// The maximum number of alerts in one notification, about 1 MB. Further alerts go into another one of the same group.
const MAX_ALERTS: usize = 1_000;

/// What suppresses notifications of an alert.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Suppression {
    /// The silence that matches it.
    pub(crate) silenced_by: Option<Uuid>,
    /// Whether it is acknowledged.
    pub(crate) acknowledged: bool,
}

/// The last notification of an alert to a receiver, and its group. Later notifications of the episode use the same
/// group, even if the routes have changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReceiverState {
    #[serde(flatten)]
    notification: LastNotification,
    #[serde(default)]
    group_key: String,
    #[serde(default)]
    group_labels: Labels,
}

/// Returns the state of each receiver of an alert.
pub(crate) fn receiver_states(row: &AlertRow) -> BTreeMap<String, ReceiverState> {
    serde_json::from_value(row.told.clone()).unwrap_or_default()
}

impl ReceiverState {
    pub(crate) fn is_firing(&self) -> bool {
        self.notification.status == Status::Firing
    }
}

/// The notifications of one evaluation, by receiver and group.
#[derive(Debug, Default)]
pub(crate) struct NotificationBuilder {
    notifications: BTreeMap<(String, String), GroupNotifications>,
}

/// The notifications of a group: one, unless it has too many alerts.
#[derive(Debug)]
struct GroupNotifications {
    notifications: Vec<Notification>,
    wait: TimeDelta,
}

impl NotificationBuilder {
    /// Decides which receivers are notified of an alert, records it in the row, and adds the alert to their
    /// notifications. Returns whether any receiver is notified.
    pub(crate) fn add(
        &mut self,
        alerting: &Alerting,
        row: &mut AlertRow,
        suppression: Suppression,
        now: DateTime<Utc>,
    ) -> bool {
        let labels = labels_of(&row.labels);
        let mut states = receiver_states(row);
        let route = alerting.route(&labels);
        let mut receivers: Vec<(String, bool)> =
            route.iter().flat_map(|route| &route.to).map(|name| (name.clone(), true)).collect();
        // A receiver that was notified of a firing alert is notified when it resolves, even if the routes have
        // changed.
        for (name, _) in states.iter().filter(|(_, state)| state.is_firing()) {
            if !receivers.iter().any(|(routed, _)| routed == name) {
                receivers.push((name.clone(), false));
            }
        }
        let firing = fires(row).then_some(row.started_at).flatten();
        let mut notified = false;
        for (name, is_routed) in receivers {
            if firing.is_some() && !is_routed {
                continue;
            }
            let receiver = alerting.receivers.iter().find(|receiver| receiver.name == name);
            let refresh = match receiver.map(|receiver| &receiver.channel) {
                Some(Channel::Alertmanager(alertmanager)) => TimeDelta::from_std(alertmanager.refresh).ok(),
                _ => None,
            };
            let repeat = refresh.or(route.map(|route| route.repeat_interval)).unwrap_or(TimeDelta::MAX);
            let send_resolved = receiver.is_none_or(|receiver| receiver.send_resolved);
            let last = states.get(&name);
            let decide = |suppression: Suppression| {
                let (silenced_by, acknowledged) = (suppression.silenced_by, suppression.acknowledged);
                decide(
                    firing,
                    last.map(|last| &last.notification),
                    silenced_by,
                    acknowledged,
                    repeat,
                    send_resolved,
                    now,
                )
            };
            let decision = match (decide(suppression), decide(Suppression::default())) {
                // Keep sending to an Alertmanager that was notified: without updates it would resolve the alert and
                // notify of it.
                (Decision::Skip(_), again @ Decision::Notify(NotificationReason::Repeated)) if refresh.is_some() => {
                    again
                }
                (decision, _) => decision,
            };
            let status = if firing.is_some() { Status::Firing } else { Status::Resolved };
            let started_at = row.started_at.unwrap_or(now);
            let why = match decision {
                Decision::Notify(why) => why,
                // Record it as sent: the next episode is a new one, and may go to another receiver.
                Decision::Skip(SkipReason::ResolvedNotWanted) => {
                    if let Some(last) = states.get_mut(&name) {
                        last.notification = LastNotification { status, at: now, started_at };
                    }
                    continue;
                }
                Decision::Skip(_) => continue,
            };
            let (group_key, group_labels) = match (last, route) {
                (Some(last), _) if last.is_firing() => (last.group_key.clone(), last.group_labels.clone()),
                (_, Some(route)) => alerting.group_key(route, &name, &labels),
                (_, None) => (row.id.to_string(), Labels::new()),
            };
            let wait = route.map_or(TimeDelta::zero(), |route| route.group_wait);
            let note = ReceiverState {
                notification: LastNotification { status, at: now, started_at },
                group_key: group_key.clone(),
                group_labels: group_labels.clone(),
            };
            states.insert(name.clone(), note);
            let batch = self
                .notifications
                .entry((name.clone(), group_key.clone()))
                .or_insert_with(|| GroupNotifications { notifications: Vec::new(), wait });
            batch.push(alert_of(row, &labels, status), || Notification {
                receiver: name,
                group_key,
                group_labels,
                why,
                alerts: Vec::new(),
                truncated_alerts: 0,
                still_firing: 0,
            });
            // A new alert takes precedence over a repetition.
            if let Some(notification) = batch.notifications.last_mut()
                && notification.why == NotificationReason::Repeated
            {
                notification.why = why;
            }
            notified = true;
        }
        row.told = serde_json::to_value(&states).unwrap_or_default();
        notified
    }

    /// Sets, for each notification, how many other alerts of its group its receiver knows as firing. `all` are the
    /// current alerts.
    pub(crate) fn count_still_firing<'r>(&mut self, all: impl Iterator<Item = &'r AlertRow>) {
        let is_resolved = |notification: &Notification| notification.status() == Status::Resolved;
        if !self.notifications.values().any(|batch| batch.notifications.iter().any(is_resolved)) {
            return; // the count only matters if all alerts of a notification have resolved
        }
        let mut firing: HashMap<(String, String), Vec<Uuid>> = HashMap::new();
        for row in all.filter(|row| fires(row)) {
            for (receiver, state) in receiver_states(row).into_iter().filter(|(_, state)| state.is_firing()) {
                firing.entry((receiver, state.group_key)).or_default().push(row.id);
            }
        }
        for (group, batch) in &mut self.notifications {
            let Some(firing) = firing.get(group) else { continue };
            for notification in &mut batch.notifications {
                let is_in_notification = |id: &Uuid| notification.alerts.iter().any(|alert| alert.id == *id);
                notification.still_firing = firing.iter().filter(|id| !is_in_notification(id)).count() as u64;
            }
        }
    }

    /// Checks whether there are no notifications.
    pub(crate) fn is_empty(&self) -> bool {
        self.notifications.is_empty()
    }

    /// Writes the notifications to the outbox. Those above a receiver's limit go into a digest.
    ///
    /// # Errors
    /// Fails if a statement fails.
    pub(crate) async fn enqueue(
        self,
        transaction: &mut PgConnection,
        alerting: &Alerting,
        storm_after: u32,
    ) -> store::Result<()> {
        let mut buffers: HashMap<String, DigestBuffer> = HashMap::new();
        let all = self.notifications.into_iter().flat_map(|(group, batch)| {
            let wait = batch.wait;
            batch.notifications.into_iter().map(move |notification| (group.clone(), notification, wait))
        });
        for ((receiver, group_key), notification, wait) in all {
            let limit = digest_threshold(alerting, &receiver, storm_after);
            let storm = match buffers.get_mut(&receiver) {
                Some(storm) => storm,
                None => {
                    let storm = DigestBuffer::load(transaction, &receiver, limit).await?;
                    buffers.entry(receiver.clone()).or_insert(storm)
                }
            };
            // A pending notification already says this; more of them would only delay later ones.
            if notification.why == NotificationReason::Repeated
                && enqueue::is_pending(transaction, &receiver, &group_key).await?
            {
                continue;
            }
            if storm.take(limit) {
                storm.digest(&receiver, notification);
                continue;
            }
            if wait > TimeDelta::zero()
                && let Some(open) = enqueue::open_row(transaction, &receiver, &group_key).await?
                && let Ok(mut gathered) = serde_json::from_value::<Notification>(open.notification)
                && gathered.alerts.len() + notification.alerts.len() <= MAX_ALERTS
            {
                merge(&mut gathered, notification);
                let notification = serde_json::to_value(&gathered).unwrap_or_default();
                enqueue::replace(transaction, &OpenRow { id: open.id, notification }).await?;
                continue;
            }
            let notification = serde_json::to_value(&notification).unwrap_or_default();
            let wait = wait.to_std().unwrap_or_default();
            let new = NewNotification { id: Uuid::now_v7(), receiver, group_key, notification, wait };
            enqueue::insert(transaction, &new).await?;
        }
        for (receiver, storm) in buffers {
            storm.write(transaction, receiver).await?;
        }
        Ok(())
    }
}

/// How many notifications a receiver got recently, and the digest for the rest.
#[derive(Debug)]
struct DigestBuffer {
    recent: u32,
    digest: Option<Notification>,
    /// The outbox row of an earlier digest that is still open.
    open: Option<Uuid>,
}

impl DigestBuffer {
    async fn load(transaction: &mut PgConnection, receiver: &str, limit: Option<u32>) -> store::Result<Self> {
        let Some(limit) = limit else { return Ok(Self { recent: 0, digest: None, open: None }) };
        let recent = enqueue::recent(transaction, receiver, limit).await?;
        let open = enqueue::open_row(transaction, receiver, DIGEST).await?;
        let gathered = open.as_ref().and_then(|open| serde_json::from_value(open.notification.clone()).ok());
        Ok(Self { recent, digest: gathered, open: open.map(|open| open.id) })
    }

    /// Counts a notification and returns whether it goes into the digest. While a digest is open, every notification
    /// does, or it would overtake the digest.
    fn take(&mut self, limit: Option<u32>) -> bool {
        self.recent += 1;
        self.digest.is_some() || limit.is_some_and(|limit| self.recent > limit)
    }

    fn digest(&mut self, receiver: &str, notification: Notification) {
        let digest = self.digest.get_or_insert_with(|| Notification {
            receiver: receiver.to_owned(),
            group_key: DIGEST.to_owned(),
            group_labels: Labels::new(),
            why: NotificationReason::Digest,
            alerts: Vec::new(),
            truncated_alerts: 0,
            still_firing: 0,
        });
        merge(digest, notification);
    }

    async fn write(self, transaction: &mut PgConnection, receiver: String) -> store::Result<()> {
        let Some(digest) = self.digest else { return Ok(()) };
        let notification = serde_json::to_value(&digest).unwrap_or_default();
        match self.open {
            Some(id) => enqueue::replace(transaction, &OpenRow { id, notification }).await,
            None => {
                let group_key = DIGEST.to_owned();
                let new = NewNotification { id: Uuid::now_v7(), receiver, group_key, notification, wait: DIGEST_WAIT };
                enqueue::insert(transaction, &new).await
            }
        }
    }
}

impl GroupNotifications {
    /// Adds an alert; each is added once in an evaluation. Starts another notification if the last one is full.
    fn push(&mut self, alert: Alert, new: impl FnOnce() -> Notification) {
        if self.notifications.last().is_none_or(|last| last.alerts.len() >= MAX_ALERTS) {
            self.notifications.push(new());
        }
        if let Some(last) = self.notifications.last_mut() {
            last.alerts.push(alert);
        }
    }
}

/// Returns the number of notifications per minute above which a receiver gets a digest. `None` for programs, which
/// would lose alerts that are only counted, and for PagerDuty, where an incident is closed by the key that opened it.
fn digest_threshold(alerting: &Alerting, receiver: &str, storm_after: u32) -> Option<u32> {
    let receiver = alerting.receivers.iter().find(|known| known.name == receiver)?;
    match receiver.channel {
        Channel::Slack(_) | Channel::Email(_) => Some(storm_after),
        Channel::Webhook(_)
        | Channel::Pagerduty(_)
        | Channel::Alertmanager(_)
        | Channel::Nats(_)
        | Channel::Heartbeat(_) => None,
    }
}

/// Merges the alerts of a notification into one that was not sent yet.
fn merge(gathered: &mut Notification, notification: Notification) {
    gathered.truncated_alerts += notification.truncated_alerts;
    gathered.still_firing = notification.still_firing;
    for alert in notification.alerts {
        put(gathered, alert);
    }
}

/// Adds an alert or replaces its older version: a notification has each alert once.
fn put(notification: &mut Notification, alert: Alert) {
    if let Some(known) = notification.alerts.iter_mut().find(|known| known.id == alert.id) {
        *known = alert;
    } else if notification.alerts.len() < MAX_ALERTS {
        notification.alerts.push(alert);
    } else {
        notification.truncated_alerts += 1;
    }
}

/// Checks whether receivers see an alert as firing. A recovering alert still is.
pub(crate) fn fires(row: &AlertRow) -> bool {
    let condition: Condition = row.condition.parse().unwrap_or_default();
    matches!(condition, Condition::Firing | Condition::Recovering)
}

/// Parses stored labels or annotations.
pub(crate) fn labels_of(json: &serde_json::Value) -> Labels {
    serde_json::from_value(json.clone()).unwrap_or_default()
}

fn alert_of(row: &AlertRow, labels: &Labels, status: Status) -> Alert {
    Alert {
        id: row.id,
        version: row.version,
        status,
        rule: row.rule.clone(),
        organization: row.organization_id.clone(),
        severity: row.severity.clone(),
        labels: labels.clone(),
        annotations: labels_of(&row.annotations),
        reason: row.reason.clone(),
        starts_at: row.started_at.unwrap_or(row.changed_at),
        ends_at: if status == Status::Resolved { row.ended_at.or(Some(row.changed_at)) } else { None },
        test: false,
    }
}

/// Returns a test notification, which checks whether a receiver can be reached.
pub fn test_notification(
    receiver: &str,
    rule: &alerting::rule::Rule,
    labels: Labels,
    reason: String,
    now: DateTime<Utc>,
) -> Notification {
    let id = Uuid::now_v7();
    let group_labels =
        Labels::from([("alertname".to_owned(), rule.name.clone()), ("test".to_owned(), "true".to_owned())]);
    let organization = alerting::rule_engine::RuleEngine::organization(&labels).to_owned();
    Notification {
        receiver: receiver.to_owned(),
        // A group of its own: the test waits for no other notification, and none waits for it.
        group_key: format!("test {id}"),
        group_labels,
        why: NotificationReason::Test,
        alerts: vec![Alert {
            id,
            version: 1,
            status: Status::Firing,
            rule: rule.name.clone(),
            organization,
            severity: rule.severity.to_string(),
            labels,
            annotations: Labels::new(),
            reason,
            starts_at: now,
            ends_at: None,
            test: true,
        }],
        truncated_alerts: 0,
        still_firing: 0,
    }
}
