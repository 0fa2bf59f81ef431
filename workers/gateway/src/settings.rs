//! The settings of the gateway.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use records::Kind;
use runtime::Config;
use runtime::config::{Gateway, Secret};

/// The caching of the issuer's keys.
#[derive(Debug, Clone, Copy)]
pub struct KeyTimes {
    /// Keys older than this are fetched again in the background, while requests still use them.
    pub fresh_for: Duration,
    /// Maximum age of keys while the issuer is unavailable: longer than an outage, but short enough that a revoked key
    /// does little harm.
    pub stale_for: Duration,
    /// Minimum interval between fetches. An unknown key causes a fetch, and anybody can invent one.
    pub at_most_every: Duration,
}

impl Default for KeyTimes {
    fn default() -> Self {
        Self {
            fresh_for: Duration::from_secs(5 * 60),
            stale_for: Duration::from_secs(60 * 60),
            at_most_every: Duration::from_secs(10),
        }
    }
}

/// The keys that verify tokens. An issuer signs in one way.
#[derive(Debug, Clone)]
pub enum Keys {
    /// HS256 with a shared secret.
    Secret(Secret),
    /// RS256, ES256 or Ed25519, with keys that the issuer publishes.
    Published {
        /// The URL of the issuer's key set (JWKS).
        url: String,
        /// The caching of the keys.
        times: KeyTimes,
    },
}

/// How long a client may read nothing of a response before its connection is closed. A client that reads makes progress
/// within seconds; one that reads nothing keeps a connection from others.
pub const READS_WITHIN: Duration = Duration::from_secs(60);

/// The settings of the gateway.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The section `[gateway]` of the configuration.
    pub gateway: Gateway,
    /// The keys that verify tokens.
    pub keys: Keys,
    /// Retention of each kind. Older records are rejected when they are posted. A kind without an entry is kept for
    /// ever.
    pub keep: Arc<BTreeMap<Kind, TimeDelta>>,
    /// The client's time limit for reading: [`READS_WITHIN`], shorter in tests.
    pub reads_within: Duration,
}

impl Settings {
    /// Reads the settings from the configuration. Returns `None` if no key for tokens is configured: then there is no
    /// gateway.
    pub fn of(config: &Config) -> Option<Self> {
        let keys = match (&config.gateway.jwks_url, &config.http.jwt_secret) {
            (Some(url), _) => Keys::Published { url: url.clone(), times: KeyTimes::default() },
            (None, Some(secret)) => Keys::Secret(secret.clone()),
            (None, None) => return None,
        };
        let keep = |kind: Kind| TimeDelta::from_std(config.retention.keep.of(kind.name()).duration()?).ok();
        let keep = Kind::ALL.iter().filter_map(|&kind| Some((kind, keep(kind)?))).collect();
        Some(Self { gateway: config.gateway.clone(), keys, keep: Arc::new(keep), reads_within: READS_WITHIN })
    }
}
