//! The state that all handlers share.

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

/// The state that all handlers share. Cloning it clones an `Arc`.
#[derive(Debug, Clone)]
pub struct App(Arc<Parts>);

/// The parts of an [`App`].
#[derive(Debug)]
pub struct Parts {
    /// The settings of the gateway.
    pub settings: Settings,
    /// Verifies tokens.
    pub verifier: Verifier,
    /// The request rates of callers.
    pub(crate) rates: RateLimits,
    /// Publishes records to their streams.
    pub publisher: Publisher,
    /// The pool for the gateway's own tables: shared keys and idempotency keys.
    pub pool: PgPool,
    /// Runs queries with the organizations of a caller.
    pub reader: Reader,
    /// Signs and opens cursors.
    pub cursors: Cursors,
    /// Limits the concurrent queries of each caller.
    pub(crate) query_limit: ConcurrencyLimit,
    /// The memory for request bodies, in bytes.
    pub(crate) body_memory: Arc<Quota>,
    /// The memory for unsent responses, in bytes.
    pub(crate) response_memory: Arc<Quota>,
    /// The number of running exports.
    pub(crate) export_quota: Arc<Quota>,
    /// The live streams.
    pub(crate) live: Live,
    /// Cancelled when the process stops. Live streams, which have no end of their own, end then.
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
