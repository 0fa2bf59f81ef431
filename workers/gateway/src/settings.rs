//! How the gateway behaves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use records::Kind;
use runtime::Config;
use runtime::config::{Gateway, Secret};

/// How the issuer's keys are kept.
#[derive(Debug, Clone, Copy)]
pub struct KeyTimes {
    /// Keys older than this are fetched again, beside the requests that use them.
    pub fresh_for: Duration,
    /// While the issuer is away, keys up to this age are believed: longer than an outage, shorter than the time in
    /// which somebody whose key was taken back does much harm.
    pub stale_for: Duration,
    /// A key that nobody knows makes the keys fetched again, but not more often than this: anybody can invent one.
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

/// How tokens are checked: an issuer signs in one way.
#[derive(Debug, Clone)]
pub enum Keys {
    /// HS256 with a shared secret.
    Secret(Secret),
    /// RS256, ES256 or Ed25519, with the keys that the issuer publishes here.
    Published {
        /// Where.
        url: String,
        /// How they are kept.
        times: KeyTimes,
    },
}

/// What the other end of a connection may take to make room for more of an answer before the connection is ended: who
/// reads at all makes some within seconds, and who keeps a place and reads nothing takes it from others.
pub const READS_WITHIN: Duration = Duration::from_secs(60);

/// How the gateway behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What stands in `[gateway]`.
    pub gateway: Gateway,
    /// How tokens are checked.
    pub keys: Keys,
    /// How long each kind is kept: what is older is refused when it is posted.
    pub keep: Arc<BTreeMap<Kind, TimeDelta>>,
    /// [`READS_WITHIN`]; shorter in tests.
    pub reads_within: Duration,
}

impl Settings {
    /// As they are configured. `None` where nothing says how tokens are checked: then there can be no gateway.
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
