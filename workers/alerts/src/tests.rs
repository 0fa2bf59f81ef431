//! Tests of the evaluator that run hours in milliseconds: roll-ups and outbox in a real Postgres, time as an argument.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use alerting::Alerting;
use alerting::notification::{Notification, NotificationReason, Status};
use alerting::rule_engine::{Lag, Scope};
use chrono::{DateTime, TimeDelta, Utc};
use harness::World;
use records::Kind;
use records::rollup::MinuteGroups;
use runtime::config::Sources;
use store::{Connection, Database, PgConnection, rollups};

use crate::evaluator::{Evaluator, EvaluatorError};

const GROUPS: usize = 1_000;
const STORM_AFTER: u32 = 3;
const RULE: &str = r#"
[[rules]]
name = "rate"
source = "executions"
failed_when = "success == false"
window = "1h"
threshold = "30%"
recover_below = "25%"
keep_firing_for = "5m"
severity = "critical"
"#;
const WEBHOOK: &str = "[[receivers]]\nname = \"ops\"\nwebhook = { url = \"http://127.0.0.1:1/\" }\n";

fn alerting(text: &str) -> Arc<Alerting> {
    let sources = Sources { file: Some(("test.toml".into(), text.to_owned())), environment: Vec::new() };
    Arc::new(Alerting::of(&sources.load().unwrap(), &|_| None).unwrap())
}

/// A database for one test, with its contents.
struct Fixture {
    world: World,
    connection: PgConnection,
}

impl Fixture {
    async fn new() -> Self {
        // Only the database is needed: no Watchbook process is started.
        let world = World::builder("/nonexistent").without_setup().start().await;
        let database = Database::new(world.database_url(), "test").unwrap();
        let connection = database.connect("test").await.unwrap();
        Self { world, connection }
    }

    async fn evaluator(&mut self, alerting: &Arc<Alerting>, now: DateTime<Utc>) -> Evaluator {
        Evaluator::open(&mut self.connection, alerting.clone(), GROUPS, STORM_AFTER, now, ()).await.unwrap()
    }

    /// Adds executions of a strategy of an organization to a minute.
    async fn add_records(&mut self, minute: DateTime<Utc>, organization: &str, total: u32, failed: u32) {
        let labels = Kind::Executions.spec().labels.len();
        let groups = MinuteGroups {
            dictionary: vec![organization.to_owned().into(), "s-1".into()],
            places: [1, 2].into_iter().chain(std::iter::repeat_n(0, labels - 1)).collect(),
            total: vec![total],
            failed: vec![failed],
            levels: Vec::new(),
        };
        rollups::add(&mut self.connection, Kind::Executions, &[(minute, groups)]).await.unwrap();
    }

    async fn evaluate(&mut self, evaluator: &mut Evaluator, now: DateTime<Utc>) -> bool {
        evaluator.evaluate_and_commit(&mut self.connection, now, Scope::All, ()).await.unwrap().has_notifications
    }

    /// Returns the notifications so far, in order.
    async fn notifications(&self) -> Vec<Notification> {
        let rows: Vec<(serde_json::Value,)> =
            self.world.query_all("SELECT notification FROM watchbook.outbox ORDER BY position").await;
        rows.into_iter().map(|(json,)| serde_json::from_value(json).unwrap()).collect()
    }

    /// Returns the rule and the status of each notification.
    async fn notified(&self) -> Vec<(String, Status)> {
        let all = self.notifications().await.into_iter();
        all.flat_map(|notification| notification.alerts).map(|alert| (alert.rule, alert.status)).collect()
    }

    async fn finish(self) {
        self.connection.close().await.unwrap();
        self.world.finish([]).await;
    }
}

/// Noon of some day.
fn noon() -> DateTime<Utc> {
    "2026-06-15T12:00:00Z".parse().unwrap()
}

fn minutes(count: i64) -> TimeDelta {
    TimeDelta::minutes(count)
}

