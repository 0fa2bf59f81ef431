//! No caller sees, counts or infers records of other organizations.

use chrono::{TimeDelta, Utc};
use harness::World;
use serde::Serialize;
use serde_json::{Value, json};
use store::Steps;
use store::queries::alerts::{self, AlertFilter};
use store::queries::audit::{self, AuditFilter};
use store::queries::dead_letters::{self, DeadLetterFilter};
use store::queries::errors::{self, ErrorFilter};
use store::queries::events::{self, EventFilter};
use store::queries::executions::{self, ExecutionFilter};
use store::queries::logs::{self, LogFilter};
use store::queries::metrics::{self, MetricFilter};
use store::queries::retention;
use store::scoped_read::{ReadTransaction, Reader, Scope};
use uuid::Uuid;

use super::{day, finish, of, span_of, text, whole, with_days};

/// Inserts the same records for two organizations and for none, except for a marker.
async fn the_same_three_times(world: &World) {
    for (organization, mark, number) in [("'acme'", "acme", 1), ("'globex'", "globex", 10), ("NULL", "nobody", 100)] {
        let subject_token = if mark == "nobody" { "_" } else { mark };
        let alert_organization = if mark == "nobody" { "_" } else { mark };
        let statements = format!(
            "INSERT INTO watchbook.event_logs (event_type, payload, project_id, run_id, user_id, actor_type, id, organization_id, created_at, received_at, attributes)
             SELECT 'e', '{{\"mark\":\"{mark}\"}}', 'p', 'r', 'u', 'user', gen_random_uuid(), {organization}, now() - n * interval '1 minute', now(), '{{}}' FROM generate_series(1, {number}) AS n;
             INSERT INTO watchbook.error_logs (trace_id, error_type, message, fingerprint, project_id, run_id, endpoint, severity, id, organization_id, created_at, received_at, attributes)
             SELECT 't', 'E', '{mark}', '00000000-0000-0000-0000-00000000000f', 'p', 'r', '/', 'error', gen_random_uuid(), {organization}, now() - n * interval '1 minute', now(),
                    jsonb_build_object('user_id', '{mark}' || n) FROM generate_series(1, {number}) AS n;
             INSERT INTO watchbook.container_metrics (container_id, cpu_usage_percent, id, organization_id, created_at, received_at, attributes)
             SELECT 'c', {number}, gen_random_uuid(), {organization}, now() - n * interval '1 minute', now(), '{{}}' FROM generate_series(1, {number}) AS n;
             INSERT INTO watchbook.container_metric_hours (container_id, hour, organization_id, samples, cpu_usage_percent_samples, cpu_usage_percent_min, cpu_usage_percent_sum,
                    cpu_usage_percent_max, memory_usage_bytes_samples, memory_usage_bytes_sum, network_rx_bytes_samples, network_rx_bytes_sum, network_tx_bytes_samples, network_tx_bytes_sum)
             VALUES ('c', date_trunc('hour', now() - interval '2 days'), {organization}, {number}, 1, {number}, {number}, {number}, 0, 0, 0, 0, 0, 0);
             INSERT INTO watchbook.container_logs (container_id, stream, message, id, organization_id, created_at, received_at, attributes)
             SELECT 'c', 'stdout', 'line of {mark}', gen_random_uuid(), {organization}, now() - n * interval '1 minute', now(), '{{}}' FROM generate_series(1, {number}) AS n;
             INSERT INTO control_plane.audit_logs (actor_id, actor_type, action, target_type, target_id, status, metadata, ip_address, id, organization_id, created_at, received_at, attributes)
             SELECT 'u', 'user', 'a', 't', 'i', 'SUCCESS', '{{\"mark\":\"{mark}\"}}', '192.0.2.7', gen_random_uuid(), {organization}, now() - n * interval '1 minute', now(), '{{}}' FROM generate_series(1, {number}) AS n;
             INSERT INTO watchbook.sandbox_execution_logs (user_id, strategy_id, execution_type, success, execution_time_ms, memory_used_mb, timed_out, error_count, warning_count, id, organization_id, created_at, received_at, attributes)
             SELECT 'u', 's', 'VALIDATION', {number} = 1, {number}, {number}, false, {number}, 0, gen_random_uuid(), {organization}, now() - n * interval '1 second', now(), '{{}}' FROM generate_series(1, {number}) AS n;
             INSERT INTO watchbook.dead_letters (id, kind, subject, stream, stream_seq, reason, detail, payload, received_at, failed_at)
             SELECT gen_random_uuid(), 'events', 'a.events.events.{subject_token}.x.acme', 'A_EVENTS_EVENTS', n, 'invalid_json', '{mark}', '{mark}', now(), now() FROM generate_series(1, {number}) AS n;
             INSERT INTO watchbook.outcome_minutes (kind, minute, organization_id, lane, total, failed) VALUES ('events', date_trunc('minute', now()), '{alert_organization}', 0, {number}, 0);
             INSERT INTO watchbook.alerts (id, rule, organization_id, labels, severity, version, condition, data, reason, state, changed_at)
             SELECT ('00000000-0000-0000-0000-' || lpad({number}::text, 9, '0') || lpad(n::text, 3, '0'))::uuid, 'rule', '{alert_organization}', '{{}}', 'critical', 1, 'firing', 'ok', '{mark}', '{{}}', now() FROM generate_series(1, {number}) AS n;
             INSERT INTO watchbook.alert_transitions (alert_id, version, from_condition, to_condition, data, reason, figures, at)
             SELECT id, 1, 'inactive', 'firing', 'ok', '{mark}', '{{}}', now() FROM watchbook.alerts WHERE organization_id = '{alert_organization}';
             INSERT INTO watchbook.silences (id, matchers, starts_at, ends_at, created_by, reason, created_at)
             SELECT gen_random_uuid(), CASE WHEN '{mark}' = 'nobody' THEN '[\"severity=critical\"]'::jsonb ELSE '[\"severity=critical\",\"organization_id={mark}\"]' END, now(), now() + interval '1 hour', 'x', '{mark}', now() FROM generate_series(1, {number}) AS n;
             INSERT INTO watchbook.holds (id, organization_id, reason, created_by, created_at)
             SELECT gen_random_uuid(), CASE WHEN '{mark}' = 'nobody' AND n > 1 THEN '_' ELSE {organization} END, '{mark}', 'x', now() FROM generate_series(1, {number}) AS n;
             INSERT INTO watchbook.retention_runs (id, cause, actor_id, process, outcome, planned, started_at) VALUES (gen_random_uuid(), 'command', '{mark}', 'p', 'done', '{{}}', now())"
        );
        world.execute(&statements).await;
    }
}

