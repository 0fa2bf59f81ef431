//! Estimates the clock skew of producers: compares `created_at` of recent records with the stream's timestamps.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use records::Kind;
use sqlx::PgConnection;

use crate::catalogue::TableName;
use crate::partitions::State;
use crate::{Dataset, partition_removal};

/// Blocks of 8 KiB that are read at the end of a partition. Rows are appended there, so these are the newest ones,
/// whatever their `created_at` is. They are half a megabyte, some thousands of records, and need no index.
const BLOCKS: i64 = 64;
/// Days before today whose partitions are read. Older records are not the result of a skewed clock.
const DAYS_BACK: i64 = 7;

/// A producer, as far as records identify it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Producer {
    /// Its organization; `None` for records without one.
    pub organization_id: Option<String>,
    /// The `source` of its records, if present.
    pub source: Option<String>,
    /// The container, for metrics and logs.
    pub container_id: Option<String>,
}

/// The clock of a producer, estimated from its recent records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    /// The producer.
    pub producer: Producer,
    /// How far it is ahead of the stream's clock; negative if it is behind. This is the smallest difference among
    /// recent records: a record that was delayed says nothing about a clock, and one without delay is enough.
    pub ahead: TimeDelta,
    /// The number of its recent records.
    pub records: u64,
}

/// Returns the clocks of producers whose records the stream received since `since`. Reads only the ends of partitions:
/// at most 64 blocks for each of the last eight days, and for each day ahead.
///
/// # Errors
/// If a query fails.
pub async fn of_producers(connection: &mut PgConnection, since: DateTime<Utc>) -> crate::Result<Vec<Clock>> {
    let mut clocks: HashMap<Producer, Clock> = HashMap::new();
    let oldest = Utc::now() - TimeDelta::days(DAYS_BACK);
    for &kind in Kind::ALL {
        let dataset = Dataset::Records(kind);
        if !Dataset::all().any(|known| known == dataset) {
            continue;
        }
        for day in partition_removal::list(connection, dataset).await? {
            if day.state != State::Attached || day.ends_at <= oldest {
                continue;
            }
            for clock in of_partition(connection, kind, &day.name, since).await? {
                let known =
                    clocks.entry(clock.producer.clone()).or_insert_with(|| Clock { records: 0, ..clock.clone() });
                known.records += clock.records;
                if clock.ahead.abs() < known.ahead.abs() {
                    known.ahead = clock.ahead;
                }
            }
        }
    }
    Ok(clocks.into_values().collect())
}

async fn of_partition(
    connection: &mut PgConnection,
    kind: Kind,
    name: &TableName,
    since: DateTime<Utc>,
) -> crate::Result<Vec<Clock>> {
    let (first_block,): (i64,) = sqlx::query_as(
        "SELECT greatest(pg_relation_size($1::regclass) / current_setting('block_size')::bigint - $2, 0)",
    )
    .bind(name.to_string())
    .bind(BLOCKS)
    .fetch_one(&mut *connection)
    .await?;
    let container = if kind.columns().any(|column| column == "container_id") { "container_id" } else { "NULL::text" };
    let statement = format!(
        "SELECT organization_id, source, container_id, count(*),
                (array_agg(microseconds ORDER BY abs(microseconds)))[1]
           FROM (SELECT organization_id, source, {container} AS container_id,
                        (extract(epoch FROM created_at - received_at) * 1000000)::bigint AS microseconds
                   FROM {name} WHERE ctid >= $1::text::tid AND received_at >= $2) AS recent
          GROUP BY organization_id, source, container_id"
    );
    type Row = (Option<String>, Option<String>, Option<String>, i64, i64);
    let rows: Vec<Row> =
        sqlx::query_as(&statement).bind(format!("({first_block},0)")).bind(since).fetch_all(connection).await?;
    let clock = |(organization_id, source, container_id, records, microseconds): Row| Clock {
        producer: Producer { organization_id, source, container_id },
        ahead: TimeDelta::microseconds(microseconds),
        records: records.unsigned_abs(),
    };
    Ok(rows.into_iter().map(clock).collect())
}
