//! The execution of one item of a plan: its steps, its inputs and its errors.

use archive::Archive;
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use store::PgConnection;
use uuid::Uuid;

use crate::Settings;
use crate::plan::Item;

/// A step that an item has reached. Used to show progress, and by tests to end a run there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The item has begun.
    Begun,
    /// The day is in the archive, verified.
    Archived,
    /// The held rows are copied.
    Copied,
    /// The day is detached from its table.
    Detached,
    /// The rows were counted again.
    Counted,
    /// A batch of rows was removed.
    Batch {
        /// Number of rows.
        rows: u64,
    },
    /// Everything that the item removes is removed.
    Removed,
}

/// A callback for each step that is reached. The run waits for the returned future.
pub type Observer<'o> = &'o (dyn Fn(Step, &Item) -> BoxFuture<'static, ()> + Send + Sync);

/// Does nothing.
pub fn no_observer(_: Step, _: &Item) -> BoxFuture<'static, ()> {
    Box::pin(std::future::ready(()))
}

/// The reason why an item was not done. None of its rows were removed, except for batches that were counted.
#[derive(Debug, thiserror::Error)]
pub enum ItemError {
    /// The data or the settings differ from the plan.
    #[error("it has changed since the plan was made: {0}; nothing of it was removed, make a new plan")]
    Changed(String),
    /// The day could not be archived.
    #[error("it is not in the archive, so nothing of it was removed: {0}")]
    Archive(String),
    /// Another session used the table for too long.
    #[error("{0}")]
    Busy(String),
    /// A statement failed.
    #[error("Postgres: {0}")]
    Store(#[from] store::Error),
}

/// An item and the inputs of its execution.
pub(crate) struct Work<'r> {
    pub(crate) connection: &'r mut PgConnection,
    pub(crate) settings: &'r Settings,
    /// The archive if one is configured and needed, or the reason why it cannot be written.
    pub(crate) archive: &'r Result<Option<Archive>, String>,
    pub(crate) run: Uuid,
    pub(crate) position: i32,
    pub(crate) item: &'r Item,
    pub(crate) observer: Observer<'r>,
    pub(crate) now: DateTime<Utc>,
}

impl Work<'_> {
    /// Calls the observer with a step that was reached.
    pub(crate) async fn reached(&self, step: Step) {
        (self.observer)(step, self.item).await;
    }
}
