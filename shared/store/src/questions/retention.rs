//! What was removed, and what must stay.

use uuid::Uuid;

use super::Page;
use super::question::Question;
use crate::holds::Hold;
use crate::reading::Reading;
use crate::retention::{self, Action, Run};

/// `GET /api/retention`: the newest runs. Their counts are over all organizations, so only who may see all sees them.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
pub async fn runs(reading: &mut Reading, volume_too: bool, limit: u32) -> crate::Result<Vec<Run>> {
    retention::newest(reading.connection(), volume_too, limit).await
}

/// `GET /api/retention`: what a run did.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
pub async fn actions(reading: &mut Reading, run: Uuid) -> crate::Result<Vec<Action>> {
    retention::actions(reading.connection(), run).await
}

/// `GET /api/retention`: holds, the newest first; of an organization alone those that are about it alone.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
pub async fn holds(reading: &mut Reading, organization_id: Option<&str>, page: &Page) -> crate::Result<Vec<Hold>> {
    Question::of("SELECT * FROM watchbook.holds")
        .organization("organization_id", reading, organization_id)
        .on("created_at", page)
        .newest("created_at", page.limit)
        .all(reading)
        .await
}