#[tokio::test]
async fn a_total_outage_of_an_hour_as_it_is_told() {
    let mut fixture = Fixture::new().await;
    let alerting = alerting(WEBHOOK);
    // A steady ten a minute. At noon all start to fail, and half an hour later they succeed again.
    for minute in -60..0 {
        fixture.add_records(noon() + minutes(minute), "acme", 10, 0).await;
    }
    let mut evaluator = fixture.evaluator(&alerting, noon()).await;
    let mut notified = Vec::new();
    for minute in 0..120 {
        let failed = if minute < 30 { 10 } else { 0 };
        fixture.add_records(noon() + minutes(minute), "acme", 10, failed).await;
        let before = fixture.notified().await.len();
        fixture.evaluate(&mut evaluator, noon() + minutes(minute) + TimeDelta::seconds(59)).await;
        for (rule, status) in fixture.notified().await.into_iter().skip(before) {
            notified.push((minute, rule, status));
        }
    }
    let notified: Vec<_> = notified.iter().map(|(minute, rule, status)| (*minute, rule.as_str(), *status)).collect();
    // 4 of the last 5 minutes are above 60 %, 19 of the last 60 above 30 %; a window of an hour recovers slowly.
    assert_eq!(
        notified,
        [
            (3, "execution-failure-burst", Status::Firing),
            (18, "execution-failure-rate", Status::Firing),
            (37, "execution-failure-burst", Status::Resolved),
            (80, "execution-failure-rate", Status::Resolved),
        ]
    );
    fixture.finish().await;
}

#[tokio::test]
async fn nothing_is_over_while_records_are_missing_or_none_come() {
    let mut fixture = Fixture::new().await;
    let alerting = alerting(&[RULE, WEBHOOK].concat());
    fixture.add_records(noon(), "acme", 20, 20).await;
    let mut evaluator = fixture.evaluator(&alerting, noon()).await;
    assert!(fixture.evaluate(&mut evaluator, noon() + TimeDelta::seconds(30)).await);
    // By the records written so far everything has recovered, but records are written late.
    fixture.add_records(noon() + minutes(1), "acme", 200, 0).await;
    let behind = Lag { behind: Some(minutes(3)), stale: Some("executions are written 180 s behind".to_owned()) };
    evaluator.engine.set_lag(Kind::Executions, behind);
    for minute in 1..20 {
        assert!(!fixture.evaluate(&mut evaluator, noon() + minutes(minute)).await);
    }
    let (condition, data): (String, String) =
        fixture.world.query_one("SELECT condition, data FROM watchbook.alerts").await;
    assert_eq!((condition.as_str(), data.as_str()), ("firing", "stale"));
    // The records catch up and then stop: an hour later none are left in the window.
    evaluator.engine.set_lag(Kind::Executions, Lag { behind: Some(TimeDelta::zero()), stale: None });
    for minute in 62..200 {
        assert!(!fixture.evaluate(&mut evaluator, noon() + minutes(minute)).await);
    }
    let (condition, data): (String, String) =
        fixture.world.query_one("SELECT condition, data FROM watchbook.alerts").await;
    assert_eq!((condition.as_str(), data.as_str()), ("firing", "no_data"));
    // Records return and succeed: the alert resolves after `keep_firing_for`.
    for minute in 200..207 {
        fixture.add_records(noon() + minutes(minute), "acme", 20, 0).await;
        fixture.evaluate(&mut evaluator, noon() + minutes(minute)).await;
    }
    let rate = |status| ("rate".to_owned(), status);
    assert_eq!(fixture.notified().await, [rate(Status::Firing), rate(Status::Resolved)]);
    fixture.finish().await;
}

