//! What callers did, as audit records: written before they are answered, so that nobody is without.

use self_audit::AuditEvent;
use serde_json::Value;
use store::PgConnection;

use crate::app::App;
use crate::auth::Caller;
use crate::problem::Problem;
use crate::request_context::RequestContext;

/// Something that a caller did.
#[derive(Debug, Clone)]
pub(crate) struct AuditedAction {
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

impl AuditedAction {
    /// Writes it in the transaction of what was done.
    pub(crate) async fn write(
        self,
        transaction: &mut PgConnection,
        caller: &Caller,
        context: &RequestContext,
    ) -> store::Result<()> {
        let event = AuditEvent {
            organization_id: self.organization_id.as_deref(),
            actor_id: &caller.subject,
            is_caller: true,
            action: self.action,
            target_type: self.target_type,
            target_id: self.target_id,
            reason: self.reason.as_deref(),
            problem: None,
            metadata: self.metadata,
            ip_address: context.ip_address,
            user_agent: context.user_agent.as_deref(),
        };
        self_audit::audit(transaction, &event).await
    }

    /// Writes it by itself, for what changes nothing else. Goes on where the caller hangs up: who has begun to ask
    /// cannot take it back.
    ///
    /// # Errors
    /// 503 where it cannot be written; then nothing may be answered.
    pub(crate) async fn write_before_response(
        self,
        app: &App,
        caller: &Caller,
        context: &RequestContext,
    ) -> Result<(), Problem> {
        let (app, caller, context) = (app.clone(), caller.clone(), context.clone());
        let write = async move {
            let mut transaction = app.pool.begin().await?;
            self.write(&mut transaction, &caller, &context).await?;
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
