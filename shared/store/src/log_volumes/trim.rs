//! Removing the oldest lines of a container, in bounded batches.

use chrono::{DateTime, Utc};
use records::{Kind, Volume as Bound};
use sqlx::{Connection, PgConnection};

use super::{Amount, Excess, bounds, insert_amounts};
use crate::Dataset;
use crate::holds::{HeldColumns, HeldRange, is_held};

/// What was removed, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Lines.
    pub lines: u64,
    /// Bytes of their messages.
    pub bytes: u64,
}

/// Removes the oldest lines of a container's day: as many as it takes to remove `bytes_to_remove`, but at most `batch`,
/// and none that is held. `partition` is the full name of the day's. One transaction, in which the volume shrinks too.
/// The caller goes on with what is left to remove, and from the time of the last line that went, which is returned as
/// well, so that what is gone is not read again; until nothing is left or nothing was removed.
///
/// # Errors
/// Where a statement fails; nothing is removed then.
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
    // An index has them in their order. Where the planner takes the container for a small one it would sort its whole
    // day, for each batch anew.
    sqlx::query("SET LOCAL enable_sort = off").execute(&mut *transaction).await?;
    // By their places in the partition: a line is never changed, so it stays where it is until it goes.
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

/// What trimming a container's day would remove, over all of its batches. Reads the container's lines of that day.
///
/// # Errors
/// Where the database cannot be asked.
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

/// The lines of a container's day that may go, each with its bytes and those of all before it.
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