#[tokio::test]
async fn of_two_desks_one_moves_an_alert_and_the_other_knows_that_it_is_late() {
    let mut fixture = Fixture::new().await;
    let alerting = alerting(&[RULE, WEBHOOK].concat());
    let mut first = fixture.evaluator(&alerting, noon()).await;
    let mut second = fixture.evaluator(&alerting, noon()).await;
    fixture.add_records(noon(), "acme", 20, 20).await;
    fixture.evaluate(&mut first, noon()).await;
    let late = second.evaluate_and_commit(&mut fixture.connection, noon(), Scope::All, ()).await;
    assert!(matches!(late, Err(EvaluatorError::VersionConflict)), "{late:?}");
    // A new evaluator has nothing to add and continues where the other one was.
    let mut second = fixture.evaluator(&alerting, noon()).await;
    assert!(!fixture.evaluate(&mut second, noon()).await);
    assert_eq!(fixture.notified().await.len(), 1);
    assert_eq!(fixture.world.count("SELECT count(*) FROM watchbook.alert_transitions").await, 1);
    fixture.add_records(noon() + minutes(1), "acme", 200, 0).await;
    fixture.evaluate(&mut second, noon() + minutes(1)).await;
    fixture.evaluate(&mut second, noon() + minutes(7)).await;
    assert_eq!(fixture.notified().await.len(), 2);
    fixture.finish().await;
}

#[tokio::test]
async fn an_alert_whose_rule_is_gone_is_over_and_that_is_told() {
    let mut fixture = Fixture::new().await;
    let with = alerting(&[RULE, WEBHOOK].concat());
    let without = alerting(&[RULE.replace("\"rate\"", "\"another\"").as_str(), WEBHOOK].concat());
    let mut evaluator = fixture.evaluator(&with, noon()).await;
    fixture.add_records(noon(), "acme", 20, 20).await;
    fixture.evaluate(&mut evaluator, noon()).await;
    let mut evaluator = fixture.evaluator(&without, noon() + minutes(1)).await;
    fixture.evaluate(&mut evaluator, noon() + minutes(1)).await;
    let notified = fixture.notified().await;
    let word = |rule: &str, status| (rule.to_owned(), status);
    assert_eq!(
        notified,
        [word("rate", Status::Firing), word("rate", Status::Resolved), word("another", Status::Firing)]
    );
    fixture.finish().await;
}

#[tokio::test]
async fn a_storm_is_a_few_notifications_and_a_digest_of_everything_else() {
    let mut fixture = Fixture::new().await;
    let rule = RULE.replace("window", "group_by = [\"organization\"]\nwindow");
    let slack = "[[receivers]]\nname = \"people\"\nslack = { url = \"https://hooks.example/x\" }\n";
    let alerting = alerting(&[rule.as_str(), slack].concat());
    let mut evaluator = fixture.evaluator(&alerting, noon()).await;
    for organization in 0..10 {
        fixture.add_records(noon(), &format!("org-{organization}"), 20, 20).await;
    }
    fixture.evaluate(&mut evaluator, noon()).await;
    let notifications = fixture.notifications().await;
    let sizes: Vec<_> =
        notifications.iter().map(|notification| (notification.why, notification.alerts.len())).collect();
    assert_eq!(
        sizes,
        [
            (NotificationReason::Firing, 1),
            (NotificationReason::Firing, 1),
            (NotificationReason::Firing, 1),
            (NotificationReason::Digest, 7)
        ]
    );
    // While a digest is open, every notification goes into it, so that none overtakes it.
    fixture.add_records(noon() + minutes(1), "org-9", 200, 0).await;
    fixture.evaluate(&mut evaluator, noon() + minutes(1)).await;
    fixture.evaluate(&mut evaluator, noon() + minutes(7)).await;
    let notifications = fixture.notifications().await;
    assert_eq!(notifications.len(), 4);
    let digest = notifications.last().unwrap();
    let over: Vec<_> = digest.alerts.iter().filter(|alert| alert.status == Status::Resolved).collect();
    assert_eq!((digest.alerts.len(), over.len(), over[0].organization.as_str()), (7, 1, "org-9"));
    fixture.finish().await;
}

const BY_ORGANIZATION: &str = "group_by = [\"organization\"]\nwindow";

