//! Container metrics at two levels: samples while their partition is kept, and hourly aggregates afterwards.

use std::sync::LazyLock;

use chrono::{DateTime, Months, Utc};
use records::subject::NO_ORGANIZATION;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{Decode, FromRow, PgConnection, Postgres, Row, Type};
use utoipa::ToSchema;

use crate::holds::{HeldColumns, HeldRange, is_held};
use crate::partitions::{Partition, Partitions};
use crate::{Dataset, Steps};

/// The measured columns, and the expression to sum each. Sums are numeric, so bigints cannot overflow. A double is
/// converted by its text, which is exact, and rounded to 20 digits, because averages of smaller numbers may not fit
/// a double.
const MEASURED: [(&str, &str); 4] = [
    ("cpu_usage_percent", "round(cpu_usage_percent::text::numeric, 20)"),
    ("memory_usage_bytes", "memory_usage_bytes"),
    ("network_rx_bytes", "network_rx_bytes"),
    ("network_tx_bytes", "network_tx_bytes"),
];

/// Metrics of a container in one step.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Point {
    /// Start of the step. For hourly aggregates the start of the hour, which may be before the first step.
    pub at: DateTime<Utc>,
    /// Number of samples.
    pub samples: u64,
    /// CPU usage in percent of one core.
    pub cpu_usage_percent: Option<MinAvgMax<f64>>,
    /// Memory in use, in bytes.
    pub memory_usage_bytes: Option<MinAvgMax<i64>>,
    /// Counter of bytes received.
    pub network_rx_bytes: Option<MinAvgMax<i64>>,
    /// Counter of bytes sent.
    pub network_tx_bytes: Option<MinAvgMax<i64>>,
}

/// Minimum, average and maximum of a value. Absent if no sample has the value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct MinAvgMax<T> {
    /// Minimum.
    pub min: T,
    /// Average over all samples that have the value.
    pub avg: f64,
    /// Maximum.
    pub max: T,
}

/// Creates the partitions for the hours of all samples in `source_table`. Call it before the transaction of
/// [`roll_up_hours`]: creating a partition inside would hold its locks for the whole transaction.
///
/// # Errors
/// As [`Partitions::ensure`].
pub async fn ensure_hour_partitions(
    connection: &mut PgConnection,
    partitions: &Partitions,
    source_table: &str,
) -> crate::Result<()> {
    let statement = format!(
        "SELECT date_trunc('month', min(created_at), 'UTC'), date_trunc('month', max(created_at), 'UTC') FROM {source_table}"
    );
    let (mut month, last): (Option<DateTime<Utc>>, Option<DateTime<Utc>>) =
        sqlx::query_as(&statement).fetch_one(&mut *connection).await?;
    while let Some(first) = month.filter(|first| Some(*first) <= last) {
        partitions.ensure(connection, Partition::of_metric_hours(first)).await?;
        month = first.checked_add_months(Months::new(1));
    }
    Ok(())
}

/// Keeps the hours of samples that go: those in `source_table`, a day's partition that is about to go, but for what is
/// held of it; in the transaction in which they go, attached or not. Returns how many rows of hours were added to. The
/// name has its schema, and stands in the statement as it is: quoted where it has to be.
///
/// So each sample is at one level, as a row or in its hour. Samples that are removed later are added then.
///
/// # Errors
/// If the statement fails; nothing is added then.
pub async fn roll_up_hours(
    connection: &mut PgConnection,
    source_table: &str,
    held: &[HeldRange],
) -> crate::Result<u64> {
    let is_held = is_held(Dataset::Records(records::Kind::Metrics), 1);
    let columns = HeldColumns::of(held);
    let kept = sqlx::query(&keep_statement(&format!("{source_table} WHERE NOT {is_held}")))
        .bind(columns.organizations)
        .bind(columns.from)
        .bind(columns.until)
        .execute(connection)
        .await?;
    Ok(kept.rows_affected())
}

/// Returns the number of samples in the hours between two times.
///
/// # Errors
/// If the query fails.
pub async fn samples(connection: &mut PgConnection, from: DateTime<Utc>, until: DateTime<Utc>) -> crate::Result<u64> {
    let samples: i64 = sqlx::query_scalar(
        "SELECT coalesce(sum(samples), 0)::bigint FROM watchbook.container_metric_hours WHERE hour >= $1 AND hour < $2",
    )
    .bind(from)
    .bind(until)
    .fetch_one(connection)
    .await?;
    Ok(samples.unsigned_abs())
}

/// Removes the hours between two times, after their samples were restored.
///
/// # Errors
/// If the statement fails.
pub async fn forget(connection: &mut PgConnection, from: DateTime<Utc>, until: DateTime<Utc>) -> crate::Result<()> {
    sqlx::query("DELETE FROM watchbook.container_metric_hours WHERE hour >= $1 AND hour < $2")
        .bind(from)
        .bind(until)
        .execute(connection)
        .await?;
    Ok(())
}

