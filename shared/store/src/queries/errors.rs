//! Errors, one by one and in groups of the same one.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::select::Select;
use super::{Key, Listed, MAX_UNINDEXED_RANGE, Page, Span, StoredJson, listed_by, printable};
use crate::scoped_read::{ReadTransaction, Scope};

/// How long a time errors may be grouped for: each error of it is looked at, 600,000 in a second and a half.
pub const MAX_GROUPED_RANGE: TimeDelta = TimeDelta::days(7);
/// Counts that a sparkline may have: no line in a list is wider.
pub const MAX_SPARKS: u32 = 200;

/// Which errors; all where nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorFilter {
    /// Only of this organization.
    pub organization_id: Option<String>,
    /// Only of this trace.
    pub trace_id: Option<String>,
    /// Only of this project.
    pub project_id: Option<String>,
    /// Only of this run.
    pub run_id: Option<String>,
    /// Only of this class.
    pub error_type: Option<String>,
    /// Only as bad as this: `warning`, `error` or `critical`.
    pub severity: Option<String>,
    /// Only of this endpoint.
    pub endpoint: Option<String>,
}

impl ErrorFilter {
    /// How long a time somebody may ask for; `None` where an index leads to the records, or all are meant.
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
    /// Whose it is.
    pub organization_id: Option<String>,
    /// When it happened.
    pub created_at: DateTime<Utc>,
    /// When the stream took it.
    pub received_at: DateTime<Utc>,
    /// Who published it.
    pub source: Option<String>,
    /// The trace it belongs to.
    pub trace_id: String,
    /// Its class.
    pub error_type: String,
    /// What it says.
    pub message: String,
    /// Where it came from.
    pub stack: Option<String>,
    /// Whatever belongs to it.
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
    /// What it has in common with others of its group; `None` of errors that are older than groups.
    pub fingerprint: Option<Uuid>,
    /// Whatever the contract has no field for.
    #[schema(value_type = Object)]
    pub attributes: StoredJson,
}
listed_by!(created_at: ErrorRow);

/// `GET /api/errors`, and `GET /api/errors/{trace_id}` with the trace as a filter.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
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

/// Errors of one fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize, ToSchema)]
pub struct ErrorGroup {
    /// What they have in common.
    pub fingerprint: Uuid,
    /// Their class.
    pub error_type: String,
    /// What the newest of them says.
    pub message: String,
    /// When the first one of this time happened.
    pub first_seen: DateTime<Utc>,
    /// When the last one did.
    pub last_seen: DateTime<Utc>,
    /// How many.
    pub count: i64,
    /// Distinct users that they name as `user_id`.
    pub affected_users: i64,
    /// How many in each of the steps of the page's time, in their order.
    pub sparkline: Vec<i64>,
}

impl Listed for ErrorGroup {
    fn key(&self) -> Key {
        (self.last_seen, self.fingerprint)
    }
}

// Each of the inner queries is read more than once, and of users and sparks only those of the page are counted: together
// a quarter of the time.
/// `GET /api/errors/groups`: all errors of the page's time, whatever the cursor, in groups; those that were seen last
/// first. The sparkline has `sparks` counts, [`MAX_SPARKS`] at the most.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
pub async fn groups(
    transaction: &mut ReadTransaction,
    filter: &ErrorFilter,
    page: &Page,
    sparks: u32,
) -> crate::Result<Vec<ErrorGroup>> {
    let sparks = i32::try_from(sparks.clamp(1, MAX_SPARKS)).unwrap_or(1);
    let span = Span { from: page.from, to: page.to };
    // How long a step is, in seconds; a time without any length is one step.
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
            // As it is stored: as text it might be long, and null is no user.
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
