//! Publishes internal records from their table to their streams.

use std::time::Duration;

use publisher::Publisher;
use records::Kind;
use runtime::Backoff;
use store::{Database, PgConnection, internal_records};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::PUBLISHED_RECORDS;

/// Interval between polls for internal records.
const EVERY: Duration = Duration::from_secs(1);
/// Number of records published between two queries.
const AT_ONCE: u32 = 100;

/// Publishes internal records until `stop`. Runs beside the other work of the process, which may take an hour.
pub async fn run_publisher(database: Database, publisher: Publisher, stop: CancellationToken) {
    let mut connection = None;
    let mut backoff = Backoff::for_server();
    let work = async {
        loop {
            match publish_with(&mut connection, &database, &publisher).await {
                Ok(published) => {
                    metrics::counter!(PUBLISHED_RECORDS).increment(published);
                    backoff.reset();
                    sleep(EVERY).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot read internal records from Postgres; will try again");
                    connection = None;
                    sleep(backoff.next_wait()).await;
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

async fn publish_with(
    connection: &mut Option<PgConnection>,
    database: &Database,
    publisher: &Publisher,
) -> store::Result<u64> {
    let connection = match connection {
        Some(connection) => connection,
        none => none.insert(database.connect("self_audit").await?),
    };
    publish_pending(connection, publisher).await
}

/// Publishes internal records until none is left or NATS does not acknowledge one. Returns the number of published
/// records.
///
/// # Errors
/// If a statement fails.
pub async fn publish_pending(connection: &mut PgConnection, publisher: &Publisher) -> store::Result<u64> {
    let (mut published, mut after) = (0, None);
    loop {
        let records = internal_records::oldest(connection, after, AT_ONCE).await?;
        let Some(last) = records.last() else { return Ok(published) };
        after = Some((last.created_at, last.id));
        for internal in records {
            // A kind that only a newer version knows.
            let Ok(kind) = internal.kind.parse::<Kind>() else { continue };
            let body = internal.record.to_string();
            match publisher.publish_json(kind, internal.organization_id.as_deref(), body.as_bytes()).await {
                Ok(_) => {
                    internal_records::remove(connection, internal.id).await?;
                    published += 1;
                }
                Err(error) if error.is_retryable() => {
                    tracing::debug!(%error, "cannot publish internal records; will try again");
                    return Ok(published);
                }
                // The record stays in the table for inspection and does not block others.
                Err(error) => {
                    tracing::error!(id = %internal.id, %error, "an internal record was rejected and stays unpublished")
                }
            }
        }
    }
}
