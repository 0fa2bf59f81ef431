//! How queries are planned.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use harness::World;
use records::Kind;
use records::audit::Address;
use sqlx::postgres::PgPoolOptions;
use store::Steps;
use store::partitions::Partition;
use store::queries::audit::{self, AuditFilter};
use store::queries::dead_letters::{self, DeadLetterFilter};
use store::queries::errors::{self, ErrorFilter};
use store::queries::events::{self, EventFilter};
use store::queries::executions::{self, ExecutionFilter};
use store::queries::logs::{self, LogFilter};
use store::queries::metrics::{self, MetricFilter};
use store::queries::{Page, replay};
use store::scoped_read::{ReadTransaction, Reader, Scope};
use uuid::Uuid;

use super::pages::again;
use super::{day, finish, of, page, span_of, text, with_days};

/// Number of days with records.
const DAYS: i64 = 60;
/// Records per day and kind: enough pages that no plan prefers a sequential scan of a day.
const A_DAY: i64 = 300;

/// Inserts records of forty organizations, evenly over all days. Rows with the same value of a filter are about sixty
/// rows apart.
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
enum PlannedQuery {
    Events(EventFilter),
    ReplayEvents(EventFilter),
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

impl PlannedQuery {
    /// Returns the table that the query reads.
    fn table(&self) -> &'static str {
        match self {
            Self::Events(_) | Self::ReplayEvents(_) | Self::Counted(_) => "watchbook.event_logs",
            Self::Errors(_) | Self::Groups(_) => "watchbook.error_logs",
            Self::Metrics(_) | Self::Series(_) => "watchbook.container_metrics",
            Self::Logs(_) => "watchbook.container_logs",
            Self::Audit(_) => "control_plane.audit_logs",
            Self::Letters(_) => "watchbook.dead_letters",
            _ => "watchbook.sandbox_execution_logs",
        }
    }

    /// Runs the query and returns the number of results.
    async fn of(&self, transaction: &mut ReadTransaction, page: &Page) -> store::Result<usize> {
        let span = span_of(page);
        Ok(match self {
            Self::Events(filter) => events::list(transaction, filter, page).await?.len(),
            Self::ReplayEvents(filter) => again(transaction, filter, page).await?.len(),
            Self::Counted(filter) => replay::count(transaction, filter, &span).await?.try_into().unwrap(),
            Self::Errors(filter) => errors::list(transaction, filter, page).await?.len(),
            Self::Groups(filter) => errors::groups(transaction, filter, page, 24).await?.len(),
            Self::Metrics(filter) => metrics::list(transaction, filter, page).await?.len(),
            Self::Series(filter) => {
                let steps = Steps::of(page.from, page.to, TimeDelta::hours(1)).unwrap();
                metrics::series(transaction, filter, &steps).await?.len()
            }
            Self::Logs(filter) => logs::list(transaction, filter, page).await?.len(),
            Self::Audit(filter) => audit::list(transaction, filter, page).await?.len(),
            Self::Executions(filter) => executions::list(transaction, filter, page).await?.len(),
            Self::Letters(filter) => dead_letters::list(transaction, filter, page).await?.len(),
            Self::Stats(filter) => executions::stats(transaction, filter, &span).await?.count.try_into().unwrap(),
            Self::Trends => {
                let days = u32::try_from((page.to - page.from).num_days()).unwrap();
                executions::trends(transaction, &ExecutionFilter::default(), days, page.to - TimeDelta::microseconds(1))
                    .await?
                    .len()
            }
            Self::User => executions::stats_of_user(transaction, "u1", None, &span).await?.total.try_into().unwrap(),
            Self::Health => {
                executions::health_of_strategy(transaction, "s1", None, &span).await?.total.try_into().unwrap()
            }
        })
    }
}

/// Returns every query, with every filter on its own.
fn every_question() -> Vec<PlannedQuery> {
    let metric = MetricFilter { container_id: "c1".to_owned(), ..MetricFilter::default() };
    let mut asks = vec![
        PlannedQuery::Events(EventFilter::default()),
        PlannedQuery::Errors(ErrorFilter::default()),
        PlannedQuery::Logs(LogFilter::default()),
        PlannedQuery::Audit(AuditFilter::default()),
        PlannedQuery::Executions(ExecutionFilter::default()),
        PlannedQuery::Letters(DeadLetterFilter::default()),
        PlannedQuery::Letters(DeadLetterFilter { kind: text("events"), ..DeadLetterFilter::default() }),
        PlannedQuery::Letters(DeadLetterFilter { reason: text("invalid_json"), ..DeadLetterFilter::default() }),
        PlannedQuery::Metrics(metric.clone()),
        PlannedQuery::Series(metric),
        PlannedQuery::User,
        PlannedQuery::Health,
        PlannedQuery::Stats(ExecutionFilter { strategy_id: text("s1"), ..ExecutionFilter::default() }),
    ];
    asks.extend(
        [
            EventFilter { organization_id: text("org-1"), ..EventFilter::default() },
            EventFilter { project_id: text("p1"), ..EventFilter::default() },
            EventFilter { run_id: text("r1"), ..EventFilter::default() },
            EventFilter { user_id: text("u1"), ..EventFilter::default() },
            EventFilter { event_type: text("e1"), ..EventFilter::default() },
        ]
        .map(PlannedQuery::Events),
    );
    let again = [
        EventFilter::default(),
        EventFilter { organization_id: text("org-1"), ..EventFilter::default() },
        EventFilter { project_id: text("p1"), ..EventFilter::default() },
        EventFilter { run_id: text("r1"), ..EventFilter::default() },
        EventFilter { run_id: text("r1"), project_id: text("p1"), ..EventFilter::default() },
    ];
    asks.extend(again.clone().map(PlannedQuery::ReplayEvents));
    asks.extend(again.map(PlannedQuery::Counted));
    let of_errors = [
        ErrorFilter { organization_id: text("org-1"), ..ErrorFilter::default() },
        ErrorFilter { trace_id: text("t4200"), ..ErrorFilter::default() },
        ErrorFilter { project_id: text("p1"), ..ErrorFilter::default() },
        ErrorFilter { run_id: text("r1"), ..ErrorFilter::default() },
        ErrorFilter { error_type: text("E1"), ..ErrorFilter::default() },
        ErrorFilter { severity: text("critical"), ..ErrorFilter::default() },
        ErrorFilter { endpoint: text("/1"), ..ErrorFilter::default() },
    ];
    asks.extend(of_errors.clone().map(PlannedQuery::Errors));
    asks.extend(of_errors.into_iter().take(5).map(PlannedQuery::Groups));
    asks.extend(
        [
            LogFilter { container_id: text("c1"), ..LogFilter::default() },
            LogFilter { container_id: text("c1"), contains: text("9"), ..LogFilter::default() },
            LogFilter { container_id: text("c1"), stream: text("stdout"), ..LogFilter::default() },
            LogFilter { contains: text("line"), ..LogFilter::default() },
            LogFilter { stream: text("stdout"), ..LogFilter::default() },
        ]
        .map(PlannedQuery::Logs),
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
        .map(PlannedQuery::Audit),
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
        .map(PlannedQuery::Executions),
    );
    asks
}

