//! Audit events for the actions of callers. They are written before the response starts, so that no action goes
//! unrecorded.

use self_audit::AuditEvent;
use serde_json::Value;
use store::PgConnection;

use crate::app::App;
use crate::auth::Caller;
use crate::problem::Problem;
use crate::request_context::RequestContext;

/// An action of a caller.
#[derive(Debug, Clone)]
pub(crate) struct AuditedAction {
    /// The organization whose audit log records it; `None` for the platform's own log.
    pub(crate) organization_id: Option<String>,
    /// The action, such as `silence.create`.
    pub(crate) action: &'static str,
    /// The type of the target.
    pub(crate) target_type: &'static str,
    /// The id of the target.
    pub(crate) target_id: String,
    /// The reason, if the caller gave one.
    pub(crate) reason: Option<String>,
    /// Further details, a JSON object.
    pub(crate) metadata: Value,
}

impl AuditedAction {
    /// Writes the audit event in the transaction of the action.
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

    /// Writes the audit event in a transaction of its own, for actions that change nothing else. The write continues if
    /// the caller disconnects, so that nobody avoids the record by hanging up.
    ///
    /// # Errors
    /// 503 if it cannot be written. The caller must then get no other response.
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