async fn knows(world: &World, organization: &str, entity: &str, id: &str, name: &str, deleted: bool) {
    let organization = if organization.is_empty() { "NULL".to_owned() } else { format!("'{organization}'") };
    world
        .execute(&format!(
            "INSERT INTO watchbook.entities (entity, entity_id, name, email, deleted, id, organization_id, created_at, received_at, attributes)
             VALUES ('{entity}', '{id}', '{name}', '{name}@example.org', {deleted}, gen_random_uuid(), {organization}, now(), now(), '{{}}')"
        ))
        .await;
}

/// Returns every list that a scope can read, as JSON: names and items.
async fn lists(transaction: &mut ReadTransaction, organization_id: Option<&str>) -> Vec<(&'static str, Vec<Value>)> {
    fn json<T: Serialize>(rows: store::Result<Vec<T>>) -> Vec<Value> {
        rows.unwrap().iter().map(|row| serde_json::to_value(row).unwrap()).collect()
    }
    let (page, organization) = (whole(), organization_id.map(str::to_owned));
    let event = EventFilter { organization_id: organization.clone(), ..EventFilter::default() };
    let error = ErrorFilter { organization_id: organization.clone(), ..ErrorFilter::default() };
    let metric = MetricFilter { organization_id: organization.clone(), container_id: "c".to_owned() };
    let log = LogFilter { organization_id: organization.clone(), ..LogFilter::default() };
    let audit = AuditFilter { organization_id: organization.clone(), ..AuditFilter::default() };
    let execution = ExecutionFilter { organization_id: organization.clone(), ..ExecutionFilter::default() };
    let letter = DeadLetterFilter { organization_id: organization.clone(), ..DeadLetterFilter::default() };
    let alert = AlertFilter { organization_id: organization.clone(), ..AlertFilter::default() };
    vec![
        ("events", json(events::list(transaction, &event, &page).await)),
        ("errors", json(errors::list(transaction, &error, &page).await)),
        ("metrics", json(metrics::list(transaction, &metric, &page).await)),
        ("logs", json(logs::list(transaction, &log, &page).await)),
        ("audit", json(audit::list(transaction, &audit, &page).await)),
        ("executions", json(executions::list(transaction, &execution, &page).await)),
        ("dead letters", json(dead_letters::list(transaction, &letter, &page).await)),
        ("alerts", json(alerts::list(transaction, &alert, &page).await)),
        ("holds", json(retention::holds(transaction, organization_id, &page).await)),
    ]
}

