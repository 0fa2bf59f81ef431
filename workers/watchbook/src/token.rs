//! Tokens for the gateway: JWTs signed with the shared secret.

use std::time::Duration;

use anyhow::Context;
use chrono::Utc;
use jsonwebtoken::{EncodingKey, Header};
use runtime::config::Secret;
use serde::Serialize;

/// Who issues our tokens, and for whom.
const ISSUER: &str = "watchbook";
/// How long the token of a local stack is good for: a day's work. `up` makes a new one each time.
const ADMIN_TTL: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, Serialize)]
struct Claims<'c> {
    sub: &'c str,
    iss: &'static str,
    aud: &'static str,
    iat: i64,
    exp: i64,
    orgs: &'c [&'c str],
    role: &'static str,
}

/// A token that may do everything, for the person who runs the local stack.
///
/// # Errors
/// Where it cannot be signed, which would be a bug.
pub(crate) fn admin(secret: &Secret) -> anyhow::Result<String> {
    let now = Utc::now().timestamp();
    let exp = now + i64::try_from(ADMIN_TTL.as_secs()).unwrap_or_default();
    let claims = Claims { sub: "admin", iss: ISSUER, aud: ISSUER, iat: now, exp, orgs: &["*"], role: "admin" };
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.reveal().as_bytes()))
        .context("sign the token")
}
