//! Errors, and groups of errors with the same fingerprint.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::select::Select;
use super::{Key, Listed, MAX_UNINDEXED_RANGE, Page, Span, StoredJson, listed_by, printable};
use crate::scoped_read::{ReadTransaction, Scope};

/// The longest range for grouping errors: each error in it is read, 600,000 in 1.5 s.
pub const MAX_GROUPED_RANGE: TimeDelta = TimeDelta::days(7);
/// The maximum number of counts in a sparkline: no line in a list is wider.
pub const MAX_SPARKS: u32 = 200;

/// A filter for errors. `None` matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorFilter {
    /// The organization to match.
    pub organization_id: Option<String>,
    /// The trace to match.
    pub trace_id: Option<String>,
    /// The project to match.
    pub project_id: Option<String>,
    /// The run to match.
    pub run_id: Option<String>,
    /// The class to match.
    pub error_type: Option<String>,
    /// The severity to match: `warning`, `error` or `critical`.
    pub severity: Option<String>,
    /// The endpoint to match.
    pub endpoint: Option<String>,
}

impl ErrorFilter {
    /// Returns the longest range to query; `None` if an index leads to the records, or if all are requested.
    pub fn longest(&self, scope: &Scope) -> Option<TimeDelta> {
        let is_led =
            [&self.trace_id, &self.project_id, &self.run_id, &self.error_type].into_iter().any(Option::is_some);
        let is_narrowed = self.severity.is_some() || self.endpoint.is_some();
        let is_of_one = self.organization_id.is_some() || *scope != Scope::All;
        (is_narrowed && !is_led && !is_of_one).then_some(MAX_UNINDEXED_RANGE)
    }

    fn add_to<'q>(&'q self, select: &mut Select<'q>, transaction: &ReadTransaction) {
        select
            .organization("organization_id", transaction, self.organization_id.as_deref())
            .and_optional("trace_id = ", self.trace_id.as_deref())
            .and_optional("project_id = ", self.project_id.as_deref())
            .and_optional("run_id = ", self.run_id.as_deref())
            .and_optional("error_type = ", self.error_type.as_deref())
            .and_optional("severity = ", self.severity.as_deref())
            .and_optional("endpoint = ", self.endpoint.as_deref());
    }
}

/// An error.
#[derive(Debug, Clone, FromRow, Serialize, ToSchema)]
pub struct ErrorRow {
    /// Its id.
    pub id: Uuid,
    /// The organization that owns it; null if it belongs to the platform.
    pub organization_id: Option<String>,
    /// When it happened.
    pub created_at: DateTime<Utc>,
    /// When JetStream stored it.
    pub received_at: DateTime<Utc>,
    /// The service that published it.
    pub source: Option<String>,
    /// The trace it belongs to.
    pub trace_id: String,
    /// Its class.
    pub error_type: String,
    /// The error message.
    pub message: String,
    /// The stack trace.
    pub stack: Option<String>,
    /// Additional data of the error.
    #[schema(value_type = Option<Object>)]
    pub detail: Option<StoredJson>,
    /// The project.
    pub project_id: Option<String>,
    /// The run.
    pub run_id: Option<String>,
    /// The endpoint that was called.
    pub endpoint: Option<String>,
    /// `warning`, `error` or `critical`.
    pub severity: String,
    /// The fingerprint that errors of a group share; null for errors stored before groups existed.
    pub fingerprint: Option<Uuid>,
    /// Fields that the contract does not define.
    #[schema(value_type = Object)]
    pub attributes: StoredJson,
}
listed_by!(created_at: ErrorRow);

/// `GET /api/errors`, and `GET /api/errors/{trace_id}` with the trace as a filter.
///
/// # Errors
/// If the query fails or times out.
pub async fn list(
    transaction: &mut ReadTransaction,
    filter: &ErrorFilter,
    page: &Page,
) -> crate::Result<Vec<ErrorRow>> {
    let mut select = Select::of(&format!(
        "SELECT id, organization_id, created_at, received_at, source, trace_id, error_type, message, stack, {},
                project_id, run_id, endpoint, severity, fingerprint, {}
           FROM watchbook.error_logs",
        printable("detail"),
        printable("attributes")
    ));
    filter.add_to(&mut select, transaction);
    select.on("created_at", page).newest("created_at", page.limit).all(transaction).await
}

