//! Days of records that are too old to be published, and checks of what is left of them.

use std::collections::BTreeMap;
use std::future::{pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::retention::Settings;
use ::retention::plan::{self, Plan};
use ::retention::run::{self, Observer, Report, Request, Step};
use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, Utc};
use futures::future::BoxFuture;
use harness::{World, eventually};
use runtime::config::Retention;
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use store::partitions::{Partition, Partitions, State};
use store::retention::Cause;
use store::{Database, Dataset, partition_removal};
use tokio::sync::Notify;

use crate::world;

/// A text that is hard to quote and to escape.
const ODD: &str = r#"E'\u00fc "quoted" \\ \t\n' || chr(1) || chr(2)"#;

/// Returns a world without streams.
pub(super) async fn bare_world() -> World {
    let world = world().without_setup().start().await;
    world.rows_were_dropped();
    world
}

/// Returns a world with streams and these settings.
pub(super) async fn world_with(settings: &[(&str, &str)]) -> World {
    let world = settings.iter().fold(world(), |world, (name, value)| world.with(name, value)).start().await;
    world.rows_were_dropped();
    world
}

/// Returns the day `ago` days ago.
pub(super) fn day(ago: u64) -> NaiveDate {
    Utc::now().date_naive() - Days::new(ago)
}

/// Returns the first day of the month of the day `ago` days ago.
pub(super) fn month(ago: u64) -> NaiveDate {
    day(ago).with_day(1).unwrap()
}