#[tokio::test]
async fn nobody_sees_counts_or_infers_what_is_somebody_elses() {
    let world = with_days(0..3).await;
    the_same_three_times(&world).await;
    for (organization, name) in [("globex", "Grace"), ("initech", "Ian")] {
        knows(&world, organization, "user", "u", name, false).await;
        knows(&world, organization, "strategy", "s", name, false).await;
    }
    let reader = Reader::new(world.database().clone());
    let all = Scope::All;
    for (scope, wanted, counts, marks) in [
        (of(&["acme"]), None, 1, &["acme"][..]),
        (of(&["acme"]), Some("acme"), 1, &["acme"]),
        (of(&["acme"]), Some("globex"), 0, &[]),
        (of(&["acme"]), Some("_"), 0, &[]),
        (of(&["globex", "acme"]), None, 11, &["acme", "globex"]),
        (of(&["globex", "acme"]), Some("globex"), 10, &["globex"]),
        (of(&[]), None, 0, &[]),
        (of(&["*", "_", "ac", "acme2", "ACME", "acme,globex"]), None, 0, &[]),
        (all.clone(), None, 111, &["acme", "globex", "nobody"]),
        (all.clone(), Some("acme"), 1, &["acme"]),
    ] {
        let mut transaction = reader.begin(&scope).await.unwrap();
        for (list, items) in lists(&mut transaction, wanted).await {
            let of_all = format!("{list} of {scope:?}, asked for {wanted:?}");
            assert_eq!(items.len(), counts, "{of_all}");
            let words = json!(items).to_string();
            for mark in ["acme", "globex", "nobody"] {
                let is_expected = marks.contains(&mark);
                let tells = match list {
                    // Without a text of their own: only the organization differs.
                    "metrics" | "executions" if mark == "nobody" => words.contains("\"organization_id\":null"),
                    _ if list == "dead letters" && mark == "acme" => continue, // part of each subject
                    _ => words.contains(mark),
                };
                assert_eq!(tells, is_expected, "{mark} in {of_all}: {words}");
            }
            let sees_grace = matches!(list, "audit" | "executions") && marks.contains(&"globex");
            assert_eq!(words.contains("Grace"), sees_grace, "{of_all}");
            assert!(!words.contains("Ian"), "{of_all}");
        }
        transaction.end().await.unwrap();
    }
    finish(world).await;
}

