//! Converts the rows of a day to JSON for an archive, and back.

use futures::TryStreamExt;
use futures::stream::BoxStream;
use sqlx::PgConnection;

use super::DayPartition;
use crate::Dataset;
use crate::catalogue::TableName;

/// Returns the rows of a day as JSON, one per line, in the order of their key. Numbers that print long are written
/// with exponents, and are read back as the same numbers.
pub fn as_json<'c>(connection: &'c mut PgConnection, day: &DayPartition) -> BoxStream<'c, crate::Result<bytes::Bytes>> {
    let (name, time) = (day.name.clone(), day.dataset.time_column());
    let rows = async move {
        let record = record_as_json(&columns(&mut *connection, &name).await?);
        // CSV of one column, with control characters as delimiter and quote, which never occur unescaped in JSON: each
        // line is the JSON itself. The text format would escape its backslashes once more.
        let statement = format!(
            "COPY (SELECT {record} FROM {name} AS record ORDER BY {time}, id)
               TO STDOUT (FORMAT csv, DELIMITER E'\\x02', QUOTE E'\\x01')"
        );
        connection.copy_out_raw(&statement).await
    };
    Box::pin(futures::stream::once(rows).try_flatten())
}

/// Returns the columns of a table in order, quoted if necessary, and whether each is a `jsonb`.
async fn columns(connection: &mut PgConnection, table: &TableName) -> crate::Result<Vec<(String, bool)>> {
    sqlx::query_as(
        "SELECT quote_ident(attname), atttypid = 'jsonb'::regtype FROM pg_attribute
          WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
    )
    .bind(table.to_string())
    .fetch_all(connection)
    .await
}

/// Returns the expression for a row named `record` as JSON: as Postgres prints it, unless a column has numbers that
/// print long.
fn record_as_json(columns: &[(String, bool)]) -> String {
    let prints_long = |column: &str| format!("watchbook.prints_long(record.{column})");
    let long: Vec<_> = columns.iter().filter(|(_, is_json)| *is_json).map(|(column, _)| prints_long(column)).collect();
    if long.is_empty() {
        return "row_to_json(record)".to_owned();
    }
    let one = |(column, is_json): &(String, bool)| match is_json {
        false => format!("record.{column}"),
        true => format!(
            "CASE WHEN {} THEN watchbook.abbreviated(record.{column})::json ELSE record.{column}::json END AS {column}",
            prints_long(column)
        ),
    };
    let all: Vec<_> = columns.iter().map(one).collect();
    format!(
        "CASE WHEN {} THEN (SELECT row_to_json(abbreviated) FROM (SELECT {}) AS abbreviated) ELSE row_to_json(record) END",
        long.join(" OR "),
        all.join(", ")
    )
}

/// Inserts rows from [`as_json`] unless they are already there, and returns the number of inserted rows.
///
/// # Errors
/// If the statement fails, as it does if a line is not a row of the table.
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
