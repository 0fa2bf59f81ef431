//! Retention runs and holds.

use uuid::Uuid;

use super::Page;
use super::select::Select;
use crate::holds::Hold;
use crate::retention::{self, Action, Run};
use crate::scoped_read::ReadTransaction;

/// Serves `GET /api/retention`: returns the newest runs. Their counts cover all organizations, so only callers that
/// may see all organizations see them.
///
/// # Errors
/// If the query fails or times out.
pub async fn runs(transaction: &mut ReadTransaction, volume_too: bool, limit: u32) -> crate::Result<Vec<Run>> {
    retention::newest(transaction.connection(), volume_too, limit).await
}

/// Returns the actions of a run.
///
/// # Errors
/// If the query fails or times out.
pub async fn actions(transaction: &mut ReadTransaction, run: Uuid) -> crate::Result<Vec<Action>> {
    retention::actions(transaction.connection(), run).await
}

/// Serves `GET /api/retention`: returns holds, newest first. Callers of an organization see only holds that are about
/// it alone.
///
/// # Errors
/// If the query fails or times out.
pub async fn holds(
    transaction: &mut ReadTransaction,
    organization_id: Option<&str>,
    page: &Page,
) -> crate::Result<Vec<Hold>> {
    Select::of("SELECT * FROM watchbook.holds")
        .organization("organization_id", transaction, organization_id)
        .on("created_at", page)
        .newest("created_at", page.limit)
        .all(transaction)
        .await
}