#[tokio::test]
async fn sums_are_of_what_may_be_seen_alone() {
    let world = with_days(0..3).await;
    the_same_three_times(&world).await;
    let reader = Reader::new(world.database().clone());
    let (page, span) = (whole(), span_of(&whole()));
    let steps = Steps::of(day(3), day(-1), TimeDelta::hours(1)).unwrap();
    let of_strategy = ExecutionFilter { strategy_id: text("s"), ..ExecutionFilter::default() };
    for (scope, count, health) in [
        (of(&["acme"]), 1, 1),
        (of(&["globex"]), 10, 10),
        (of(&["acme", "globex"]), 11, 11),
        (Scope::All, 111, 100),
        (of(&[]), 0, 0),
    ] {
        let mut transaction = reader.begin(&scope).await.unwrap();
        let groups = errors::groups(&mut transaction, &ErrorFilter::default(), &page, 10).await.unwrap();
        let [total, users, sparks] = groups.iter().fold([0; 3], |[a, b, c], group| {
            [a + group.count, b + group.affected_users, c + group.sparkline.iter().sum::<i64>()]
        });
        assert_eq!([total, users, sparks], [count; 3], "{scope:?}");
        assert!(groups.iter().all(|group| group.sparkline.len() == 10));
        assert_eq!(groups.len(), usize::from(count > 0), "{scope:?}");
        if count < 100 && count > 0 {
            assert_ne!(groups[0].message, "nobody");
        }
        let points = metrics::series(
            &mut transaction,
            &MetricFilter { container_id: "c".to_owned(), ..MetricFilter::default() },
            &steps,
        )
        .await
        .unwrap();
        assert_eq!(
            points.iter().map(|point| point.samples).sum::<u64>(),
            u64::try_from(2 * count).unwrap(),
            "{scope:?}"
        );
        let stats = executions::stats(&mut transaction, &of_strategy, &span).await.unwrap();
        assert_eq!(stats.count, count, "{scope:?}");
        assert_eq!(stats.avg_execution_time_ms.is_some(), count > 0);
        let trends = executions::trends(&mut transaction, &ExecutionFilter::default(), 3, Utc::now()).await.unwrap();
        assert_eq!(trends.len(), 3);
        assert_eq!(trends.iter().map(|day| day.total).sum::<i64>(), count, "{scope:?}");
        let user = executions::stats_of_user(&mut transaction, "u", None, &span).await.unwrap();
        assert_eq!(user.total, count, "{scope:?}");
        let strategy = executions::health_of_strategy(&mut transaction, "s", None, &span).await.unwrap();
        assert_eq!(strategy.total, health, "{scope:?}");
        assert_eq!(strategy.last_executed.is_some(), count > 0);
        let silences = alerts::silences(&mut transaction, Some(Utc::now()), &page).await.unwrap();
        assert_eq!(silences.len(), usize::try_from(count).unwrap(), "{scope:?}");
        let runs = retention::runs(&mut transaction, true, 10).await.unwrap();
        assert_eq!(runs.len(), if scope == Scope::All { 3 } else { 0 }, "{scope:?}");
        let minutes: i64 = sqlx::query_scalar("SELECT coalesce(sum(total), 0)::bigint FROM watchbook.outcomes")
            .fetch_one(transaction.connection())
            .await
            .unwrap();
        assert_eq!(minutes, count, "{scope:?}");
        // By their ids, which are not secret.
        for (mark, number) in [("acme", 1), ("globex", 10), ("nobody", 100)] {
            let sees = match &scope {
                Scope::All => true,
                Scope::Organizations(names) => names.iter().any(|name| name == mark),
            };
            let alert = Uuid::parse_str(&format!("00000000-0000-0000-0000-{number:09}001")).unwrap();
            assert_eq!(alerts::find(&mut transaction, alert).await.unwrap().is_some(), sees, "{mark} for {scope:?}");
            assert_eq!(alerts::history(&mut transaction, alert, None, 10).await.unwrap().len(), usize::from(sees));
            let letter: (Uuid,) = world
                .query_one(&format!("SELECT id FROM watchbook.dead_letters WHERE detail = '{mark}' LIMIT 1"))
                .await;
            assert_eq!(
                dead_letters::find(&mut transaction, letter.0).await.unwrap().is_some(),
                sees,
                "{mark} for {scope:?}"
            );
        }
        transaction.end().await.unwrap();
    }
    finish(world).await;
}

