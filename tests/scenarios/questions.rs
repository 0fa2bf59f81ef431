//! The questions of the gateway: that they read by index and only the days that are asked for, and that nobody learns of
//! anybody else's records.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use harness::World;
use records::Kind;
use records::audit::Address;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection};
use store::partitions::{Partition, Partitions};
use store::questions::alerts::{self, AlertFilter};
use store::questions::audit::{self, AuditFilter};
use store::questions::dead_letters::{self, DeadLetterFilter};
use store::questions::errors::{self, ErrorFilter};
use store::questions::events::{self, EventFilter, EventRow};
use store::questions::executions::{self, ExecutionFilter};
use store::questions::logs::{self, LogFilter};
use store::questions::metrics::{self, MetricFilter};
use store::questions::replay::StoredEvent;
use store::questions::{Listed, Page, Span, replay, retention};
use store::reading::{NoReader, Reader, Reading, Scope};
use store::{PgPool, Steps};
use uuid::Uuid;

use crate::world;

/// Midnight, some days ago.
fn day(ago: i64) -> DateTime<Utc> {
    Utc::now().duration_trunc(TimeDelta::days(1)).unwrap() - TimeDelta::days(ago)
}

/// A world whose tables are filled behind the writers' back, with these days.
async fn with_days(days: std::ops::Range<i64>) -> World {
    let world = world().without_setup().start().await;
    world.rows_were_dropped();
    let mut connection = PgConnection::connect(world.database_url()).await.unwrap();
    let partitions = Partitions::default();
    for ago in days {
        for &kind in Kind::ALL {
            if let Some(partition) = Partition::of(kind, day(ago)) {
                partitions.ensure(&mut connection, partition).await.unwrap();
            }
        }
        partitions.ensure(&mut connection, Partition::of_dead_letters(day(ago))).await.unwrap();
        partitions.ensure(&mut connection, Partition::of_metric_hours(day(ago))).await.unwrap();
    }
    connection.close().await.unwrap();
    world
}

/// Ends a world whose dead letters no stream knows of.
async fn finish(world: World) {
    world.execute("TRUNCATE watchbook.dead_letters").await;
    world.finish([]).await;
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn of(organizations: &[&str]) -> Scope {
    Scope::Organizations(organizations.iter().map(|name| (*name).to_owned()).collect())
}

fn page(from: DateTime<Utc>, to: DateTime<Utc>, limit: u32) -> Page {
    Page { from, to, after: None, limit }
}

/// Everything up to now.
fn whole() -> Page {
    page(day(100), Utc::now() + TimeDelta::days(1), 1_000)
}

fn span_of(page: &Page) -> Span {
    Span { from: page.from, to: page.to }
}

// Isolation.

/// The same of everything for two organizations and for none, but for a mark that says whose it is.
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

/// Every list that a scope gets to see, as JSON: names and items.
async fn lists(reading: &mut Reading, organization_id: Option<&str>) -> Vec<(&'static str, Vec<Value>)> {
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
        ("events", json(events::list(reading, &event, &page).await)),
        ("errors", json(errors::list(reading, &error, &page).await)),
        ("metrics", json(metrics::list(reading, &metric, &page).await)),
        ("logs", json(logs::list(reading, &log, &page).await)),
        ("audit", json(audit::list(reading, &audit, &page).await)),
        ("executions", json(executions::list(reading, &execution, &page).await)),
        ("dead letters", json(dead_letters::list(reading, &letter, &page).await)),
        ("alerts", json(alerts::list(reading, &alert, &page).await)),
        ("holds", json(retention::holds(reading, organization_id, &page).await)),
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
        let mut reading = reader.begin(&scope).await.unwrap();
        for (list, items) in lists(&mut reading, wanted).await {
            let of_all = format!("{list} of {scope:?}, asked for {wanted:?}");
            assert_eq!(items.len(), counts, "{of_all}");
            let words = json!(items).to_string();
            for mark in ["acme", "globex", "nobody"] {
                let is_expected = marks.contains(&mark);
                let tells = match list {
                    // Without a text of their own: whose they are is all.
                    "metrics" | "executions" if mark == "nobody" => words.contains("\"organization_id\":null"),
                    _ if list == "dead letters" && mark == "acme" => continue, // stands in each subject
                    _ => words.contains(mark),
                };
                assert_eq!(tells, is_expected, "{mark} in {of_all}: {words}");
            }
            let sees_grace = matches!(list, "audit" | "executions") && marks.contains(&"globex");
            assert_eq!(words.contains("Grace"), sees_grace, "{of_all}");
            assert!(!words.contains("Ian"), "{of_all}");
        }
        reading.end().await.unwrap();
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
        let mut reading = reader.begin(&scope).await.unwrap();
        let groups = errors::groups(&mut reading, &ErrorFilter::default(), &page, 10).await.unwrap();
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
            &mut reading,
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
        let stats = executions::stats(&mut reading, &of_strategy, &span).await.unwrap();
        assert_eq!(stats.count, count, "{scope:?}");
        assert_eq!(stats.avg_execution_time_ms.is_some(), count > 0);
        let trends = executions::trends(&mut reading, &ExecutionFilter::default(), 3, Utc::now()).await.unwrap();
        assert_eq!(trends.len(), 3);
        assert_eq!(trends.iter().map(|day| day.total).sum::<i64>(), count, "{scope:?}");
        let user = executions::stats_of_user(&mut reading, "u", None, &span).await.unwrap();
        assert_eq!(user.total, count, "{scope:?}");
        let strategy = executions::health_of_strategy(&mut reading, "s", None, &span).await.unwrap();
        assert_eq!(strategy.total, health, "{scope:?}");
        assert_eq!(strategy.last_executed.is_some(), count > 0);
        let silences = alerts::silences(&mut reading, Some(Utc::now()), &page).await.unwrap();
        assert_eq!(silences.len(), usize::try_from(count).unwrap(), "{scope:?}");
        let runs = retention::runs(&mut reading, true, 10).await.unwrap();
        assert_eq!(runs.len(), if scope == Scope::All { 3 } else { 0 }, "{scope:?}");
        let minutes: i64 = sqlx::query_scalar("SELECT coalesce(sum(total), 0)::bigint FROM watchbook.outcomes")
            .fetch_one(reading.connection())
            .await
            .unwrap();
        assert_eq!(minutes, count, "{scope:?}");
        // By their ids, which are no secret.
        for (mark, number) in [("acme", 1), ("globex", 10), ("nobody", 100)] {
            let sees = match &scope {
                Scope::All => true,
                Scope::Organizations(names) => names.iter().any(|name| name == mark),
            };
            let alert = Uuid::parse_str(&format!("00000000-0000-0000-0000-{number:09}001")).unwrap();
            assert_eq!(alerts::find(&mut reading, alert).await.unwrap().is_some(), sees, "{mark} for {scope:?}");
            assert_eq!(alerts::history(&mut reading, alert, None, 10).await.unwrap().len(), usize::from(sees));
            let letter: (Uuid,) =
                world.ask(&format!("SELECT id FROM watchbook.dead_letters WHERE detail = '{mark}' LIMIT 1")).await;
            assert_eq!(
                dead_letters::find(&mut reading, letter.0).await.unwrap().is_some(),
                sees,
                "{mark} for {scope:?}"
            );
        }
        reading.end().await.unwrap();
    }
    finish(world).await;
}

