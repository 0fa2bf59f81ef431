//! Deletes the expired part of a day, row by row.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{DayPartition, unsigned};
use crate::holds::{HeldColumns, HeldRange, is_held};
use crate::{Dataset, log_volumes, metric_hours};

/// The rows of one owner that a batch deleted, or of all owners together.
#[derive(sqlx::FromRow)]
struct DeletedRows {
    organization_id: Option<String>,
    owner: String,
    rows: i64,
    bytes: i64,
    last: Option<DateTime<Utc>>,
}

/// Deletes at most `limit` rows of a day that are older than `before` and not held, oldest first. Returns their
/// number, and the time of the last one, at which the next batch starts: deleted rows must not be read again. What is
/// derived from the rows (hours of metrics, log volumes) is updated in the same transaction.
///
/// # Errors
/// If a statement fails.
pub async fn delete_before(
    transaction: &mut PgConnection,
    day: &DayPartition,
    from: Option<DateTime<Utc>>,
    before: DateTime<Utc>,
    holds: &[HeldRange],
    limit: u32,
) -> crate::Result<(u64, Option<DateTime<Utc>>)> {
    let (name, time) = (&day.name, day.dataset.time_column());
    let held = is_held(day.dataset, 4);
    let columns = HeldColumns::of(holds);
    let gone = format!(
        "gone AS (
             DELETE FROM {name} WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM {name} WHERE {time} >= $1 AND {time} < $2 AND NOT {held} ORDER BY {time} LIMIT $3))
             RETURNING *)"
    );
    let volume = match day.dataset {
        Dataset::Records(kind) => kind.spec().volume.map(|bound| (kind, bound)),
        _ => None,
    };
    // One row for each owner of deleted rows if volumes are counted, otherwise one row for all.
    let all = format!(
        "SELECT NULL AS organization_id, '' AS owner, count(*) AS rows, 0::bigint AS bytes, max({time}) AS last FROM gone"
    );
    let statement = match volume {
        Some((_, bound)) => format!(
            "WITH {gone} SELECT organization_id, {} AS owner, count(*) AS rows, sum(octet_length({}))::bigint AS bytes,
                    max({time}) AS last FROM gone GROUP BY 1, 2",
            bound.owner, bound.text
        ),
        None if day.dataset.has_hours() => {
            format!("WITH {gone}, kept AS ({}) {all}", metric_hours::keep_statement("gone"))
        }
        None => format!("WITH {gone} {all}"),
    };
    let owners: Vec<DeletedRows> = sqlx::query_as(&statement)
        .bind(from.unwrap_or(day.starts_at))
        .bind(before)
        .bind(i64::from(limit))
        .bind(columns.organizations)
        .bind(columns.from)
        .bind(columns.until)
        .fetch_all(&mut *transaction)
        .await?;
    if let Some((kind, _)) = volume {
        let gone = owners.iter().map(|gone| log_volumes::RemovedVolume {
            organization_id: gone.organization_id.as_deref(),
            container_id: &gone.owner,
            lines: gone.rows,
            bytes: gone.bytes,
        });
        log_volumes::subtract(transaction, kind, day.first_day(), gone).await?;
    }
    let rows = owners.iter().map(|gone| unsigned(gone.rows)).sum();
    let last = owners.iter().filter_map(|gone| gone.last).max();
    Ok((rows, last))
}