#[tokio::test]
async fn names_are_those_of_the_own_directory_and_then_of_the_platforms() {
    let world = with_days(0..3).await;
    the_same_three_times(&world).await;
    let reader = Reader::new(world.database().clone());
    let names = async || {
        let mut transaction = reader.begin(&of(&["acme"])).await.unwrap();
        let audit = audit::list(&mut transaction, &AuditFilter::default(), &whole()).await.unwrap().remove(0);
        let execution =
            executions::list(&mut transaction, &ExecutionFilter::default(), &whole()).await.unwrap().remove(0);
        assert_eq!(audit.actor_email, execution.user_email);
        assert_eq!(audit.actor_name, execution.user_name);
        (audit.actor_name, execution.strategy_name)
    };
    assert_eq!(names().await, (None, None));
    knows(&world, "globex", "user", "u", "Grace", false).await;
    knows(&world, "globex", "strategy", "s", "theirs", false).await;
    assert_eq!(names().await, (None, None));
    knows(&world, "", "user", "u", "Paula", false).await;
    knows(&world, "", "strategy", "u", "no user", false).await;
    assert_eq!(names().await, (text("Paula"), None));
    knows(&world, "acme", "user", "u", "Ada", false).await;
    knows(&world, "acme", "strategy", "s", "ours", false).await;
    assert_eq!(names().await, (text("Ada"), text("ours")));
    world.execute("UPDATE watchbook.entities SET deleted = true WHERE organization_id = 'acme'").await;
    assert_eq!(names().await, (text("Paula"), None));
    // Audit events of the platform itself have no organization.
    knows(&world, "acme", "user", "system", "Mallory", false).await;
    world.execute("UPDATE control_plane.audit_logs SET actor_type = 'system', actor_id = 'system'").await;
    let mut transaction = reader.begin(&of(&["acme"])).await.unwrap();
    assert_eq!(audit::list(&mut transaction, &AuditFilter::default(), &whole()).await.unwrap()[0].actor_name, None);
    transaction.end().await.unwrap();
    finish(world).await;
}

#[tokio::test]
async fn the_policies_hold_where_a_statement_forgets_them() {
    let world = with_days(0..3).await;
    the_same_three_times(&world).await;
    let reader = Reader::new(world.database().clone());
    let tables: Vec<(String,)> = world
        .query_all(
            "SELECT relnamespace::regnamespace || '.' || relname FROM pg_policy JOIN pg_class ON pg_class.oid = polrelid WHERE polname = 'readers_of_an_organization' ORDER BY 1",
        )
        .await;
    assert_eq!(tables.len(), 18);
    for (table,) in &tables {
        let count = format!("SELECT count(*) FROM {table}");
        let mut transaction = reader.begin(&of(&["acme"])).await.unwrap();
        let seen: i64 = sqlx::query_scalar(&count).fetch_one(transaction.connection()).await.unwrap();
        let expected = match table.as_str() {
            "watchbook.retention_runs"
            | "watchbook.retention_actions"
            | "watchbook.entities"
            | "watchbook.health"
            | "watchbook.outcome_hours" => 0,
            _ => 1,
        };
        assert_eq!(seen, expected, "{table}");
        // Without the setting nothing is visible, and nothing can be changed.
        sqlx::query("SET LOCAL watchbook.organizations = ''").execute(transaction.connection()).await.unwrap();
        let seen: i64 = sqlx::query_scalar(&count).fetch_one(transaction.connection()).await.unwrap();
        assert_eq!(seen, 0, "{table}");
        let changed = sqlx::query(&format!("DELETE FROM {table}")).execute(transaction.connection()).await;
        assert!(changed.is_err(), "{table}");
        drop(transaction);
        assert!(world.count(&count).await >= expected, "the owner is not bound");
    }
    // Nothing else is readable: no partition, and no table without a policy.
    let readable: Vec<(String,)> = world
        .query_all(
            "SELECT relnamespace::regnamespace || '.' || relname FROM pg_class
              WHERE relnamespace IN ('watchbook'::regnamespace, 'control_plane'::regnamespace) AND relkind IN ('r', 'p', 'v', 'm')
                AND has_table_privilege('watchbook_reader', oid, 'SELECT') ORDER BY 1",
        )
        .await;
    let mut expected = tables;
    expected.push(("watchbook.outcomes".to_owned(),));
    expected.sort();
    assert_eq!(readable, expected);
    // For every table with an organization, it is decided which roles may read it.
    let undecided: Vec<(String,)> = world
        .query_all(
            "SELECT relnamespace::regnamespace || '.' || relname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
              WHERE attname = 'organization_id' AND relkind IN ('r', 'p') AND NOT relispartition AND NOT relrowsecurity
                AND relnamespace IN ('watchbook'::regnamespace, 'control_plane'::regnamespace) ORDER BY 1",
        )
        .await;
    assert_eq!(undecided, [("watchbook.erasures".to_owned(),), ("watchbook.own_records".to_owned(),)]);
    finish(world).await;
}
