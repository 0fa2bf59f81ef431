//! Self-audit of commands: audit events are stored together with the change and published afterwards.

use std::time::Duration;

use runtime::Config;
use store::PgConnection;

use crate::process;

/// Time-out for publishing the audit events of a command. They are stored already, so nothing is lost after it.
const PUBLISH_WITHIN: Duration = Duration::from_secs(5);

/// Publishes the audit events of a command. If NATS is not reachable, they stay in Postgres and the retention worker
/// publishes them.
pub(crate) async fn publish(config: &Config, connection: &mut PgConnection) {
    let published = async {
        let bus = process::bus(config).await?;
        let publisher = process::publisher(config, &bus)?;
        let published = self_audit::publish_pending(connection, &publisher).await?;
        bus.close().await;
        anyhow::Ok(published)
    };
    let problem = match tokio::time::timeout(PUBLISH_WITHIN, published).await {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => format!("no answer from NATS within {} s", PUBLISH_WITHIN.as_secs()),
    };
    eprintln!("The audit event is stored but not published yet; the retention worker will publish it: {problem}");
}
