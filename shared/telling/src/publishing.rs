//! From the table of Watchbook's own records into their streams.

use std::time::Duration;

use publisher::Publisher;
use records::Kind;
use runtime::Backoff;
use store::{Database, PgConnection, own_records};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::OWN_RECORDS;

/// How often it is looked whether Watchbook has to say anything of itself.
const EVERY: Duration = Duration::from_secs(1);
/// Records that are published between two looks at the database.
const AT_ONCE: u32 = 100;

/// Publishes what Watchbook has to say of itself, until `stop`: beside the work, which may take an hour.
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
                    tracing::debug!(%error, "what Watchbook has to say of itself waits for Postgres");
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

/// Publishes what Watchbook has to say of itself, until nothing is left or NATS does not take it. Returns how many
/// records are out.
///
/// # Errors
/// Where Postgres does not answer.
pub async fn publish_own_records(connection: &mut PgConnection, publisher: &Publisher) -> store::Result<u64> {
    let (mut published, mut after) = (0, None);
    loop {
        let records = own_records::oldest(connection, after, AT_ONCE).await?;
        let Some(last) = records.last() else { return Ok(published) };
        after = Some((last.created_at, last.id));
        for own in records {
            // Of a kind that a newer version knows.
            let Ok(kind) = own.kind.parse::<Kind>() else { continue };
            let body = own.record.to_string();
            match publisher.publish_json(kind, own.organization_id.as_deref(), body.as_bytes()).await {
                Ok(_) => {
                    own_records::remove(connection, own.id).await?;
                    published += 1;
                }
                Err(error) if error.is_retryable() => {
                    tracing::debug!(%error, "what Watchbook has to say of itself waits for NATS");
                    return Ok(published);
                }
                // It stays in its table, where somebody may look at it, and holds up no other.
                Err(error) => tracing::error!(id = %own.id, %error, "a record of Watchbook's own is refused"),
            }
        }
    }
}