pub(super) fn midnight(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

pub(super) fn dataset(name: &str) -> Dataset {
    Dataset::named(name).unwrap()
}

pub(super) async fn connect(world: &World) -> PgConnection {
    PgConnection::connect(world.database_url()).await.unwrap()
}

/// Creates the partition of a day.
pub(super) async fn make_day(world: &World, of: &str, day: NaiveDate) -> Partition {
    let partition = Partition::starting(dataset(of), day);
    let mut connection = connect(world).await;
    Partitions::default().ensure(&mut connection, partition).await.unwrap();
    connection.close().await.unwrap();
    partition
}

/// Fills a day with `rows` rows: evenly over the day, alternately of `globex`, no organization and `acme`, of four
/// users and two strategies. The rows are always the same.
pub(super) async fn fill(world: &World, of: &str, day: NaiveDate, rows: u32) {
    let partition = make_day(world, of, day).await;
    let (columns, values) = columns(of);
    let (table, start) = (partition.table(), partition.starts_at());
    let statement = format!(
        "INSERT INTO {table} (id, {columns})
         SELECT md5('{table} {day} ' || n)::uuid, {values}
           FROM generate_series(0, {rows} - 1) AS n,
                LATERAL (SELECT '{start}'::timestamptz + n * (interval '1 day' / {rows}) AS happened_at) AS times,
                LATERAL (SELECT (ARRAY['globex', NULL, 'acme'])[n % 3 + 1] AS organization) AS organizations"
    );
    assert_eq!(world.execute(&statement).await, u64::from(rows));
}

fn columns(of: &str) -> (String, String) {
    let (columns, values) = match of {
        "events" => (
            "event_type, payload, user_id, actor_type, actor_id",
            format!(
                "'build.finished', jsonb_build_object('user_id', 'u-' || n % 4, 'name', 'Ann', 'text', {ODD}, 'n', n / 3.0),
                 'u-' || n % 4, 'user', 'u-' || n % 4"
            ),
        ),
        "errors" => (
            "trace_id, error_type, message, detail, severity",
            format!(
                "'t-' || n, 'TestError', {ODD}, CASE WHEN n % 8 < 4 THEN jsonb_build_object('user_id', 'u-' || n % 4, 'email', 'ann@example.com') END, 'error'"
            ),
        ),
        "metrics" => (
            "container_id, cpu_usage_percent, memory_usage_bytes, network_tx_bytes",
            "'c-' || n % 2, CASE WHEN n % 5 > 0 THEN n::float8 / 7 END, n * 1000, 9223372036854775807 - n".to_owned(),
        ),
        "logs" => ("container_id, stream, message", format!("'c-' || n % 2, 'stdout', {ODD} || n")),
        "audit" => (
            "actor_id, actor_type, action, target_type, target_id, status, reason, metadata, ip_address",
            format!(
                "'u-' || n % 4, 'user', 'test.run', 'run', 'r-' || n, 'SUCCESS', {ODD}, jsonb_build_object('n', 1e30::numeric + n),
                 (ARRAY['10.1.2.3/8', 'fe80::1', NULL]::inet[])[n % 3 + 1]"
            ),
        ),
        "executions" => (
            "user_id, strategy_id, execution_type, success, execution_time_ms, cpu_usage_percent, timed_out, error_count,
             warning_count, classes_found, metadata",
            format!(
                "'u-' || n % 4, 's-' || n % 2, 'VALIDATION', n % 3 > 0, n, n::float8 / 3, false, 0, n,
                 CASE n % 3 WHEN 0 THEN ARRAY['A', 'b \"c\",{{d}}', {ODD}] WHEN 1 THEN '{{}}'::text[] END,
                 CASE WHEN n % 2 = 0 THEN '{{\"deep\": [1, null, {{}}]}}'::jsonb END"
            ),
        ),
        "dead_letters" => {
            return (
                "kind, subject, stream, stream_seq, reason, field, detail, payload, headers, received_at, failed_at".to_owned(),
                format!(
                    "'events', 't.events.' || coalesce(organization, '_') || '.x', 'T_EVENTS', n, 'missing_field', 'event_type', {ODD},
                     decode(md5(n::text), 'hex') || '\\x00ff5c'::bytea, CASE WHEN n % 2 = 0 THEN '{{\"a\": [\"b\"]}}'::jsonb END,
                     happened_at, happened_at"
                ),
            );
        }
        other => panic!("nobody fills {other}"),
    };
    (
        format!("{columns}, organization_id, created_at, received_at, source, attributes"),
        format!(
            "{values}, organization, happened_at, happened_at + interval '3 seconds', 'by hand', jsonb_build_object('n', n)"
        ),
    )
}

/// The number of rows, and a checksum over their content.
pub(super) type Content = (i64, String);

/// Returns the content of a day, as its table shows it.
pub(super) async fn content(world: &World, of: &str, day: NaiveDate) -> Content {
    content_where(world, of, day, "true").await
}

/// Returns the content of a day's rows for which a condition holds.
pub(super) async fn content_where(world: &World, of: &str, day: NaiveDate, condition: &str) -> Content {
    let partition = Partition::starting(dataset(of), day);
    let (time, from, until) = (dataset(of).time_column(), partition.starts_at(), partition.ends_at());
    sum(world, partition.table(), &format!("{time} >= '{from}' AND {time} < '{until}' AND ({condition})")).await
}

async fn sum(world: &World, table: &str, condition: &str) -> Content {
    let sql = format!(
        "SELECT count(*), md5(coalesce(string_agg(record::text, E'\\n' ORDER BY record::text), '')) FROM {table} AS record WHERE {condition}"
    );
    world.query_one(&sql).await
}

pub(super) async fn rows(world: &World, of: &str, day: NaiveDate) -> i64 {
    content(world, of, day).await.0
}

/// Returns the state of the partition of a day; `None` if there is none.
pub(super) async fn state(world: &World, of: &str, day: NaiveDate) -> Option<State> {
    let mut connection = connect(world).await;
    let found = partition_removal::list(&mut connection, dataset(of)).await.unwrap();
    connection.close().await.unwrap();
    found.into_iter().find(|found| found.first_day() == day).map(|found| found.state)
}

/// Returns everything that retention may change: the content of the tables, their partitions, and the tables beside
/// them.
pub(super) async fn everything(world: &World) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for dataset in Dataset::all() {
        let (rows, sum) = sum(world, dataset.table(), "true").await;
        all.insert(dataset.name().to_owned(), format!("{rows} rows, {sum}"));
    }
    let (tables,): (String,) = world
        .query_one(
            "SELECT string_agg(format('%s %s', class.oid::regclass, inherits.inhdetachpending), ', ' ORDER BY class.relname)
               FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
               LEFT JOIN pg_inherits AS inherits ON inherits.inhrelid = class.oid
              WHERE nspname IN ('watchbook', 'control_plane') AND relkind = 'r'",
        )
        .await;
    all.insert("tables".to_owned(), tables);
    all
}

// Plans and reports of the commands.

/// Returns kind, day, rows and action of each item.
pub(super) fn outline(items: &Value) -> Vec<(String, String, u64, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one =
        |item: &Value| (text(&item["kind"]), text(&item["day"]), item["rows"].as_u64().unwrap(), text(&item["action"]));
    items.as_array().unwrap().iter().map(one).collect()
}

