//! Removes the oldest lines of a container in bounded batches.

use chrono::{DateTime, Utc};
use records::{Kind, Volume as Bound};
use sqlx::{Connection, PgConnection};

use super::{Amount, Excess, bounds, insert_amounts};
use crate::Dataset;
use crate::holds::{HeldColumns, HeldRange, is_held};

/// The volume that was or would be removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Number of lines.
    pub lines: u64,
    /// Bytes of their messages.
    pub bytes: u64,
}

/// Removes the oldest lines of a container's day until `bytes_to_remove` is reached, at most `batch` lines, and no held
/// ones. `partition` is the full name of the day's partition. The volume shrinks in the same transaction. Also returns
/// the time of the last removed line. The caller repeats the call with the remaining bytes and from that time, so that
/// removed lines are not scanned again, until nothing remains or nothing was removed.
///
/// # Errors
/// If a statement fails; nothing is removed then.
pub async fn trim_container(
    connection: &mut PgConnection,
    kind: Kind,
    partition: &str,
    excess: &Excess,
    from: Option<DateTime<Utc>>,
    held: &[HeldRange],
    batch: u32,
) -> crate::Result<(Trimmed, Option<DateTime<Utc>>)> {
    let Some(bound) = kind.spec().volume else { return Ok((Trimmed::default(), None)) };
    let mut transaction = connection.begin().await?;
    // The index returns lines in order. If the planner underestimates the container, it would sort the whole day
    // again for each batch.
    sqlx::query("SET LOCAL enable_sort = off").execute(&mut *transaction).await?;
    // Selecting by ctid is safe, because lines are never updated.
    let statement = format!(
        "WITH removed AS (
             DELETE FROM {partition}
              WHERE ctid = ANY (ARRAY(SELECT ctid FROM ({}) AS oldest WHERE bytes_before < $8))
             RETURNING octet_length({}) AS bytes, created_at
         )
         SELECT count(*), coalesce(sum(bytes), 0), max(created_at) FROM removed",
        oldest(kind, bound, partition, " ORDER BY created_at, id LIMIT $9"),
        bound.text
    );
    let (removed, last) = ask(&mut transaction, &statement, excess, from, held, Some(batch)).await?;
    let owner = (excess.organization_id.as_deref(), excess.container_id.as_str());
    let amount = Amount { lines: -signed(removed.lines), bytes: -signed(removed.bytes) };
    insert_amounts(&mut transaction, kind, excess.day, [(owner, amount)]).await?;
    transaction.commit().await?;
    Ok((removed, last))
}

/// Returns what trimming a container's day would remove in all batches. Reads all lines of the container on that day.
///
/// # Errors
/// If the query fails.
pub async fn plan_trim(
    connection: &mut PgConnection,
    kind: Kind,
    partition: &str,
    excess: &Excess,
    held: &[HeldRange],
) -> crate::Result<Trimmed> {
    let Some(bound) = kind.spec().volume else { return Ok(Trimmed::default()) };
    let statement = format!(
        "SELECT count(*), coalesce(sum(bytes), 0)::bigint, NULL::timestamptz FROM ({}) AS oldest WHERE bytes_before < $8",
        oldest(kind, bound, partition, "")
    );
    Ok(ask(connection, &statement, excess, None, held, None).await?.0)
}

/// Returns the query for the lines of a container's day that are not held, each with its bytes and the sum of the bytes
/// before it.
fn oldest(kind: Kind, Bound { owner, text }: Bound, partition: &str, limit: &str) -> String {
    format!(
        "SELECT ctid, bytes, sum(bytes) OVER (ORDER BY created_at, id ROWS UNBOUNDED PRECEDING) - bytes AS bytes_before
           FROM (SELECT ctid, created_at, id, octet_length({text}) AS bytes FROM {partition} AS line
                  WHERE {owner} = $1 AND organization_id IS NOT DISTINCT FROM $2 AND created_at >= $3 AND created_at < $4
                    AND NOT {}{limit}) AS lines",
        is_held(Dataset::Records(kind), 5)
    )
}

async fn ask(
    connection: &mut PgConnection,
    statement: &str,
    excess: &Excess,
    from: Option<DateTime<Utc>>,
    held: &[HeldRange],
    batch: Option<u32>,
) -> crate::Result<(Trimmed, Option<DateTime<Utc>>)> {
    let (start, end) = bounds(excess.day);
    let held = HeldColumns::of(held);
    let mut query = sqlx::query_as(statement)
        .bind(&excess.container_id)
        .bind(&excess.organization_id)
        .bind(from.unwrap_or(start))
        .bind(end)
        .bind(held.organizations)
        .bind(held.from)
        .bind(held.until)
        .bind(signed(excess.bytes_to_remove));
    if let Some(batch) = batch {
        query = query.bind(i64::from(batch));
    }
    let (lines, bytes, last): (i64, i64, Option<DateTime<Utc>>) = query.fetch_one(connection).await?;
    Ok((Trimmed { lines: unsigned(lines), bytes: unsigned(bytes) }, last))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
