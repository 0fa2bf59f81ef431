//! What callers did, as audit records: written before they are answered, so that nobody is without.

use serde_json::Value;
use store::PgConnection;
use telling::Deed;

use crate::app::App;
use crate::asker::Asker;
use crate::auth::Caller;
use crate::problem::Problem;

/// Something that a caller did.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    /// In whose log it stands; `None` for the platform's own.
    pub(crate) organization_id: Option<String>,
    /// What was done, such as `silence.create`.
    pub(crate) action: &'static str,
    /// What kind of thing it was done to.
    pub(crate) target_type: &'static str,
    /// Which one.
    pub(crate) target_id: String,
    /// Why, where the caller said so.
    pub(crate) reason: Option<String>,
    /// Whatever belongs to it.
    pub(crate) metadata: Value,
}

impl Done {
    /// Writes it in the transaction of what was done.
    pub(crate) async fn write(
        self,
        transaction: &mut PgConnection,
        caller: &Caller,
        asker: &Asker,
    ) -> store::Result<()> {
        let deed = Deed {
            organization_id: self.organization_id.as_deref(),
            actor_id: &caller.subject,
            is_caller: true,
            action: self.action,
            target_type: self.target_type,
            target_id: self.target_id,
            reason: self.reason.as_deref(),
            problem: None,
            metadata: self.metadata,
            ip_address: asker.ip_address,
            user_agent: asker.user_agent.as_deref(),
        };
        telling::audit(transaction, &deed).await
    }

    /// Writes it by itself, for what changes nothing else. Goes on where the caller hangs up: who has begun to ask
    /// cannot take it back.
    ///
    /// # Errors
    /// 503 where it cannot be written; then nothing may be answered.
    pub(crate) async fn write_first(self, app: &App, caller: &Caller, asker: &Asker) -> Result<(), Problem> {
        let (app, caller, asker) = (app.clone(), caller.clone(), asker.clone());
        let write = async move {
            let mut transaction = app.pool.begin().await?;
            self.write(&mut transaction, &caller, &asker).await?;
            transaction.commit().await
        };
        match tokio::spawn(write).await {
            Ok(written) => written.map_err(|error| Problem::of_database(&error)),
            Err(error) => {
                tracing::error!(%error, "an audit record was not written, which is a bug");
                Err(Problem::internal())
            }
        }
    }
}