pub(super) fn item<'i>(items: &'i Value, kind: &str, day: NaiveDate) -> &'i Value {
    let is_it = |item: &&Value| item["kind"] == kind && item["day"] == day.to_string();
    items.as_array().unwrap().iter().find(is_it).unwrap_or_else(|| panic!("no {kind} of {day} in {items}"))
}

pub(super) async fn plan_of(world: &World) -> Value {
    world.run(&["retention", "plan", "--json"]).await.succeeded().json()
}

pub(super) async fn run_of(world: &World) -> Value {
    let report = world.run(&["retention", "run", "--json", "--by", "ann"]).await.succeeded().json();
    assert_eq!(report["done"], true, "{report}");
    report
}

/// Adds a hold, and returns its id.
pub(super) async fn hold(world: &World, of: &[&str]) -> String {
    let arguments = [&["retention", "hold", "--reason", "case 17", "--by", "ann"], of].concat();
    world.run(&arguments).await.succeeded().output.trim().to_owned()
}

pub(super) async fn release(world: &World, hold: &str) {
    world.run(&["retention", "release", hold, "--by", "ann"]).await.succeeded();
}

/// Waits until `count` audit events of an action are stored. Returns their actor, target and status.
pub(super) async fn audited(world: &World, action: &str, count: usize) -> Vec<(String, String, String)> {
    let sql = format!(
        "SELECT actor_id, target_id, status FROM control_plane.audit_logs WHERE action = '{action}' ORDER BY created_at"
    );
    eventually(&format!("{count} audit records of {action}"), async || {
        let found = world.query_all(&sql).await;
        if found.len() == count { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await
}

// Runs in this process, which can be ended at any step.

pub(super) fn settings(change: impl FnOnce(&mut Retention)) -> Settings {
    let mut retention = Retention::default();
    change(&mut retention);
    Settings { retention, partition_days_ahead: 3 }
}

pub(super) fn database(world: &World) -> Database {
    Database::new(world.database_url(), "tests").unwrap()
}

pub(super) async fn make_plan(world: &World, settings: &Settings, now: DateTime<Utc>) -> Plan {
    let mut connection = partition_removal::session(&database(world)).await.unwrap();
    let plan = plan::make(&mut connection, settings, now, &mut |_| {}).await.unwrap();
    connection.close().await.unwrap();
    plan
}

/// Starts a run that ends at the step for which `is_last` returns true. For Postgres, that looks like a killed process.
/// Returns `None` if it ended there, else the report of the completed run.
pub(super) async fn run_until(
    world: &World,
    settings: &Settings,
    now: DateTime<Utc>,
    is_last: impl Fn(Step) -> bool + Send + Sync,
) -> Option<Report> {
    let plan = make_plan(world, settings, now).await;
    let reached = Arc::new(Notify::new());
    let observer = |step: Step, _: &plan::Item| -> BoxFuture<'static, ()> {
        if !is_last(step) {
            return Box::pin(ready(()));
        }
        let reached = reached.clone();
        Box::pin(async move {
            reached.notify_one();
            pending().await
        })
    };
    let request = request();
    let database = database(world);
    let run = Box::pin(run::execute(&database, settings, &plan, &request, now, &observer));
    tokio::select! {
        report = run => Some(report.unwrap().unwrap()),
        () = reached.notified() => None,
    }
}

/// The scheduled time counts as handled, so a worker only starts because this run was interrupted.
fn request() -> Request {
    Request {
        cause: Cause::Schedule,
        scheduled_for: Some(Utc::now()),
        actor_id: "system".to_owned(),
        process: "tests".to_owned(),
    }
}

/// Executes a plan completely, with an observer.
pub(super) async fn execute(world: &World, settings: &Settings, plan: &Plan, observer: Observer<'_>) -> Report {
    let (database, request) = (database(world), request());
    let run = Box::pin(run::execute(&database, settings, plan, &request, Utc::now(), observer));
    run.await.unwrap().unwrap()
}

/// Starts a run that is killed at its `n`th step.
pub(super) async fn run_until_nth(world: &World, settings: &Settings, now: DateTime<Utc>, n: usize) -> Option<Report> {
    let heard = AtomicUsize::new(0);
    run_until(world, settings, now, |_| heard.fetch_add(1, Ordering::Relaxed) + 1 == n).await
}

/// Executes a run, all of whose items must succeed.
pub(super) async fn run_whole(world: &World, settings: &Settings, now: DateTime<Utc>) -> Report {
    let report = run_until(world, settings, now, |_| false).await.unwrap();
    assert!(report.done, "{report:?}");
    report
}
