//! One item of a plan under way: its steps, what it needs, and why it may end undone.

use archive::Archive;
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use store::PgConnection;
use uuid::Uuid;

use crate::Settings;
use crate::plan::Item;

/// A step of an item that was reached: for whoever shows progress, and for tests that end a run there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The item is begun.
    Begun,
    /// Its copy in the archive is verified.
    Archived,
    /// What is held of it is copied.
    Copied,
    /// It is out of its table.
    Detached,
    /// It was counted once more.
    Counted,
    /// A batch of its rows is gone.
    Batch {
        /// How many rows.
        rows: u64,
    },
    /// All of it that goes is gone.
    Removed,
}

/// Hears of each step that is reached, and is waited for.
pub type Observer<'o> = &'o (dyn Fn(Step, &Item) -> BoxFuture<'static, ()> + Send + Sync);

/// Hears of steps and does nothing.
pub fn no_observer(_: Step, _: &Item) -> BoxFuture<'static, ()> {
    Box::pin(std::future::ready(()))
}

/// Why an item was not done. Nothing of it is gone, but for batches that were counted.
#[derive(Debug, thiserror::Error)]
pub enum ItemError {
    /// The world is not as it was planned for.
    #[error("it has changed since the plan was made: {0}; nothing of it was removed, make a new plan")]
    Changed(String),
    /// It could not be archived.
    #[error("it is not in the archive, so nothing of it was removed: {0}")]
    Archive(String),
    /// Somebody was in the way for too long.
    #[error("{0}")]
    Busy(String),
    /// Postgres did not do as it was asked.
    #[error("Postgres: {0}")]
    Store(#[from] store::Error),
}

/// What an item needs to be done.
pub(crate) struct Work<'r> {
    pub(crate) connection: &'r mut PgConnection,
    pub(crate) settings: &'r Settings,
    /// The archive, or why there is none to write to.
    pub(crate) archive: &'r Result<Option<Archive>, String>,
    pub(crate) run: Uuid,
    pub(crate) position: i32,
    pub(crate) item: &'r Item,
    pub(crate) observer: Observer<'r>,
    pub(crate) now: DateTime<Utc>,
}

impl Work<'_> {
    /// Tells whoever observes that a step is reached.
    pub(crate) async fn reached(&self, step: Step) {
        (self.observer)(step, self.item).await;
    }
}
