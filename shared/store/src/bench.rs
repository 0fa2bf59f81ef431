//! Statements used only by benchmarks.

use chrono::{DateTime, SecondsFormat, Utc};
use futures::TryStreamExt;
use records::{Kind, row};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::partitions::Partition;
use crate::queries::Span;

/// The format of COPY data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The text format, the default of `COPY` and `psql \copy`.
    Text,
    /// The binary format, which the writers send.
    Binary,
}

/// Copies rows into a kind's table with one COPY and nothing else. Measures the limit of Postgres.
///
/// # Errors
/// If the COPY fails.
pub async fn copy_pieces(
    connection: &mut PgConnection,
    kind: Kind,
    format: Format,
    pieces: &[Vec<u8>],
) -> crate::Result<()> {
    copy_into(connection, kind.spec().table, kind, format, pieces).await
}

async fn copy_into(
    connection: &mut PgConnection,
    table: &str,
    kind: Kind,
    format: Format,
    pieces: &[Vec<u8>],
) -> crate::Result<()> {
    let columns = kind.columns().collect::<Vec<_>>().join(", ");
    let (options, header, trailer) = match format {
        Format::Text => ("", &[][..], &[][..]),
        Format::Binary => (" (FORMAT binary)", row::HEADER, row::TRAILER),
    };
    let mut copy = connection.copy_in_raw(&format!("COPY {table} ({columns}) FROM STDIN{options}")).await?;
    copy.send(header).await?;
    for piece in pieces {
        copy.send(piece.as_slice()).await?;
    }
    copy.send(trailer).await?;
    copy.finish().await?;
    Ok(())
}

/// Converts rows from the binary to the text format, in pieces of about 128 KiB that each end with a row. Uses a
/// temporary table, because only Postgres knows exactly how it prints each type.
///
/// # Errors
/// If a statement fails.
pub async fn as_text(connection: &mut PgConnection, kind: Kind, pieces: &[Vec<u8>]) -> crate::Result<Vec<Vec<u8>>> {
    const PIECE_BYTES: usize = 128 * 1024;
    sqlx::query(&format!("CREATE TEMPORARY TABLE bench_rows (LIKE {})", kind.spec().table))
        .execute(&mut *connection)
        .await?;
    copy_into(connection, "pg_temp.bench_rows", kind, Format::Binary, pieces).await?;
    let columns = kind.columns().collect::<Vec<_>>().join(", ");
    let mut texts = Vec::new();
    let mut text = Vec::new();
    let mut rows = connection.copy_out_raw(&format!("COPY pg_temp.bench_rows ({columns}) TO STDOUT")).await?;
    while let Some(row) = rows.try_next().await? {
        text.extend_from_slice(&row);
        if text.len() >= PIECE_BYTES {
            texts.push(std::mem::take(&mut text));
        }
    }
    drop(rows);
    texts.push(text);
    sqlx::query("DROP TABLE pg_temp.bench_rows").execute(connection).await?;
    Ok(texts)
}