#[tokio::test]
async fn a_group_of_which_one_alert_is_over_still_fires_where_another_one_does() {
    let mut fixture = Fixture::new().await;
    let route = "[[routes]]\nto = [\"ops\"]\ngroup_by = [\"alertname\"]\n";
    let alerting = alerting(&[RULE.replace("window", BY_ORGANIZATION).as_str(), WEBHOOK, route].concat());
    let mut evaluator = fixture.evaluator(&alerting, noon()).await;
    fixture.add_records(noon(), "first", 20, 20).await;
    fixture.add_records(noon(), "second", 20, 20).await;
    fixture.evaluate(&mut evaluator, noon()).await;
    for organization in ["first", "second"] {
        let minute = if organization == "first" { 1 } else { 10 };
        fixture.add_records(noon() + minutes(minute), organization, 200, 0).await;
        fixture.evaluate(&mut evaluator, noon() + minutes(minute)).await;
        fixture.evaluate(&mut evaluator, noon() + minutes(minute + 6)).await;
    }
    let notified: Vec<_> = fixture
        .notifications()
        .await
        .iter()
        .map(|notification| (notification.alerts.len(), notification.still_firing, notification.status()))
        .collect();
    assert_eq!(notified, [(2, 0, Status::Firing), (1, 1, Status::Firing), (1, 0, Status::Resolved)]);
    fixture.finish().await;
}

#[tokio::test]
async fn the_end_is_told_to_whom_and_under_which_group_the_beginning_was() {
    let mut fixture = Fixture::new().await;
    let two = format!("{WEBHOOK}{}", WEBHOOK.replace("\"ops\"", "\"others\""));
    let before = alerting(&[RULE, &two, "[[routes]]\nto = [\"ops\"]\ngroup_by = [\"alertname\"]\n"].concat());
    let after = alerting(&[RULE, &two, "[[routes]]\nto = [\"others\"]\ngroup_by = [\"severity\"]\n"].concat());
    let mut evaluator = fixture.evaluator(&before, noon()).await;
    fixture.add_records(noon(), "acme", 20, 20).await;
    fixture.evaluate(&mut evaluator, noon()).await;
    let mut evaluator = fixture.evaluator(&after, noon() + minutes(1)).await;
    fixture.evaluate(&mut evaluator, noon() + minutes(1)).await;
    fixture.add_records(noon() + minutes(2), "acme", 200, 0).await;
    fixture.evaluate(&mut evaluator, noon() + minutes(2)).await;
    fixture.evaluate(&mut evaluator, noon() + minutes(8)).await;
    let mut notified: Vec<_> = fixture
        .notifications()
        .await
        .into_iter()
        .map(|notification| (notification.receiver.clone(), notification.group_key.clone(), notification.status()))
        .collect();
    notified.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    assert_eq!(notified.len(), 4, "{notified:?}");
    for pair in notified.chunks(2) {
        assert_eq!((&pair[0].0, &pair[0].1), (&pair[1].0, &pair[1].1));
        assert_eq!((pair[0].2, pair[1].2), (Status::Firing, Status::Resolved));
    }
    fixture.finish().await;
}

#[tokio::test]
async fn an_alert_that_fires_is_not_over_because_there_are_many_groups() {
    let mut fixture = Fixture::new().await;
    let alerting = alerting(&[RULE.replace("window", BY_ORGANIZATION).as_str(), WEBHOOK].concat());
    let open = async |fixture: &mut Fixture, now| {
        Evaluator::open(&mut fixture.connection, alerting.clone(), 3, STORM_AFTER, now, ()).await.unwrap()
    };
    let mut evaluator = open(&mut fixture, noon()).await;
    fixture.add_records(noon(), "fails", 20, 20).await;
    fixture.evaluate(&mut evaluator, noon()).await;
    // Two hours later it has left the window, and others use up all places for groups.
    for organization in 0..5 {
        fixture.add_records(noon() + minutes(120), &format!("org-{organization}"), 20, 0).await;
    }
    let mut evaluator = open(&mut fixture, noon() + minutes(121)).await;
    fixture.evaluate(&mut evaluator, noon() + minutes(121)).await;
    assert_eq!(fixture.notified().await, [("rate".to_owned(), Status::Firing)]);
    fixture.finish().await;
}

