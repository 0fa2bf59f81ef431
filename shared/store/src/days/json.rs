//! A day as JSON: on its way into an archive, and back.

use futures::TryStreamExt;
use futures::stream::BoxStream;
use sqlx::PgConnection;

use super::Day;
use crate::Dataset;

/// The rows of a day as JSON, a line each, in the order of their key.
pub fn as_json<'c>(connection: &'c mut PgConnection, day: &Day) -> BoxStream<'c, crate::Result<bytes::Bytes>> {
    let (name, time) = (day.partition.name(), day.dataset.time_column());
    // CSV of one column between control characters, which JSON never holds as they are: each line is the JSON itself,
    // where the text format would escape its backslashes once more.
    let statement = format!(
        "COPY (SELECT row_to_json(record) FROM {name} AS record ORDER BY {time}, id)
           TO STDOUT (FORMAT csv, DELIMITER E'\\x02', QUOTE E'\\x01')"
    );
    let rows = async move { connection.copy_out_raw(&statement).await };
    Box::pin(futures::stream::once(rows).try_flatten())
}

/// Adds rows that [`as_json`] gave, but for those that are there already, and says how many.
///
/// # Errors
/// Where the statement fails, as it does for what is no row of the table.
pub async fn insert_json(connection: &mut PgConnection, dataset: Dataset, lines: &[String]) -> crate::Result<u64> {
    let table = dataset.table();
    let inserted = sqlx::query(&format!(
        "INSERT INTO {table} SELECT record.* FROM unnest($1::text[]) AS line, json_populate_record(NULL::{table}, line::json) AS record
             ON CONFLICT DO NOTHING"
    ))
    .bind(lines)
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected())
}