/// Returns the partitions of a table within the time of a page.
fn partitions_of(ask: &PlannedQuery, page: &Page) -> BTreeSet<String> {
    let mut span = span_of(page);
    match (ask, page.after) {
        (_, None) => {}
        (PlannedQuery::ReplayEvents(_), Some((at, _))) => span.from = at.max(span.from),
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

/// Returns the partitions that this transaction has read: by an index, and sequentially.
async fn partitions_read(transaction: &mut ReadTransaction) -> (BTreeSet<String>, BTreeSet<String>) {
    let read: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT schemaname || '.' || relname, idx_scan, seq_scan FROM pg_stat_xact_user_tables
          WHERE relname ~ '_[0-9]{8}$' OR relname ~ '^audit_logs_[0-9]{6}$'",
    )
    .fetch_all(transaction.connection())
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
                PlannedQuery::Events(EventFilter::default()),
                PlannedQuery::ReplayEvents(EventFilter::default()),
                PlannedQuery::Audit(AuditFilter::default()),
                PlannedQuery::Letters(DeadLetterFilter::default()),
            ] {
                let after = Some((day(19) + TimeDelta::hours(-1), Uuid::max()));
                asks.push((ask.clone(), Page { after, ..page(from, to, 100) }));
                asks.push((ask, page(day(DAYS), to, A_FEW)));
            }
            let newest = [
                PlannedQuery::Errors(ErrorFilter { project_id: text("p1"), ..ErrorFilter::default() }),
                PlannedQuery::Executions(ExecutionFilter { strategy_id: text("s1"), ..ExecutionFilter::default() }),
                PlannedQuery::Executions(ExecutionFilter::default()),
                PlannedQuery::Logs(LogFilter { container_id: text("c1"), ..LogFilter::default() }),
            ];
            asks.extend(newest.map(|ask| (ask, page(day(DAYS), to, A_FEW))));
            let traced = ErrorFilter { trace_id: text("t4200"), ..ErrorFilter::default() };
            for ask in [PlannedQuery::Errors(traced), PlannedQuery::Health, PlannedQuery::User] {
                asks.push((ask, page(day(DAYS), to, 100)));
            }
            if scope != Scope::All {
                // Queries that have to read all of their time: for an organization, by its index.
                asks.push((PlannedQuery::Trends, page(day(6), day(-1), 7)));
                asks.push((PlannedQuery::Groups(ErrorFilter::default()), page(from, to, 100)));
                asks.push((PlannedQuery::Stats(ExecutionFilter::default()), page(from, to, 100)));
            }
            for (ask, page) in asks {
                let pool = PgPoolOptions::new().max_connections(1).connect_lazy(world.database_url()).unwrap();
                let mut transaction = Reader::new(pool.clone()).begin(&scope).await.unwrap();
                let set = format!("SET LOCAL plan_cache_mode = {mode}");
                sqlx::query(&set).execute(transaction.connection()).await.unwrap();
                ask.of(&mut transaction, &page).await.unwrap();
                let (by_index, otherwise) = partitions_read(&mut transaction).await;
                let allowed = partitions_of(&ask, &page);
                // A short page ends with the first days that fill it. A planner with known times also reads the
                // indexes, which counts as reading.
                let reads_on = *mode == GENERIC && page.limit == A_FEW && by_index.len() > 5;
                if reads_on || !otherwise.is_empty() || by_index.is_empty() || !by_index.is_subset(&allowed) {
                    let outside: Vec<_> = by_index.difference(&allowed).collect();
                    wrong.push(format!(
                        "{mode} {scope:?} {ask:?} {page:?}: end to end {otherwise:?}, outside {outside:?}, {} by index",
                        by_index.len()
                    ));
                }
                transaction.end().await.unwrap();
                pool.close().await;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    finish(world).await;
}