#[tokio::test]
async fn more_alerts_than_one_notification_holds_are_told_in_several() {
    let mut fixture = Fixture::new().await;
    let alerting = alerting(&[RULE.replace("window", "group_by = [\"user\"]\nwindow").as_str(), WEBHOOK].concat());
    let mut evaluator =
        Evaluator::open(&mut fixture.connection, alerting, 5_000, STORM_AFTER, noon(), ()).await.unwrap();
    let labels = Kind::Executions.spec().labels.len();
    let groups = MinuteGroups {
        dictionary: (0..2_500).map(|user| format!("user-{user}").into()).collect(),
        // No organization and no strategy; the user is the third label.
        places: (1..=2_500)
            .flat_map(|user| [0, 0, user].into_iter().chain(std::iter::repeat_n(0, labels - 2)))
            .collect(),
        total: vec![20; 2_500],
        failed: vec![20; 2_500],
        levels: Vec::new(),
    };
    rollups::add(&mut fixture.connection, Kind::Executions, &[(noon(), groups)]).await.unwrap();
    fixture.evaluate(&mut evaluator, noon()).await;
    let notifications = fixture.notifications().await;
    let sizes: Vec<_> = notifications.iter().map(|notification| notification.alerts.len()).collect();
    assert_eq!(sizes, [1_000, 1_000, 500]);
    fixture.finish().await;
}

#[tokio::test]
async fn a_group_that_waits_gathers_its_alerts_in_one_notification() {
    let mut fixture = Fixture::new().await;
    let rule = RULE.replace("window", "group_by = [\"organization\"]\nwindow");
    let route = "[[routes]]\nto = [\"ops\"]\ngroup_by = [\"alertname\"]\ngroup_wait = \"1m\"\n";
    let alerting = alerting(&[rule.as_str(), WEBHOOK, route].concat());
    let mut evaluator = fixture.evaluator(&alerting, noon()).await;
    for organization in 0..3 {
        fixture.add_records(noon(), &format!("org-{organization}"), 20, 20).await;
        fixture.evaluate(&mut evaluator, noon() + TimeDelta::seconds(organization)).await;
    }
    let notifications = fixture.notifications().await;
    assert_eq!(notifications.len(), 1);
    assert_eq!(notifications[0].alerts.len(), 3);
    // Once delivery has started, the row no longer changes, and the next alert gets a new one.
    fixture.world.execute("UPDATE watchbook.outbox SET attempts = 1").await;
    fixture.add_records(noon(), "org-3", 20, 20).await;
    fixture.evaluate(&mut evaluator, noon() + TimeDelta::seconds(10)).await;
    assert_eq!(fixture.notifications().await.len(), 2);
    fixture.finish().await;
}

#[tokio::test]
async fn an_alert_whose_state_cannot_be_decoded_still_fires_and_resolves() {
    for state in [r#"{"condition": 7}"#, "{}", "[]", r#"{"condition": "burning"}"#] {
        let mut fixture = Fixture::new().await;
        let alerting = alerting(&[RULE, WEBHOOK].concat());
        fixture.add_records(noon(), "acme", 20, 20).await;
        let mut evaluator = fixture.evaluator(&alerting, noon()).await;
        assert!(fixture.evaluate(&mut evaluator, noon()).await);
        fixture.world.execute(&format!("UPDATE watchbook.alerts SET state = '{state}'")).await;

        let mut evaluator = fixture.evaluator(&alerting, noon() + minutes(1)).await;
        assert!(!fixture.evaluate(&mut evaluator, noon() + minutes(1)).await, "{state}: it fires already");
        fixture.add_records(noon() + minutes(2), "acme", 200, 0).await;
        for minute in 2..9 {
            fixture.evaluate(&mut evaluator, noon() + minutes(minute)).await;
        }
        let statuses: Vec<_> = fixture.notified().await.into_iter().map(|(_, status)| status).collect();
        assert_eq!(statuses, [Status::Firing, Status::Resolved], "{state}");
        fixture.finish().await;
    }
}

