//! Statements that only benchmarks need.

use futures::TryStreamExt;
use records::{Kind, row};
use sqlx::PgConnection;

/// How rows stand in the data of a COPY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As `psql \copy` and `COPY` send them unless told otherwise.
    Text,
    /// As the writers send them.
    Binary,
}

/// Copies pieces of rows into a kind's table with one COPY: what Postgres can take when nothing else is asked of it.
///
/// # Errors
/// Where the COPY fails.
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

/// Rows in the binary format as rows in the text format, in pieces of about 128 KiB that each end with
/// a row. By way of a temporary table, because only Postgres knows exactly how it writes each type.
///
/// # Errors
/// Where a statement fails.
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

/// Empties a kind's table and forgets its counts and its position.
///
/// # Errors
/// Where a statement fails.
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

/// Writes out what is dirty, so that the next measurement does not pay for the last one.
///
/// # Errors
/// Where the user may not.
pub async fn checkpoint(connection: &mut PgConnection) -> crate::Result<()> {
    sqlx::query("CHECKPOINT").execute(connection).await?;
    Ok(())
}
