//! Verifies tokens: signature, issuer, audience and validity period.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::Instant;

use super::Caller;
use super::claims::{Claims, Expected};
use super::jwks::{Jwks, NoKey};
use crate::problem::Problem;
use crate::settings::{Keys, Settings};

/// Maximum length of a token. Watchbook's own have 300 bytes, and some thousand with many organizations.
pub(crate) const TOKEN_BYTES: usize = 8 * 1024;
/// Allowed clock skew between issuer and gateway. Machines that run NTP differ by less.
const LEEWAY: Duration = Duration::from_secs(30);
/// `Retry-After` while the issuer's keys cannot be fetched.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Verifies tokens of one issuer, with one way of signing.
#[derive(Debug)]
pub struct Verifier {
    source: Source,
    issuer: String,
    audience: String,
}

enum Source {
    /// HS256 with a shared secret.
    Secret(DecodingKey),
    /// The issuer's public keys; each has its algorithm.
    Published(Jwks),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Secret(_) => f.write_str("Secret"),
            Self::Published(jwks) => jwks.fmt(f),
        }
    }
}

/// The reason why a token was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The token is invalid. The reason is safe to send to the client.
    Invalid(String),
    /// The token cannot be verified now, because the issuer's keys are not known.
    Unknown(String),
}

impl Refusal {
    pub(crate) fn problem(self) -> Problem {
        match self {
            Self::Invalid(reason) => super::guard::unauthorized(Some(&reason)),
            Self::Unknown(reason) => Problem::unavailable(reason, RETRY_AFTER),
        }
    }
}

/// A verified token.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) caller: Caller,
    /// When it expires, in seconds since 1970.
    pub(crate) expires_at: u64,
}

/// When a caller's token expires, in seconds since 1970. Long responses end at that time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expiry(pub(super) u64);

impl Expiry {
    /// Returns when a response must end: when the token would be refused.
    pub(crate) fn instant(self) -> Instant {
        /// An upper bound, so that adding to `Instant` cannot overflow.
        const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        // The token is still valid during the second in which it expires.
        let good_until = Duration::from_secs(self.0.saturating_add(1)).saturating_add(LEEWAY);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Instant::now() + good_until.saturating_sub(now).min(FAR)
    }
}

impl Verifier {
    /// Creates a verifier from the settings.
    ///
    /// # Errors
    /// If no HTTP client can be created for fetching the issuer's keys.
    pub fn new(settings: &Settings) -> anyhow::Result<Self> {
        let source = match &settings.keys {
            Keys::Secret(secret) => Source::Secret(DecodingKey::from_secret(secret.reveal().as_bytes())),
            Keys::Published { url, times } => Source::Published(Jwks::new(url.clone(), *times)?),
        };
        let (issuer, audience) = (settings.gateway.issuer.clone(), settings.gateway.audience.clone());
        Ok(Self { source, issuer, audience })
    }

    /// Verifies a token and returns its caller.
    pub(crate) async fn verify(&self, token: &str) -> Result<Verified, Refusal> {
        if token.len() > TOKEN_BYTES {
            return Err(Refusal::Invalid(format!("the token is longer than {TOKEN_BYTES} bytes")));
        }
        let parts = Parts::of(token).ok_or_else(|| Refusal::Invalid("the token is not a JWT".to_owned()))?;
        match &self.source {
            Source::Secret(key) => parts.verify(key, Algorithm::HS256)?,
            Source::Published(jwks) => {
                let key = jwks.key(parts.header.kid.as_deref()).await.map_err(|no_key| match no_key {
                    NoKey::Unknown => {
                        let reason = "the token is signed with a key that the issuer does not publish";
                        Refusal::Invalid(reason.to_owned())
                    }
                    NoKey::Away => Refusal::Unknown("the issuer's keys cannot be fetched".to_owned()),
                })?;
                parts.verify(&key.key, key.algorithm)?;
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let expected = Expected { issuer: &self.issuer, audience: &self.audience, now, leeway: LEEWAY.as_secs() };
        let claims = Claims::parse(&parts.payload).map_err(Refusal::Invalid)?;
        let expires_at = claims.check(&expected).map_err(Refusal::Invalid)?;
        let caller = claims.caller().map_err(Refusal::Invalid)?;
        Ok(Verified { caller, expires_at })
    }
}

/// The parts of a token (RFC 7515, section 3.1), not verified yet.
struct Parts<'t> {
    header: Header,
    payload: Vec<u8>,
    /// The signed text: header and payload as in the token.
    message: &'t str,
    signature: &'t str,
}

/// The members of a token's header that are read. The library's own type does not support `Ed25519`.
#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

impl<'t> Parts<'t> {
    fn of(token: &'t str) -> Option<Self> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        let header: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
        Some(Self { header, payload, message, signature })
    }

    /// Verifies the signature with the key's algorithm. The token must name the same algorithm and cannot choose
    /// another: otherwise a public key could be used as an HS256 secret.
    fn verify(&self, key: &DecodingKey, algorithm: Algorithm) -> Result<(), Refusal> {
        let refuse = |reason: &str| Err(Refusal::Invalid(reason.to_owned()));
        if !is_named(algorithm, &self.header.alg) {
            return refuse("the token's `alg` differs from that of the issuer's key");
        }
        // Extensions that a recipient must understand (RFC 7515, section 4.1.11): none is supported.
        if self.header.crit.is_some() {
            return refuse("the token requires extensions (`crit`) that are not supported");
        }
        match crypto::verify(self.signature, self.message.as_bytes(), key, algorithm) {
            Ok(true) => Ok(()),
            _ => refuse("the token's signature is invalid"),
        }
    }
}

/// Returns whether `name` names the algorithm in `alg` of a token or of a key. Ed25519 has two names: `EdDSA` of
/// RFC 8037, which also stands for other curves, and `Ed25519` of RFC 9864. Keys of other curves are never used.
pub(super) fn is_named(algorithm: Algorithm, name: &str) -> bool {
    match algorithm {
        Algorithm::HS256 => name == "HS256",
        Algorithm::RS256 => name == "RS256",
        Algorithm::ES256 => name == "ES256",
        Algorithm::EdDSA => matches!(name, "EdDSA" | "Ed25519"),
        _ => false,
    }
}