#[tokio::test]
async fn a_repetition_comes_after_its_interval_and_after_a_restart_as_well() {
    let mut fixture = Fixture::new().await;
    let route = "[[routes]]\nto = [\"ops\"]\nrepeat_interval = \"4h\"\n";
    let alerting = alerting(&[RULE, WEBHOOK, route].concat());
    fixture.add_records(noon(), "acme", 20, 20).await;
    let mut evaluator = fixture.evaluator(&alerting, noon()).await;
    fixture.evaluate(&mut evaluator, noon()).await;
    for hour in 1..4 {
        assert!(!fixture.evaluate(&mut evaluator, noon() + TimeDelta::hours(hour)).await);
    }
    fixture.world.execute("UPDATE watchbook.outbox SET delivered_at = now()").await;
    let mut evaluator = fixture.evaluator(&alerting, noon() + TimeDelta::hours(4)).await;
    assert!(fixture.evaluate(&mut evaluator, noon() + TimeDelta::hours(4)).await);
    // That notification is not delivered: further repetitions would only wait behind it.
    for hour in [8, 12] {
        fixture.evaluate(&mut evaluator, noon() + TimeDelta::hours(hour)).await;
    }
    let notifications = fixture.notifications().await;
    let why: Vec<_> = notifications.iter().map(|notification| notification.why).collect();
    assert_eq!(why, [NotificationReason::Firing, NotificationReason::Repeated]);
    fixture.finish().await;
}

#[tokio::test]
async fn what_is_there_when_a_rule_begins_is_not_new_and_what_comes_is_once() {
    let mut fixture = Fixture::new().await;
    let rule = "[[rules]]\nname = \"new\"\nsource = \"executions\"\nfirst_seen = true\ngroup_by = [\"organization\"]\n";
    let alerting = alerting(&[rule, WEBHOOK].concat());
    fixture.add_records(noon(), "old", 1, 0).await;
    fixture.add_records(noon() - TimeDelta::days(20), "rare", 1, 0).await;
    let mut evaluator = fixture.evaluator(&alerting, noon()).await;
    assert!(!fixture.evaluate(&mut evaluator, noon()).await);
    fixture.add_records(noon(), "rare", 1, 0).await;
    assert!(!fixture.evaluate(&mut evaluator, noon() + TimeDelta::seconds(2)).await);
    fixture.add_records(noon(), "new", 1, 0).await;
    assert!(fixture.evaluate(&mut evaluator, noon() + TimeDelta::seconds(5)).await);
    // A restart knows the groups found before, and finds those that arrived meanwhile.
    fixture.add_records(noon(), "newer", 1, 0).await;
    let mut evaluator = fixture.evaluator(&alerting, noon() + TimeDelta::seconds(9)).await;
    assert!(fixture.evaluate(&mut evaluator, noon() + TimeDelta::seconds(9)).await);
    let firing: Vec<_> = fixture
        .notifications()
        .await
        .into_iter()
        .flat_map(|notification| notification.alerts)
        .map(|alert| (alert.organization, alert.status))
        .collect();
    assert_eq!(firing, [("new".to_owned(), Status::Firing), ("newer".to_owned(), Status::Firing)]);
    fixture.finish().await;
}

