//! What commands have to say of themselves: written with what they did, and published afterwards.

use std::time::Duration;

use runtime::Config;
use store::PgConnection;

use crate::process;

/// How long NATS may take to take what a command has to say of itself: it is written already.
const TELL_WITHIN: Duration = Duration::from_secs(5);

/// Publishes the audit record of what a command did. Where NATS is away it waits in Postgres, for the worker.
pub(crate) async fn publish(config: &Config, connection: &mut PgConnection) {
    let told = async {
        let bus = process::bus(config).await?;
        let publisher = process::publisher(config, &bus)?;
        let published = telling::publish_own_records(connection, &publisher).await?;
        bus.close().await;
        anyhow::Ok(published)
    };
    let problem = match tokio::time::timeout(TELL_WITHIN, told).await {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => "NATS does not answer".to_owned(),
    };
    eprintln!("The audit record of this waits in Postgres, and the retention worker publishes it: {problem}");
}