/// A group of errors with the same fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize, ToSchema)]
pub struct ErrorGroup {
    /// The fingerprint that they share.
    pub fingerprint: Uuid,
    /// Their class.
    pub error_type: String,
    /// The message of the newest error.
    pub message: String,
    /// When the first error in the range happened.
    pub first_seen: DateTime<Utc>,
    /// When the last error in the range happened.
    pub last_seen: DateTime<Utc>,
    /// The number of errors.
    pub count: i64,
    /// The number of distinct values of `user_id`.
    pub affected_users: i64,
    /// The number of errors in each step of the range, in chronological order.
    pub sparkline: Vec<i64>,
}

impl Listed for ErrorGroup {
    fn key(&self) -> Key {
        (self.last_seen, self.fingerprint)
    }
}

// The inner queries are materialized because each is read more than once, and users and sparks are counted only for the
// groups of the page: together this takes a quarter of the time.
/// Serves `GET /api/errors/groups`: groups all errors in the page's range, whatever the cursor, and returns the groups
/// last seen first. The sparkline has `sparks` counts, at most [`MAX_SPARKS`].
///
/// # Errors
/// If the query fails or times out.
pub async fn groups(
    transaction: &mut ReadTransaction,
    filter: &ErrorFilter,
    page: &Page,
    sparks: u32,
) -> crate::Result<Vec<ErrorGroup>> {
    let sparks = i32::try_from(sparks.clamp(1, MAX_SPARKS)).unwrap_or(1);
    let span = Span { from: page.from, to: page.to };
    // The length of a step in seconds. An empty range is one step.
    let step = (span.to - span.from).as_seconds_f64().max(1e-6) / f64::from(sparks);
    let mut select = Select::of("");
    select
        .begin("WITH matching AS MATERIALIZED (SELECT fingerprint, created_at, least(floor(extract(epoch FROM created_at - ")
        .bind(span.from)
        .push(") / ")
        .bind(step)
        .push("::float8)::integer + 1, ")
        .bind(sparks)
        .push(
            // Compared as stored, because its text might be long; null is no user.
            ") AS spark, coalesce(nullif(attributes->'user_id', 'null'), nullif(attributes->'userId', 'null')) AS user_id
              FROM watchbook.error_logs",
        );
    filter.add_to(&mut select, transaction);
    select
        .within("created_at", &span)
        .and("fingerprint IS NOT NULL")
        .begin(
            "), grouped AS (
                 SELECT fingerprint, min(created_at) AS first_seen, max(created_at) AS last_seen, count(*) AS count
                   FROM matching GROUP BY fingerprint
             ), page AS MATERIALIZED (SELECT * FROM grouped",
        )
        .behind("(last_seen, fingerprint)", page.after)
        .push(&format!(" ORDER BY last_seen DESC, fingerprint DESC LIMIT {}", page.limit))
        .push(
            "), sparks AS MATERIALIZED (
                 SELECT fingerprint, spark, count(*) AS count FROM matching JOIN page USING (fingerprint) GROUP BY 1, 2
             ), users AS MATERIALIZED (
                 SELECT fingerprint, count(user_id) AS affected_users
                   FROM (SELECT DISTINCT fingerprint, user_id FROM matching JOIN page USING (fingerprint)) AS named GROUP BY 1
             )
             SELECT page.*, affected_users, newest.error_type, newest.message,
                    ARRAY(SELECT coalesce(sparks.count, 0) FROM generate_series(1, ",
        )
        .bind(sparks)
        .push(
            ") AS number LEFT JOIN sparks ON sparks.spark = number AND sparks.fingerprint = page.fingerprint
                           ORDER BY number) AS sparkline
               FROM page JOIN users USING (fingerprint), LATERAL (",
        )
        .begin("SELECT error_type, message FROM watchbook.error_logs");
    filter.add_to(&mut select, transaction);
    select
        .within("created_at", &span)
        .and("created_at = page.last_seen")
        .and("fingerprint = page.fingerprint")
        .push(" ORDER BY id DESC LIMIT 1) AS newest ORDER BY last_seen DESC, fingerprint DESC")
        .all(transaction)
        .await
}
