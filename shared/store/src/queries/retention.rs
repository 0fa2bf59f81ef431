//! What was removed, and what must stay.

use uuid::Uuid;

use super::Page;
use super::select::Select;
use crate::holds::Hold;
use crate::retention::{self, Action, Run};
use crate::scoped_read::ReadTransaction;

/// `GET /api/retention`: the newest runs. Their counts are over all organizations, so only who may see all sees them.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
pub async fn runs(transaction: &mut ReadTransaction, volume_too: bool, limit: u32) -> crate::Result<Vec<Run>> {
    retention::newest(transaction.connection(), volume_too, limit).await
}

/// `GET /api/retention`: what a run did.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
pub async fn actions(transaction: &mut ReadTransaction, run: Uuid) -> crate::Result<Vec<Action>> {
    retention::actions(transaction.connection(), run).await
}

/// `GET /api/retention`: holds, the newest first; of an organization alone those that are about it alone.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
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
