//! Publishes internal records from their table to their streams.

use std::time::Duration;

use publisher::Publisher;
use records::Kind;
use runtime::Backoff;
use store::{Database, PgConnection, own_records};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::OWN_RECORDS;

/// Interval between polls for internal records.
const EVERY: Duration = Duration::from_secs(1);
/// Number of records published between two queries.
const AT_ONCE: u32 = 100;

/// Publishes internal records until `stop`. Runs beside the other work of the process, which may take an hour.
pub async fn keep_publishing(database: Database, publisher: Publisher, stop: CancellationToken) {
    let mut connection = None;
    let mut backoff = Backoff::for_server();
    let work = async {
        loop {
            match publish_on(&mut connection, &database, &publisher).await {
                Ok(published) => {
                    metrics::counter!(OWN_RECORDS).increment(published);
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

async fn publish_on(
    connection: &mut Option<PgConnection>,
    database: &Database,
    publisher: &Publisher,
) -> store::Result<u64> {
    let connection = match connection {
        Some(connection) => connection,
        none => none.insert(database.connect("telling").await?),
    };
    publish_own_records(connection, publisher).await
}

/// Publishes internal records until none is left or NATS does not acknowledge one. Returns the number of published
/// records.
///
/// # Errors
/// If a statement fails.
pub async fn publish_own_records(connection: &mut PgConnection, publisher: &Publisher) -> store::Result<u64> {
    let (mut published, mut after) = (0, None);
    loop {
        let records = own_records::oldest(connection, after, AT_ONCE).await?;
        let Some(last) = records.last() else { return Ok(published) };
        after = Some((last.created_at, last.id));
        for own in records {
            // A kind that only a newer version knows.
            let Ok(kind) = own.kind.parse::<Kind>() else { continue };
            let body = own.record.to_string();
            match publisher.publish_json(kind, own.organization_id.as_deref(), body.as_bytes()).await {
                Ok(_) => {
                    own_records::remove(connection, own.id).await?;
                    published += 1;
                }
                Err(error) if error.is_retryable() => {
                    tracing::debug!(%error, "cannot publish internal records; will try again");
                    return Ok(published);
                }
                // The record stays in the table for inspection and does not block others.
                Err(error) => {
                    tracing::error!(id = %own.id, %error, "an internal record was rejected and stays unpublished")
                }
            }
        }
    }
}