#[tokio::test]
async fn a_clock_that_is_behind_is_no_silence_and_a_restart_ends_none() {
    let mut fixture = Fixture::new().await;
    let rule =
        "[[rules]]\nname = \"silent\"\nsource = \"executions\"\nsilent_for = \"10m\"\ngroup_by = [\"organization\"]\n";
    let alerting = alerting(&[rule, WEBHOOK].concat());
    let mut evaluator = fixture.evaluator(&alerting, noon()).await;
    for minute in 0..20 {
        fixture.add_records(noon() + minutes(minute - 12), "slow", 1, 0).await;
        assert!(!fixture.evaluate(&mut evaluator, noon() + minutes(minute)).await, "minute {minute}");
    }
    // A new worker does not fire either, although it does not know when the records arrived.
    let now = noon() + minutes(20);
    let mut evaluator = fixture.evaluator(&alerting, now).await;
    assert!(!fixture.evaluate(&mut evaluator, now).await);
    assert!(!fixture.evaluate(&mut evaluator, now + minutes(10)).await);
    assert!(fixture.evaluate(&mut evaluator, now + minutes(11)).await, "nothing has arrived for more than ten minutes");
    // Rules are reloaded, which is not a sign of life.
    let mut evaluator = fixture.evaluator(&alerting, now + minutes(11)).await;
    assert!(!fixture.evaluate(&mut evaluator, now + minutes(12)).await);
    fixture.add_records(now, "slow", 1, 0).await;
    // It recovers, and resolves in the next cycle.
    for minute in [13, 14] {
        fixture.evaluate(&mut evaluator, now + minutes(minute)).await;
    }
    let notified = fixture.notified().await;
    assert_eq!(notified, [Status::Firing, Status::Resolved].map(|status| ("silent".to_owned(), status)));
    fixture.finish().await;
}

#[tokio::test]
async fn a_group_that_was_quiet_for_long_is_new_again() {
    let mut fixture = Fixture::new().await;
    let rule = "[[rules]]\nname = \"new\"\nsource = \"executions\"\nfirst_seen = true\nforget_after = \"30d\"\ngroup_by = [\"organization\"]\n";
    let alerting = alerting(&[rule, WEBHOOK].concat());
    let mut evaluator = fixture.evaluator(&alerting, noon()).await;
    fixture.evaluate(&mut evaluator, noon()).await;
    for (day, is_new) in [(0, true), (20, false), (45, false), (80, true)] {
        let now = noon() + TimeDelta::days(day);
        fixture.add_records(now, "acme", 1, 0).await;
        assert_eq!(fixture.evaluate(&mut evaluator, now).await, is_new, "day {day}");
        for later in
            [TimeDelta::hours(1), TimeDelta::hours(2), TimeDelta::hours(20), TimeDelta::hours(40), TimeDelta::days(31)]
        {
            // Over after its window; stored hourly; out of memory after a day.
            if now + later < noon() + TimeDelta::days(day + 20) || day == 45 {
                fixture.evaluate(&mut evaluator, now + later).await;
                evaluator.save_known_groups(&mut fixture.connection, now + later).await.unwrap();
                evaluator.prune(now + later);
            }
        }
    }
    fixture.finish().await;
}

#[tokio::test]
async fn a_spike_is_compared_with_the_same_hour_a_week_ago() {
    let mut fixture = Fixture::new().await;
    let rule = "[[rules]]\nname = \"spike\"\nsource = \"executions\"\nwindow = \"1h\"\ncompared_with = \"7d\"\nthreshold = \"300%\"\ngroup_by = [\"organization\"]\n";
    let alerting = alerting(&[rule, WEBHOOK].concat());
    let week = TimeDelta::days(7);
    fixture.add_records(noon() - week - TimeDelta::hours(2), "acme", 1, 0).await;
    for minute in -60..120 {
        fixture.add_records(noon() - week + minutes(minute), "acme", 2, 0).await;
    }
    let mut evaluator = fixture.evaluator(&alerting, noon()).await;
    // 120 in the same hour a week ago: 360 are not more than three times that, 361 are.
    fixture.add_records(noon() - minutes(1), "acme", 360, 0).await;
    assert!(!fixture.evaluate(&mut evaluator, noon()).await);
    fixture.add_records(noon() - minutes(1), "acme", 1, 0).await;
    assert!(fixture.evaluate(&mut evaluator, noon()).await);
    let (reason,): (String,) = fixture.world.query_one("SELECT reason FROM watchbook.alerts").await;
    assert!(reason.contains("361") && reason.contains("120"), "{reason}");
    // For an organization without known past counts, 20 are enough.
    fixture.add_records(noon(), "young", 30, 0).await;
    assert!(fixture.evaluate(&mut evaluator, noon() + TimeDelta::seconds(20)).await);
    fixture.finish().await;
}