/// Empties a kind's table and removes its roll-ups and its position.
///
/// # Errors
/// If a statement fails.
pub async fn empty_kind(connection: &mut PgConnection, kind: Kind) -> crate::Result<()> {
    sqlx::query(&format!("TRUNCATE {}", kind.spec().table)).execute(&mut *connection).await?;
    for counts in ["outcome_minutes", "outcome_hours", "rollups", "log_volumes"] {
        sqlx::query(&format!("DELETE FROM watchbook.{counts} WHERE kind = $1"))
            .bind(kind.name())
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query("DELETE FROM watchbook.positions WHERE kind = $1").bind(kind.name()).execute(connection).await?;
    Ok(())
}

/// Runs a checkpoint, so that the next measurement does not pay for earlier writes.
///
/// # Errors
/// If the user lacks the privilege.
pub async fn checkpoint(connection: &mut PgConnection) -> crate::Result<()> {
    sqlx::query("CHECKPOINT").execute(connection).await?;
    Ok(())
}

/// Returns which of these records, created between two times, are stored. One query for all of them, so that its cost
/// does not depend on how many are in flight.
///
/// # Errors
/// If the query fails.
pub async fn stored_of(
    connection: &mut PgConnection,
    kind: Kind,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    ids: &[Uuid],
) -> crate::Result<Vec<Uuid>> {
    let table = kind.spec().table;
    sqlx::query_scalar(&format!("SELECT id FROM {table} WHERE created_at BETWEEN $1 AND $2 AND id = ANY ($3)"))
        .bind(from)
        .bind(until)
        .bind(ids)
        .fetch_all(connection)
        .await
}

/// Vacuums and analyzes a partition, as autovacuum has done long before it expires: no dead rows, a complete visibility
/// map, and current statistics.
///
/// # Errors
/// If the statement fails.
pub async fn vacuum_and_analyze(connection: &mut PgConnection, partition: Partition) -> crate::Result<()> {
    sqlx::query(&format!("VACUUM (ANALYZE) {}", partition.name())).execute(connection).await?;
    Ok(())
}

/// Vacuums a partition after a large DELETE.
///
/// # Errors
/// If the statement fails.
pub async fn vacuum(connection: &mut PgConnection, partition: Partition) -> crate::Result<()> {
    sqlx::query(&format!("VACUUM {}", partition.name())).execute(&mut *connection).await?;
    publish_statistics(connection).await
}

/// Deletes records by age in one statement, as a nightly job without partitions would.
///
/// # Errors
/// If the statement fails.
pub async fn delete_older(connection: &mut PgConnection, kind: Kind, before: DateTime<Utc>) -> crate::Result<u64> {
    let deleted = sqlx::query(&format!("DELETE FROM {} WHERE created_at < $1", kind.spec().table))
        .bind(before)
        .execute(&mut *connection)
        .await?;
    publish_statistics(connection).await?;
    Ok(deleted.rows_affected())
}

/// Flushes this session's statistics, which other sessions would otherwise see only after some seconds.
async fn publish_statistics(connection: &mut PgConnection) -> crate::Result<()> {
    sqlx::query("SELECT pg_stat_force_next_flush()").execute(connection).await?;
    Ok(())
}

/// The disk usage of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes of the table.
    pub table_bytes: u64,
    /// Bytes of the indexes.
    pub index_bytes: u64,
    /// Dead rows that still take space.
    pub dead_rows: u64,
}

/// Returns the disk usage of a partition; zeros if it does not exist.
///
/// # Errors
/// If the query fails.
pub async fn footprint(connection: &mut PgConnection, partition: Partition) -> crate::Result<Footprint> {
    let (table, indexes, dead): (i64, i64, i64) = sqlx::query_as(
        "SELECT coalesce(pg_table_size(class), 0), coalesce(pg_indexes_size(class), 0),
                coalesce(pg_stat_get_dead_tuples(class), 0)
           FROM (SELECT to_regclass($1)) AS named (class)",
    )
    .bind(partition.name())
    .fetch_one(connection)
    .await?;
    let unsigned = |number: i64| u64::try_from(number).unwrap_or_default();
    Ok(Footprint { table_bytes: unsigned(table), index_bytes: unsigned(indexes), dead_rows: unsigned(dead) })
}

/// Returns the current WAL position of the server, in bytes.
///
/// # Errors
/// If the query fails.
pub async fn log_position(connection: &mut PgConnection) -> crate::Result<u64> {
    let bytes: i64 =
        sqlx::query_scalar("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint").fetch_one(connection).await?;
    Ok(u64::try_from(bytes).unwrap_or_default())
}

/// Reads the newest audit records of an organization by the statement alone: without role, policies, names from the
/// directory or self-audit. Returns how many there are, at most `limit`.
///
/// # Errors
/// If the query fails.
pub async fn newest_audit_records(
    connection: &mut PgConnection,
    organization: &str,
    span: &Span,
    limit: u32,
) -> crate::Result<usize> {
    let rows = sqlx::query(
        "SELECT * FROM control_plane.audit_logs
          WHERE organization_id = $1 AND created_at >= $2 AND created_at <= $3
          ORDER BY created_at DESC, id DESC LIMIT $4",
    )
    .bind(organization)
    .bind(span.from)
    .bind(span.to)
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    Ok(rows.len())
}

/// Copies audit records out as CSV, newest first. Returns the number of bytes. Measures the limit of Postgres.
///
/// # Errors
/// If the COPY fails.
pub async fn copy_audit_records_out(connection: &mut PgConnection, span: &Span) -> crate::Result<u64> {
    // COPY takes no parameters. These are times that we format, so they are safe to interpolate.
    let [from, to] = [span.from, span.to].map(|time| time.to_rfc3339_opts(SecondsFormat::Micros, true));
    let statement = format!(
        "COPY (SELECT * FROM control_plane.audit_logs WHERE created_at >= '{from}' AND created_at <= '{to}'
                ORDER BY created_at DESC, id DESC) TO STDOUT (FORMAT csv)"
    );
    let mut rows = connection.copy_out_raw(&statement).await?;
    let mut bytes = 0;
    while let Some(row) = rows.try_next().await? {
        bytes += row.len() as u64;
    }
    Ok(bytes)
}
