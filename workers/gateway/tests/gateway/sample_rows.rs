//! A test gateway with rows to query, and helpers that read lists.

use chrono::{TimeDelta, Utc};
use gateway::auth::Role;
use records::Kind;
use serde_json::Value;
use store::partitions::{Partition, Partitions};

use crate::test_gateway::TestGateway;
use crate::tokens::{claims, sign};

/// The number of rows of `acme` in each table.
pub(crate) const ROWS: usize = 6;

/// Returns a viewer's token for these organizations.
pub(crate) fn viewer(organizations: &[&str]) -> String {
    sign(&claims(Role::Viewer.name(), organizations))
}

/// Starts a gateway with the same rows for three owners, each row with the name of its owner: `acme` has [`ROWS`] rows
/// of each kind, `globex` 4, and no organization 3. Some have the same time. They are inserted without the writers.
pub(crate) async fn gateway_with_rows() -> TestGateway {
    let gateway = TestGateway::start().await;
    make_days(&gateway).await;
    for (organization, rows) in [(Some("acme"), ROWS), (Some("globex"), 4), (None, 3)] {
        fill(&gateway, organization, rows).await;
    }
    gateway
}

/// Creates the partitions for rows that are inserted without the writers.
pub(crate) async fn make_days(gateway: &TestGateway) {
    gateway.world.rows_were_dropped();
    let mut connection = gateway.world.database().acquire().await.unwrap();
    let partitions = Partitions::default();
    for days in 0..2 {
        let day = Utc::now() - TimeDelta::days(days);
        for partition in Kind::ALL.iter().filter_map(|&kind| Partition::of(kind, day)) {
            partitions.ensure(&mut connection, partition).await.unwrap();
        }
    }
    partitions.ensure(&mut connection, Partition::of_dead_letters(Utc::now())).await.unwrap();
}

/// Inserts this many rows into each table, for an organization or for none.
pub(crate) async fn fill(gateway: &TestGateway, organization: Option<&str>, rows: usize) {
    let mark = organization.unwrap_or("nobody");
    let organization = organization.map_or("NULL".to_owned(), |organization| format!("'{organization}'"));
    let kinds = [
        (
            "event_logs",
            "event_type, payload, project_id, run_id, user_id, actor_type, actor_id",
            "'type ' || n % 2, '{\"key\":1}', 'p', 'r', 'u', 'user', NULL",
        ),
        (
            "error_logs",
            "trace_id, error_type, message, fingerprint, project_id, run_id, endpoint, severity",
            "'trace/1', 'type ' || n % 2, 'MARK', gen_random_uuid(), 'p', 'r', '/run', CASE WHEN n = 1 THEN 'critical' ELSE 'error' END",
        ),
        ("container_metrics", "container_id, cpu_usage_percent, memory_usage_bytes", "'c', n, NULL"),
        (
            "container_logs",
            "container_id, stream, message",
            "'c', CASE WHEN n = 1 THEN 'stderr' ELSE 'stdout' END, 'line ' || n || ' of MARK'",
        ),
        (
            "sandbox_execution_logs",
            "user_id, strategy_id, execution_type, success, execution_time_ms, memory_used_mb, timed_out, error_count, warning_count",
            "'u', 's+1', CASE WHEN n = 1 THEN 'TERMINAL' ELSE 'VALIDATION' END, n % 2 = 0, n, NULL, false, n, 0",
        ),
    ];
    for (table, columns, values) in kinds {
        let values = values.replace("MARK", mark);
        let statement = format!(
            "INSERT INTO watchbook.{table} ({columns}, id, organization_id, created_at, received_at, source, attributes)
             SELECT {values}, gen_random_uuid(), {organization}, date_trunc('minute', now()) - n / 2 * interval '1 minute', now(), '{mark}', '{{}}'
               FROM generate_series(1, {rows}) AS n"
        );
        gateway.world.execute(&statement).await;
    }
    let names = format!(
        "INSERT INTO watchbook.entities (entity, entity_id, name, email, deleted, id, organization_id, created_at, received_at, attributes)
         SELECT entity, entity_id, entity || ' of {mark}', '{mark}@example.org', false, gen_random_uuid(), {organization}, now(), now(), '{{}}'
           FROM (VALUES ('user', 'u'), ('strategy', 's+1')) AS known (entity, entity_id)"
    );
    // Directory entries without an organization belong to the platform, and everybody may read them.
    if organization != "NULL" {
        gateway.world.execute(&names).await;
    }
}

impl TestGateway {
    /// Returns the body of a response with status 200.
    pub(crate) async fn answer(&self, path: &str, token: &str) -> Value {
        let answer = self.get(path, token).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// Returns the items of a list that fits on one page.
    pub(crate) async fn items(&self, path: &str, token: &str) -> Vec<Value> {
        let list = self.answer(path, token).await;
        assert_eq!(list["next_cursor"], Value::Null, "{path}");
        list["items"].as_array().unwrap().clone()
    }

    /// Returns the fields named in a 400 response.
    pub(crate) async fn faults(&self, path: &str, token: &str) -> Vec<String> {
        let problem = self.get(path, token).await.problem(400);
        let faults = problem["errors"].as_array().unwrap_or_else(|| panic!("{path}: {problem}"));
        faults.iter().map(|fault| fault["field"].as_str().unwrap().to_owned()).collect()
    }
}