/// Returns the statement that adds the samples of `source` to their hours.
pub(crate) fn keep_statement(source: &str) -> String {
    let all = |piece: fn(&str) -> String| MEASURED.map(|(column, _)| piece(column)).join(", ");
    let columns = all(|c| format!("{c}_samples, {c}_min, {c}_sum, {c}_max"));
    let merged = all(|c| {
        format!(
            "{c}_samples = known.{c}_samples + excluded.{c}_samples, {c}_sum = known.{c}_sum + excluded.{c}_sum,
             {c}_min = least(known.{c}_min, excluded.{c}_min), {c}_max = greatest(known.{c}_max, excluded.{c}_max)"
        )
    });
    // Ordered, so that concurrent statements cannot deadlock.
    format!(
        "INSERT INTO watchbook.container_metric_hours AS known (container_id, hour, organization_id, samples, {columns})
         SELECT container_id, date_trunc('hour', created_at, 'UTC'), organization_id, {}
           FROM {source} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
             ON CONFLICT (container_id, hour, organization_id)
             DO UPDATE SET samples = known.samples + excluded.samples, {merged}",
        summed_up()
    )
}

/// Returns the metrics of a container per step, in order, for all or these organizations (`_` for none). Omits steps
/// without samples. If steps are shorter than an hour, each hourly aggregate is one point.
///
/// # Errors
/// If the query fails.
pub async fn series(
    connection: &mut PgConnection,
    container_id: &str,
    organizations: Option<&[String]>,
    steps: &Steps,
) -> crate::Result<Vec<Point>> {
    static STATEMENT: LazyLock<String> = LazyLock::new(series_statement);
    sqlx::query_as(STATEMENT.as_str())
        .bind(container_id)
        .bind(organizations)
        .bind(steps.step())
        .bind(Steps::origin())
        .bind(steps.first_hour())
        .bind(steps.from())
        .bind(steps.to())
        .fetch_all(connection)
        .await
}

/// Returns the statement that reads both levels by container and time, by an index scan in each partition. A sample is
/// at one level only, so both can be added up.
fn series_statement() -> String {
    let all = |piece: fn(&str) -> String| MEASURED.map(|(column, _)| piece(column)).join(", ");
    let columns = all(|c| format!("{c}_samples, {c}_min, {c}_sum, {c}_max"));
    let spreads = all(|c| {
        format!(
            "min({c}_min) AS {c}_min, (sum({c}_sum) / nullif(sum({c}_samples), 0))::float8 AS {c}_avg, max({c}_max) AS {c}_max"
        )
    });
    let is_theirs = format!("($2::text[] IS NULL OR coalesce(organization_id, '{NO_ORGANIZATION}') = ANY ($2))");
    format!(
        "WITH levels AS (
             SELECT date_bin($3, hour, $4) AS at, samples, {columns} FROM watchbook.container_metric_hours
              WHERE container_id = $1 AND hour >= $5 AND hour < $7 AND {is_theirs}
              UNION ALL
             SELECT date_bin($3, created_at, $4) AS at, {} FROM watchbook.container_metrics
              WHERE container_id = $1 AND created_at >= $6 AND created_at < $7 AND {is_theirs}
              GROUP BY 1
         )
         SELECT at, sum(samples)::bigint AS samples, {spreads} FROM levels GROUP BY at ORDER BY at",
        summed_up()
    )
}

/// Returns the aggregate expressions over samples.
fn summed_up() -> String {
    let columns = MEASURED.map(|(c, summand)| {
        format!(
            "count({c}) AS {c}_samples, min({c}) AS {c}_min, coalesce(sum({summand}), 0) AS {c}_sum, max({c}) AS {c}_max"
        )
    });
    format!("count(*) AS samples, {}", columns.join(", "))
}

impl FromRow<'_, PgRow> for Point {
    fn from_row(row: &PgRow) -> crate::Result<Self> {
        Ok(Self {
            at: row.try_get("at")?,
            samples: row.try_get::<i64, _>("samples")?.unsigned_abs(),
            cpu_usage_percent: spread(row, "cpu_usage_percent")?,
            memory_usage_bytes: spread(row, "memory_usage_bytes")?,
            network_rx_bytes: spread(row, "network_rx_bytes")?,
            network_tx_bytes: spread(row, "network_tx_bytes")?,
        })
    }
}

fn spread<'r, T>(row: &'r PgRow, column: &str) -> crate::Result<Option<MinAvgMax<T>>>
where
    T: Decode<'r, Postgres> + Type<Postgres>,
{
    let min: Option<T> = row.try_get(format!("{column}_min").as_str())?;
    let avg: Option<f64> = row.try_get(format!("{column}_avg").as_str())?;
    let max: Option<T> = row.try_get(format!("{column}_max").as_str())?;
    Ok(min.zip(avg).zip(max).map(|((min, avg), max)| MinAvgMax { min, avg, max }))
}