#[tokio::test]
async fn names_are_those_of_the_own_directory_and_then_of_the_platforms() {
    let world = with_days(0..3).await;
    the_same_three_times(&world).await;
    let reader = Reader::new(world.database().clone());
    let names = async || {
        let mut reading = reader.begin(&of(&["acme"])).await.unwrap();
        let audit = audit::list(&mut reading, &AuditFilter::default(), &whole()).await.unwrap().remove(0);
        let execution = executions::list(&mut reading, &ExecutionFilter::default(), &whole()).await.unwrap().remove(0);
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
    // The platform's own deeds are nobody's.
    knows(&world, "acme", "user", "system", "Mallory", false).await;
    world.execute("UPDATE control_plane.audit_logs SET actor_type = 'system', actor_id = 'system'").await;
    let mut reading = reader.begin(&of(&["acme"])).await.unwrap();
    assert_eq!(audit::list(&mut reading, &AuditFilter::default(), &whole()).await.unwrap()[0].actor_name, None);
    reading.end().await.unwrap();
    finish(world).await;
}

#[tokio::test]
async fn the_policies_hold_where_a_statement_forgets_them() {
    let world = with_days(0..3).await;
    the_same_three_times(&world).await;
    let reader = Reader::new(world.database().clone());
    let tables: Vec<(String,)> = world
        .ask_all(
            "SELECT relnamespace::regnamespace || '.' || relname FROM pg_policy JOIN pg_class ON pg_class.oid = polrelid WHERE polname = 'readers_of_an_organization' ORDER BY 1",
        )
        .await;
    assert_eq!(tables.len(), 18);
    for (table,) in &tables {
        let count = format!("SELECT count(*) FROM {table}");
        let mut reading = reader.begin(&of(&["acme"])).await.unwrap();
        let seen: i64 = sqlx::query_scalar(&count).fetch_one(reading.connection()).await.unwrap();
        let expected = match table.as_str() {
            "watchbook.retention_runs"
            | "watchbook.retention_actions"
            | "watchbook.entities"
            | "watchbook.health"
            | "watchbook.outcome_hours" => 0,
            _ => 1,
        };
        assert_eq!(seen, expected, "{table}");
        // Without a setting nothing is seen, and nothing can be changed.
        sqlx::query("SET LOCAL watchbook.organizations = ''").execute(reading.connection()).await.unwrap();
        let seen: i64 = sqlx::query_scalar(&count).fetch_one(reading.connection()).await.unwrap();
        assert_eq!(seen, 0, "{table}");
        let changed = sqlx::query(&format!("DELETE FROM {table}")).execute(reading.connection()).await;
        assert!(changed.is_err(), "{table}");
        drop(reading);
        assert!(world.count(&count).await >= expected, "the owner is not bound");
    }
    // Nothing beside them: no partition, and no table of ours that has no policy.
    let readable: Vec<(String,)> = world
        .ask_all(
            "SELECT relnamespace::regnamespace || '.' || relname FROM pg_class
              WHERE relnamespace IN ('watchbook'::regnamespace, 'control_plane'::regnamespace) AND relkind IN ('r', 'p', 'v', 'm')
                AND has_table_privilege('watchbook_reader', oid, 'SELECT') ORDER BY 1",
        )
        .await;
    let mut expected = tables;
    expected.push(("watchbook.outcomes".to_owned(),));
    expected.sort();
    assert_eq!(readable, expected);
    // Of every table that has an organization it is decided who reads it.
    let undecided: Vec<(String,)> = world
        .ask_all(
            "SELECT relnamespace::regnamespace || '.' || relname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
              WHERE attname = 'organization_id' AND relkind IN ('r', 'p') AND NOT relispartition AND NOT relrowsecurity
                AND relnamespace IN ('watchbook'::regnamespace, 'control_plane'::regnamespace) ORDER BY 1",
        )
        .await;
    assert_eq!(undecided, [("watchbook.erasures".to_owned(),), ("watchbook.own_records".to_owned(),)]);
    finish(world).await;
}

#[tokio::test]
async fn a_reading_is_bound_and_a_connection_is_not_after_it() {
    let world = with_days(0..1).await;
    let pool = PgPoolOptions::new().max_connections(1).connect(world.database_url()).await.unwrap();
    let reader = Reader::new(pool.clone());
    let mine = "SELECT current_user::text || coalesce(current_setting('watchbook.organizations', true), '') || current_setting('transaction_read_only') || current_setting('statement_timeout')";
    let before: String = sqlx::query_scalar(mine).fetch_one(&pool).await.unwrap();
    for is_ended in [true, false] {
        let mut reading = reader.begin(&of(&["acme"])).await.unwrap();
        let bound: String = sqlx::query_scalar(mine).fetch_one(reading.connection()).await.unwrap();
        assert_eq!(bound, "watchbook_readeracmeon10s");
        if is_ended {
            reading.end().await.unwrap();
        } else {
            drop(reading);
        }
        let after: String = sqlx::query_scalar(mine).fetch_one(&pool).await.unwrap();
        assert_eq!(after, before);
    }
    pool.close().await;
    finish(world).await;
}

/// A pool of a user who owns a database of its own and nothing else.
async fn plain_owner(world: &World, name: &str) -> PgPool {
    world.execute(&format!("CREATE ROLE {name} LOGIN PASSWORD '{name}'")).await;
    world.execute(&format!("CREATE DATABASE {name} OWNER {name}")).await;
    let url = world.database_url();
    let (server, _) = url.rsplit_once('/').unwrap();
    let (_, address) = server.rsplit_once('@').unwrap();
    let url = format!("postgres://{name}:{name}@{address}/{name}");
    let mut connection = store::Database::new(&url, "test").unwrap().connect("migrate").await.unwrap();
    store::migrations::run(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    PgPoolOptions::new().max_connections(2).connect(&url).await.unwrap()
}

#[tokio::test]
async fn an_owner_who_may_make_no_role_is_told_what_to_run() {
    let world = world().without_setup().own_postgres().start().await;
    world.execute("DROP OWNED BY watchbook_reader; DROP ROLE watchbook_reader").await;
    let pool = plain_owner(&world, "plain").await;
    let reader = Reader::new(pool.clone());
    for statement in ["CREATE ROLE watchbook_reader NOLOGIN ROLE plain", "GRANT watchbook_reader TO plain"] {
        let refused = reader.begin(&Scope::All).await.unwrap_err();
        let sqlx::Error::Configuration(refused) = refused else { panic!("{refused}") };
        assert_eq!(refused.downcast_ref(), Some(&NoReader { statement: statement.to_owned() }));
        assert!(refused.to_string().ends_with(statement), "{refused}");
        assert!(reader.prepare().await.unwrap_err().to_string().contains(statement));
        if statement.starts_with("CREATE") {
            world.execute("CREATE ROLE watchbook_reader NOLOGIN").await;
        } else {
            world.execute(statement).await;
        }
    }
    // From then on it works, without a restart.
    let mut reading = reader.begin(&Scope::All).await.unwrap();
    assert!(events::list(&mut reading, &EventFilter::default(), &whole()).await.unwrap().is_empty());
    reading.end().await.unwrap();
    reader.prepare().await.unwrap();
    pool.close().await;
    finish(world).await;
}

#[tokio::test]
async fn setup_and_doctor_say_what_a_superuser_has_to_run() {
    const SECRET: (&str, &str) = ("WATCHBOOK_JWT_SECRET", "a secret of the tests, at least 32 bytes long");
    let world = world().own_postgres().start().await;
    let roles = async || world.count("SELECT count(*) FROM pg_roles WHERE rolname = 'watchbook_reader'").await;
    let of_questions = async |settings: &[(&str, &str)]| {
        let findings = world.run_with(&["doctor", "--json"], settings, "").await.json();
        let found = findings.as_array().unwrap().iter().find(|finding| finding["subject"] == "questions");
        found.unwrap_or_else(|| panic!("{findings}")).clone()
    };
    world.execute("DROP OWNED BY watchbook_reader; DROP ROLE watchbook_reader").await;
    // Whoever may make it is told nothing, and the doctor does not make it; setup does.
    assert_eq!(of_questions(&[]).await["verdict"], "fine");
    assert_eq!(roles().await, 0);
    world.run(&["setup"]).await.succeeded().said("role watchbook_reader: as it should be");
    assert_eq!(roles().await, 1);

    world.execute("DROP OWNED BY watchbook_reader; DROP ROLE watchbook_reader").await;
    let pool = plain_owner(&world, "plain").await;
    let options = pool.connect_options();
    let url = format!("postgres://plain:plain@{}:{}/plain", options.get_host(), options.get_port());
    let plain = [("DATABASE_URL", url.as_str())];
    for statement in ["CREATE ROLE watchbook_reader NOLOGIN ROLE plain", "GRANT watchbook_reader TO plain"] {
        let setup = world.run_with(&["setup"], &plain, "").await;
        setup.succeeded().said("role watchbook_reader: differs").said(&format!("`{statement}`"));
        for (settings, verdict) in [(vec![plain[0]], "warning"), (vec![plain[0], SECRET], "wrong")] {
            let finding = of_questions(&settings).await;
            assert_eq!(finding["verdict"], verdict, "{finding}");
            assert!(finding["mend"].as_str().unwrap().contains(statement), "{finding}");
        }
        for command in [&["audit", "export"][..], &["replay", "events", "--to", "x"]] {
            let refused = world.run_with(command, &plain, "").await;
            assert_eq!(refused.ended_with(1).said(statement).output, "", "{command:?}");
        }
        if statement.starts_with("CREATE") {
            world.execute("CREATE ROLE watchbook_reader NOLOGIN").await;
        } else {
            world.execute(statement).await;
        }
    }
    world.run_with(&["setup"], &plain, "").await.succeeded().said("as it should be").kept_quiet_about("superuser");
    assert_eq!(of_questions(&[plain[0], SECRET]).await["verdict"], "fine");
    pool.close().await;
    world.finish([]).await;
}

// Plans.

/// Days that there are.
const DAYS: i64 = 60;
/// Records a day and kind: enough pages that no plan reads a day from end to end for want of anything better.
const A_DAY: i64 = 300;

/// Records of forty organizations through all days, evenly. A value of a filter is some sixty rows apart from its next.
async fn sixty_days(world: &World) {
    let (first, last) = (day(DAYS - 1), day(-1));
    let step = 86_400 / A_DAY;
    let common = "gen_random_uuid(), CASE WHEN n % 40 = 0 THEN NULL ELSE 'org-' || n % 40 END, time, time, jsonb_build_object('user_id', n % 7, 'wide', repeat('x', 900))";
    let rows = format!(
        "FROM generate_series('{first}'::timestamptz, '{last}'::timestamptz - interval '1 s', interval '{step} s') WITH ORDINALITY AS each (time, n)"
    );
    let columns = "id, organization_id, created_at, received_at, attributes";
    for statement in [
        format!("INSERT INTO watchbook.event_logs (event_type, payload, project_id, run_id, user_id, actor_type, {columns})
                 SELECT 'e' || n % 59, '{{}}', 'p' || n % 60, 'r' || n % 61, 'u' || n % 62, 'user', {common} {rows}"),
        format!("INSERT INTO watchbook.error_logs (trace_id, error_type, message, fingerprint, project_id, run_id, endpoint, severity, {columns})
                 SELECT 't' || n / 3, 'E' || n % 59, 'm', md5('f' || n % 50)::uuid, 'p' || n % 60, 'r' || n % 61, '/' || n % 57, (ARRAY['warning', 'error', 'critical'])[1 + n % 3], {common} {rows}"),
        format!("INSERT INTO watchbook.container_metrics (container_id, cpu_usage_percent, {columns}) SELECT 'c' || n % 60, 1, {common} {rows}"),
        format!("INSERT INTO watchbook.container_logs (container_id, stream, message, {columns})
                 SELECT 'c' || n % 60, (ARRAY['stdout', 'stderr'])[1 + n % 2], 'line ' || n, {common} {rows}"),
        format!("INSERT INTO control_plane.audit_logs (actor_id, actor_type, action, target_type, target_id, status, metadata, ip_address, {columns})
                 SELECT 'u' || n % 62, 'user', 'a' || n % 59, 't' || n % 7, 'i' || n % 60, (ARRAY['SUCCESS', 'FAILURE'])[1 + n % 2], '{{}}', ('10.0.0.' || n % 61)::inet, {common} {rows}"),
        format!("INSERT INTO watchbook.sandbox_execution_logs (user_id, strategy_id, execution_type, success, execution_time_ms, timed_out, error_count, warning_count, {columns})
                 SELECT 'u' || n % 62, 's' || n % 60, (ARRAY['VALIDATION', 'TERMINAL'])[1 + n % 2], n % 50 > 0, 1, false, 0, 0, {common} {rows}"),
        format!("INSERT INTO watchbook.dead_letters (id, kind, subject, stream, stream_seq, reason, detail, payload, received_at, failed_at)
                 SELECT gen_random_uuid(), 'events', 'w.events.org-' || n % 40 || '.x', 'W_EVENTS', n, 'invalid_json', repeat('x', 900), '', time, time {rows}"),
        "ANALYZE".to_owned(),
    ] {
        world.execute(&statement).await;
    }
}

#[derive(Debug, Clone)]
enum Ask {
    Events(EventFilter),
    Again(EventFilter),
    Counted(EventFilter),
    Errors(ErrorFilter),
    Groups(ErrorFilter),
    Metrics(MetricFilter),
    Series(MetricFilter),
    Logs(LogFilter),
    Audit(AuditFilter),
    Executions(ExecutionFilter),
    Stats(ExecutionFilter),
    Trends,
    User,
    Health,
    Letters(DeadLetterFilter),
}

impl Ask {
    /// Which tables it reads.
    fn table(&self) -> &'static str {
        match self {
            Self::Events(_) | Self::Again(_) | Self::Counted(_) => "watchbook.event_logs",
            Self::Errors(_) | Self::Groups(_) => "watchbook.error_logs",
            Self::Metrics(_) | Self::Series(_) => "watchbook.container_metrics",
            Self::Logs(_) => "watchbook.container_logs",
            Self::Audit(_) => "control_plane.audit_logs",
            Self::Letters(_) => "watchbook.dead_letters",
            _ => "watchbook.sandbox_execution_logs",
        }
    }

    /// Asks, and says how many answers there are.
    async fn of(&self, reading: &mut Reading, page: &Page) -> store::Result<usize> {
        let span = span_of(page);
        Ok(match self {
            Self::Events(filter) => events::list(reading, filter, page).await?.len(),
            Self::Again(filter) => again(reading, filter, page).await?.len(),
            Self::Counted(filter) => replay::count(reading, filter, &span).await?.try_into().unwrap(),
            Self::Errors(filter) => errors::list(reading, filter, page).await?.len(),
            Self::Groups(filter) => errors::groups(reading, filter, page, 24).await?.len(),
            Self::Metrics(filter) => metrics::list(reading, filter, page).await?.len(),
            Self::Series(filter) => {
                let steps = Steps::of(page.from, page.to, TimeDelta::hours(1)).unwrap();
                metrics::series(reading, filter, &steps).await?.len()
            }
            Self::Logs(filter) => logs::list(reading, filter, page).await?.len(),
            Self::Audit(filter) => audit::list(reading, filter, page).await?.len(),
            Self::Executions(filter) => executions::list(reading, filter, page).await?.len(),
            Self::Letters(filter) => dead_letters::list(reading, filter, page).await?.len(),
            Self::Stats(filter) => executions::stats(reading, filter, &span).await?.count.try_into().unwrap(),
            Self::Trends => {
                let days = u32::try_from((page.to - page.from).num_days()).unwrap();
                executions::trends(reading, &ExecutionFilter::default(), days, page.to - TimeDelta::microseconds(1))
                    .await?
                    .len()
            }
            Self::User => executions::stats_of_user(reading, "u1", None, &span).await?.total.try_into().unwrap(),
            Self::Health => executions::health_of_strategy(reading, "s1", None, &span).await?.total.try_into().unwrap(),
        })
    }
}

/// The events of a page, from the oldest on.
async fn again(reading: &mut Reading, filter: &EventFilter, page: &Page) -> store::Result<Vec<StoredEvent>> {
    let mut events = Vec::new();
    let take = |event| {
        events.push(event);
        Ok(ControlFlow::Continue(()))
    };
    replay::each(reading, filter, page, take).await?;
    Ok(events)
}

/// Every question with every filter by itself.
fn every_question() -> Vec<Ask> {
    let metric = MetricFilter { container_id: "c1".to_owned(), ..MetricFilter::default() };
    let mut asks = vec![
        Ask::Events(EventFilter::default()),
        Ask::Errors(ErrorFilter::default()),
        Ask::Logs(LogFilter::default()),
        Ask::Audit(AuditFilter::default()),
        Ask::Executions(ExecutionFilter::default()),
        Ask::Letters(DeadLetterFilter::default()),
        Ask::Letters(DeadLetterFilter { kind: text("events"), ..DeadLetterFilter::default() }),
        Ask::Letters(DeadLetterFilter { reason: text("invalid_json"), ..DeadLetterFilter::default() }),
        Ask::Metrics(metric.clone()),
        Ask::Series(metric),
        Ask::User,
        Ask::Health,
        Ask::Stats(ExecutionFilter { strategy_id: text("s1"), ..ExecutionFilter::default() }),
    ];
    asks.extend(
        [
            EventFilter { organization_id: text("org-1"), ..EventFilter::default() },
            EventFilter { project_id: text("p1"), ..EventFilter::default() },
            EventFilter { run_id: text("r1"), ..EventFilter::default() },
            EventFilter { user_id: text("u1"), ..EventFilter::default() },
            EventFilter { event_type: text("e1"), ..EventFilter::default() },
        ]
        .map(Ask::Events),
    );
    let again = [
        EventFilter::default(),
        EventFilter { organization_id: text("org-1"), ..EventFilter::default() },
        EventFilter { project_id: text("p1"), ..EventFilter::default() },
        EventFilter { run_id: text("r1"), ..EventFilter::default() },
        EventFilter { run_id: text("r1"), project_id: text("p1"), ..EventFilter::default() },
    ];
    asks.extend(again.clone().map(Ask::Again));
    asks.extend(again.map(Ask::Counted));
    let of_errors = [
        ErrorFilter { organization_id: text("org-1"), ..ErrorFilter::default() },
        ErrorFilter { trace_id: text("t4200"), ..ErrorFilter::default() },
        ErrorFilter { project_id: text("p1"), ..ErrorFilter::default() },
        ErrorFilter { run_id: text("r1"), ..ErrorFilter::default() },
        ErrorFilter { error_type: text("E1"), ..ErrorFilter::default() },
        ErrorFilter { severity: text("critical"), ..ErrorFilter::default() },
        ErrorFilter { endpoint: text("/1"), ..ErrorFilter::default() },
    ];
    asks.extend(of_errors.clone().map(Ask::Errors));
    asks.extend(of_errors.into_iter().take(5).map(Ask::Groups));
    asks.extend(
        [
            LogFilter { container_id: text("c1"), ..LogFilter::default() },
            LogFilter { container_id: text("c1"), contains: text("9"), ..LogFilter::default() },
            LogFilter { container_id: text("c1"), stream: text("stdout"), ..LogFilter::default() },
            LogFilter { contains: text("line"), ..LogFilter::default() },
            LogFilter { stream: text("stdout"), ..LogFilter::default() },
        ]
        .map(Ask::Logs),
    );
    let address = |text: &str| Some(Address::from(text.parse::<std::net::IpAddr>().unwrap()));
    asks.extend(
        [
            AuditFilter { organization_id: text("org-1"), ..AuditFilter::default() },
            AuditFilter { actor_id: text("u1"), ..AuditFilter::default() },
            AuditFilter { actor_type: text("user"), ..AuditFilter::default() },
            AuditFilter { action: text("a1"), ..AuditFilter::default() },
            AuditFilter { target_type: text("t1"), ..AuditFilter::default() },
            AuditFilter { target_id: text("i1"), ..AuditFilter::default() },
            AuditFilter { target_type: text("t1"), target_id: text("i1"), ..AuditFilter::default() },
            AuditFilter { status: text("FAILURE"), ..AuditFilter::default() },
            AuditFilter { ip_address: address("10.0.0.1"), ..AuditFilter::default() },
            AuditFilter {
                ip_address: Some(Address { prefix_bits: 8, ..address("10.0.0.0").unwrap() }),
                ..AuditFilter::default()
            },
        ]
        .map(Ask::Audit),
    );
    asks.extend(
        [
            ExecutionFilter { organization_id: text("org-1"), ..ExecutionFilter::default() },
            ExecutionFilter { user_id: text("u1"), ..ExecutionFilter::default() },
            ExecutionFilter { strategy_id: text("s1"), ..ExecutionFilter::default() },
            ExecutionFilter { execution_type: text("TERMINAL"), ..ExecutionFilter::default() },
            ExecutionFilter { success: Some(true), ..ExecutionFilter::default() },
            ExecutionFilter { success: Some(false), ..ExecutionFilter::default() },
        ]
        .map(Ask::Executions),
    );
    asks
}

/// The partitions of a table that lie within a page.
fn partitions_of(ask: &Ask, page: &Page) -> BTreeSet<String> {
    let mut span = span_of(page);
    match (ask, page.after) {
        (_, None) => {}
        (Ask::Again(_), Some((at, _))) => span.from = at.max(span.from),
        (_, Some((at, _))) => span.to = at.min(span.to),
    }
    (-1..DAYS)
        .map(day)
        .filter(|day| *day + TimeDelta::days(1) > span.from && *day <= span.to)
        .map(|day| match ask.table() {
            "watchbook.dead_letters" => Partition::of_dead_letters(day).name(),
            "control_plane.audit_logs" => Partition::of(Kind::Audit, day).unwrap().name(),
            table => {
                let kind = Kind::ALL.iter().find(|kind| kind.spec().table == table).unwrap();
                Partition::of(*kind, day).unwrap().name()
            }
        })
        .collect()
}

/// The partitions that this transaction has read by an index, and from end to end.
async fn partitions_read(reading: &mut Reading) -> (BTreeSet<String>, BTreeSet<String>) {
    let read: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT schemaname || '.' || relname, idx_scan, seq_scan FROM pg_stat_xact_user_tables
          WHERE relname ~ '_[0-9]{8}$' OR relname ~ '^audit_logs_[0-9]{6}$'",
    )
    .fetch_all(reading.connection())
    .await
    .unwrap();
    let those = |is: fn(&(String, i64, i64)) -> bool| {
        read.iter().filter(|table| is(table)).map(|table| table.0.clone()).collect()
    };
    (those(|table| table.1 > 0), those(|table| table.2 > 0))
}

#[tokio::test]
async fn every_question_reads_by_index_and_only_the_days_it_is_about() {
    let world = with_days(-1..DAYS).await;
    sixty_days(&world).await;
    let (from, to) = (day(20), day(18) - TimeDelta::microseconds(1));
    let mut wrong = Vec::new();
    const A_FEW: u32 = 5;
    const CUSTOM: &str = "force_custom_plan";
    const GENERIC: &str = "force_generic_plan";
    for (scope, modes) in [
        (of(&["org-1"]), &[CUSTOM, GENERIC][..]),
        (of(&["org-1", "org-2", "org-3"]), &[CUSTOM]),
        (Scope::All, &[CUSTOM]),
    ] {
        for mode in modes {
            let mut asks: Vec<_> = every_question().into_iter().map(|ask| (ask, page(from, to, 100))).collect();
            // A page in the middle, and the whole time.
            for ask in [
                Ask::Events(EventFilter::default()),
                Ask::Again(EventFilter::default()),
                Ask::Audit(AuditFilter::default()),
                Ask::Letters(DeadLetterFilter::default()),
            ] {
                let after = Some((day(19) + TimeDelta::hours(-1), Uuid::max()));
                asks.push((ask.clone(), Page { after, ..page(from, to, 100) }));
                asks.push((ask, page(day(DAYS), to, A_FEW)));
            }
            let newest = [
                Ask::Errors(ErrorFilter { project_id: text("p1"), ..ErrorFilter::default() }),
                Ask::Executions(ExecutionFilter { strategy_id: text("s1"), ..ExecutionFilter::default() }),
                Ask::Executions(ExecutionFilter::default()),
                Ask::Logs(LogFilter { container_id: text("c1"), ..LogFilter::default() }),
            ];
            asks.extend(newest.map(|ask| (ask, page(day(DAYS), to, A_FEW))));
            let traced = ErrorFilter { trace_id: text("t4200"), ..ErrorFilter::default() };
            for ask in [Ask::Errors(traced), Ask::Health, Ask::User] {
                asks.push((ask, page(day(DAYS), to, 100)));
            }
            if scope != Scope::All {
                // What has to look at all of its time: of an organization by that.
                asks.push((Ask::Trends, page(day(6), day(-1), 7)));
                asks.push((Ask::Groups(ErrorFilter::default()), page(from, to, 100)));
                asks.push((Ask::Stats(ExecutionFilter::default()), page(from, to, 100)));
            }
            for (ask, page) in asks {
                let pool = PgPoolOptions::new().max_connections(1).connect_lazy(world.database_url()).unwrap();
                let mut reading = Reader::new(pool.clone()).begin(&scope).await.unwrap();
                let set = format!("SET LOCAL plan_cache_mode = {mode}");
                sqlx::query(&set).execute(reading.connection()).await.unwrap();
                ask.of(&mut reading, &page).await.unwrap();
                let (by_index, otherwise) = partitions_read(&mut reading).await;
                let allowed = partitions_of(&ask, &page);
                // A page of a few ends with the days that have them. Who plans for given times looks into the indexes too,
                // and is counted as a reader.
                let reads_on = *mode == GENERIC && page.limit == A_FEW && by_index.len() > 5;
                if reads_on || !otherwise.is_empty() || by_index.is_empty() || !by_index.is_subset(&allowed) {
                    let outside: Vec<_> = by_index.difference(&allowed).collect();
                    wrong.push(format!(
                        "{mode} {scope:?} {ask:?} {page:?}: end to end {otherwise:?}, outside {outside:?}, {} by index",
                        by_index.len()
                    ));
                }
                reading.end().await.unwrap();
                pool.close().await;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    finish(world).await;
}

#[tokio::test]
async fn pages_have_every_record_once_from_the_newest_on() {
    let world = with_days(0..3).await;
    // Three records a moment, so that pages end within one.
    world
        .execute(
            "INSERT INTO watchbook.event_logs (event_type, payload, actor_type, id, organization_id, created_at, received_at, attributes)
             SELECT 'e', '{}', 'system', gen_random_uuid(), 'acme', date_trunc('second', now()) - n / 3 * interval '20 min', now(), '{}' FROM generate_series(1, 100) AS n",
        )
        .await;
    let reader = Reader::new(world.database().clone());
    let mut reading = reader.begin(&of(&["acme"])).await.unwrap();
    let all = events::list(&mut reading, &EventFilter::default(), &whole()).await.unwrap();
    assert_eq!(all.len(), 100);
    assert!(all.windows(2).all(|pair| pair[0].key() > pair[1].key()));
    let mut paged = Vec::new();
    let mut page = Page { limit: 7, ..whole() };
    loop {
        let items = events::list(&mut reading, &EventFilter::default(), &page).await.unwrap();
        let Some(last) = items.last() else { break };
        page.after = Some(last.key());
        paged.extend(items);
    }
    let keys = |items: &[EventRow]| items.iter().map(Listed::key).collect::<Vec<_>>();
    assert_eq!(keys(&paged), keys(&all));
    // And the other way round from the oldest on.
    let (mut onward, mut page) = (Vec::new(), Page { limit: 7, ..whole() });
    loop {
        let events = again(&mut reading, &EventFilter::default(), &page).await.unwrap();
        let Some(last) = events.last() else { break };
        page.after = Some(last.key());
        onward.extend(events.iter().map(Listed::key));
    }
    onward.reverse();
    assert_eq!(onward, all.iter().map(Listed::key).collect::<Vec<_>>());
    reading.end().await.unwrap();
    finish(world).await;
}

#[tokio::test]
async fn groups_hold_what_happened_again_and_again() {
    let world = world().start().await;
    let worker = world.workers("errors").await;
    let now = Utc::now().duration_trunc(TimeDelta::seconds(1)).unwrap();
    let error = |minutes: i64, message: &str, user: &str| {
        json!({ "trace_id": "t", "error_type": "TimeoutError", "message": message, "user_id": user,
                "created_at": (now - TimeDelta::minutes(minutes)).to_rfc3339() })
    };
    world
        .publish_all(
            Kind::Errors,
            [
                error(50, "no answer from 10.0.0.1:5432 within 30 s", "u1"),
                error(30, "no answer from 10.0.0.2:5433 within 31 s", "u2"),
                error(5, "no answer from [fe80::1]:5433 within 7 s", "u2"),
                error(20, "no such run", "u9"),
            ],
        )
        .await;
    world.settled(Kind::Errors).await;
    let reader = Reader::new(world.database().clone());
    let mut reading = reader.begin(&Scope::All).await.unwrap();
    let span = page(now - TimeDelta::minutes(60), now, 10);
    let groups = errors::groups(&mut reading, &ErrorFilter::default(), &span, 6).await.unwrap();
    let facts: Vec<_> =
        groups.iter().map(|group| (group.count, group.affected_users, group.sparkline.clone())).collect();
    // Brackets are no part of an address, so the third one is by itself.
    assert_eq!(facts.iter().map(|fact| fact.0).sum::<i64>(), 4, "{groups:?}");
    let pair = groups.iter().find(|group| group.count == 2).unwrap();
    assert_eq!((pair.first_seen, pair.last_seen), (now - TimeDelta::minutes(50), now - TimeDelta::minutes(30)));
    assert_eq!((pair.message.as_str(), pair.affected_users), ("no answer from 10.0.0.2:5433 within 31 s", 2));
    assert_eq!(pair.sparkline, [0, 1, 0, 1, 0, 0]);
    assert!(groups.windows(2).all(|pair| pair[0].last_seen > pair[1].last_seen));
    // The next page goes on behind the last group, and its counts are those of all of the time.
    let next = Page { after: Some(groups[0].key()), ..span };
    assert_eq!(errors::groups(&mut reading, &ErrorFilter::default(), &next, 6).await.unwrap(), groups[1..]);
    reading.end().await.unwrap();
    world.finish([worker]).await;
}
