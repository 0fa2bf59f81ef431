//! What every request works with.

use std::ops::Deref;
use std::sync::Arc;

use publisher::Publisher;
use store::PgPool;
use store::scoped_read::Reader;
use tokio_util::sync::CancellationToken;

use crate::auth::Verifier;
use crate::concurrency_limit::ConcurrencyLimit;
use crate::cursor::Cursors;
use crate::live::Live;
use crate::quota::Quota;
use crate::rate_limit::RateLimits;
use crate::settings::Settings;

/// What every request works with. A clone costs next to nothing.
#[derive(Debug, Clone)]
pub struct App(Arc<Parts>);

/// The parts of an [`App`].
#[derive(Debug)]
pub struct Parts {
    /// How the gateway behaves.
    pub settings: Settings,
    /// Checks tokens.
    pub verifier: Verifier,
    /// How much callers have asked for.
    pub(crate) rates: RateLimits,
    /// Puts records into their streams.
    pub publisher: Publisher,
    /// For what is the gateway's own: keys, and repeated posts.
    pub pool: PgPool,
    /// For queries, on behalf of whoever asks.
    pub reader: Reader,
    /// Signs cursors.
    pub cursors: Cursors,
    /// When callers may ask the database.
    pub(crate) query_limit: ConcurrencyLimit,
    /// Bodies that are under way, in bytes.
    pub(crate) body_memory: Arc<Quota>,
    /// Answers that are not sent yet, in bytes.
    pub(crate) response_memory: Arc<Quota>,
    /// Exports that are under way.
    pub(crate) export_quota: Arc<Quota>,
    /// Records as they come.
    pub(crate) live: Live,
    /// Cancelled when the process stops: streams that have no end of their own end then.
    pub stop: CancellationToken,
}

impl App {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
