//! Whether a token is the issuer's, and still good.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use tokio::time::Instant;

use super::Caller;
use super::claims::Claims;
use super::jwks::{Jwks, NoKey};
use crate::problem::Problem;
use crate::settings::{Keys, Settings};

/// A token's length at the most. Ours have 300 bytes; with many organizations some thousand.
pub(crate) const TOKEN_BYTES: usize = 8 * 1024;
/// By how much the clocks of issuer and gateway may differ: machines that keep time at all differ by less.
const LEEWAY: Duration = Duration::from_secs(30);
/// When to ask again while the issuer's keys cannot be had.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Checks tokens. One issuer, and one way in which it signs.
#[derive(Debug)]
pub struct Verifier {
    source: Source,
}

enum Source {
    Secret {
        key: DecodingKey,
        validation: Box<Validation>,
    },
    /// With what is asked of a token for each way in which a published key may sign.
    Published {
        jwks: Jwks,
        validations: Box<[Validation; 3]>,
    },
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Secret { .. } => f.write_str("Secret"),
            Self::Published { jwks, .. } => jwks.fmt(f),
        }
    }
}

/// Why there is no caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The token is not good; why, in words that are safe to tell.
    Invalid(String),
    /// Nobody can tell now: the issuer's keys are not known.
    Unknown(String),
}

impl Refusal {
    pub(crate) fn problem(self) -> Problem {
        match self {
            Self::Invalid(reason) => super::guard::unauthorized(Some(&reason)),
            Self::Unknown(reason) => Problem::unavailable(reason, ASK_AGAIN),
        }
    }
}

/// A token that is good.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) caller: Caller,
    /// Until when, in seconds since 1970.
    pub(crate) expires_at: u64,
}

/// Until when a caller's token is good, in seconds since 1970: for answers that outlast it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expiry(pub(super) u64);

impl Expiry {
    /// When an answer has to end: when the token would be refused.
    pub(crate) fn instant(self) -> Instant {
        /// Further ahead nothing is planned.
        const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        // The second in which it expires is still a good one.
        let good_until = Duration::from_secs(self.0.saturating_add(1)).saturating_add(LEEWAY);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Instant::now() + good_until.saturating_sub(now).min(FAR)
    }
}

impl Verifier {
    /// As it is configured.
    ///
    /// # Errors
    /// Where the issuer could not be asked for its keys, because this machine can make no HTTP requests.
    pub fn new(settings: &Settings) -> anyhow::Result<Self> {
        let (issuer, audience) = (settings.gateway.issuer.clone(), settings.gateway.audience.clone());
        let source = match &settings.keys {
            Keys::Secret(secret) => Source::Secret {
                key: DecodingKey::from_secret(secret.reveal().as_bytes()),
                validation: Box::new(validation(Algorithm::HS256, &issuer, &audience)),
            },
            Keys::Published { url, times } => Source::Published {
                jwks: Jwks::new(url.clone(), *times)?,
                validations: Box::new(
                    [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA]
                        .map(|algorithm| validation(algorithm, &issuer, &audience)),
                ),
            },
        };
        Ok(Self { source })
    }

    /// Who a token says that its bearer is.
    pub(crate) async fn verify(&self, token: &str) -> Result<Verified, Refusal> {
        if token.len() > TOKEN_BYTES {
            return Err(Refusal::Invalid(format!("the token is longer than {TOKEN_BYTES} bytes")));
        }
        let header =
            jsonwebtoken::decode_header(token).map_err(|_| Refusal::Invalid("the token is no JWT".to_owned()))?;
        let claims = match &self.source {
            Source::Secret { key, validation } => decode(token, key, validation)?,
            Source::Published { jwks, validations } => {
                let key = jwks.key(header.kid.as_deref()).await.map_err(|no_key| match no_key {
                    NoKey::Unknown => unknown_key(),
                    NoKey::Away => Refusal::Unknown("the issuer's keys cannot be fetched".to_owned()),
                })?;
                // The key says how it signs, and never the token: what is public in it could sign HS256 otherwise.
                let validation = validations.iter().find(|validation| validation.algorithms == [key.algorithm]);
                decode(token, &key.key, validation.ok_or_else(unknown_key)?)?
            }
        };
        let expires_at = claims.exp;
        let caller = claims.caller().map_err(|reason| Refusal::Invalid(reason.to_owned()))?;
        Ok(Verified { caller, expires_at })
    }
}

fn unknown_key() -> Refusal {
    Refusal::Invalid("the token is signed with a key that the issuer does not publish".to_owned())
}

fn validation(algorithm: Algorithm, issuer: &str, audience: &str) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.set_required_spec_claims(&["sub", "exp", "iss", "aud"]);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    validation.validate_nbf = true;
    validation.leeway = LEEWAY.as_secs();
    validation
}

fn decode(token: &str, key: &DecodingKey, validation: &Validation) -> Result<Claims, Refusal> {
    let decoded = jsonwebtoken::decode::<Claims>(token, key, validation);
    decoded.map(|data| data.claims).map_err(|error| Refusal::Invalid(words(error.kind())))
}

/// What is told of a bad token: enough to mend it, nothing of it or of our keys.
fn words(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::ExpiredSignature => "the token has expired".to_owned(),
        ErrorKind::ImmatureSignature => "the token is not good yet".to_owned(),
        ErrorKind::InvalidIssuer => "the token is of another issuer".to_owned(),
        ErrorKind::InvalidAudience => "the token is made for somebody else".to_owned(),
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
            "the token is signed in a way that its issuer does not use".to_owned()
        }
        ErrorKind::MissingRequiredClaim(claim) => format!("the token has no `{claim}`"),
        ErrorKind::Json(_) | ErrorKind::InvalidClaimFormat(_) => {
            "the token lacks a claim, or has one of the wrong type: `sub`, `exp`, `iss`, `aud` and `role` have to be there"
                .to_owned()
        }
        _ => "the token's signature is not its issuer's".to_owned(),
    }
}
