//! How far the clocks of producers are off: when they say that records happened, beside when the stream took these.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use records::Kind;
use sqlx::PgConnection;

use crate::catalogue::TableName;
use crate::partitions::State;
use crate::{Dataset, partition_removal};

/// Blocks of 8 KiB that are read at the end of a partition. Rows are appended there, so these are the newest, whatever
/// time they carry: half a megabyte, some thousands of records, and no index has to be kept for it.
const BLOCKS: i64 = 64;
/// Days before today whose partitions are looked at. A record that is further back is no matter of a clock.
const DAYS_BACK: i64 = 7;

/// Who publishes, as far as records tell.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Producer {
    /// Whose records; `None` for nobody's.
    pub organization_id: Option<String>,
    /// Its `source`, where it says one.
    pub source: Option<String>,
    /// The container, of metrics and logs.
    pub container_id: Option<String>,
}

/// What the recent records of a producer say of its clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    /// Whose clock.
    pub producer: Producer,
    /// How far it is ahead of the stream's, negative where it is behind: of the recent record that fits best. Records that
    /// waited somewhere say nothing of a clock, and one that did not is enough.
    pub ahead: TimeDelta,
    /// How many recent records it has.
    pub records: u64,
}

/// The clocks of producers whose records the stream took since a time. Reads the ends of partitions alone: at most
/// 64 blocks of each of the last eight days, and of those ahead.
///
/// # Errors
/// Where the database cannot be asked.
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
