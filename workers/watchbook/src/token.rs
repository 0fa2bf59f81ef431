//! Tokens for the gateway: JWTs signed with the shared secret.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use chrono::Utc;
use gateway::auth::{LATEST_DATE, Role};
use jsonwebtoken::{EncodingKey, Header};
use runtime::Config;
use runtime::config::Secret;
use serde::Serialize;

use crate::commands::up::write_private;

/// How long the token of a local stack is good for: a day's work. `up` makes a new one each time.
const ADMIN_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Where a local stack keeps the secret that it made.
const SECRET_FILE: &str = "jwt_secret";

#[derive(Debug, Serialize)]
struct Claims<'c> {
    sub: &'c str,
    iss: &'c str,
    aud: &'c str,
    iat: i64,
    exp: i64,
    orgs: &'c [String],
    role: Role,
}

/// Whose a token is, and what it allows.
#[derive(Debug)]
pub(crate) struct Grant<'g> {
    pub(crate) subject: &'g str,
    pub(crate) organizations: &'g [String],
    pub(crate) role: Role,
    pub(crate) ttl: Duration,
}

/// A token of the issuer that these settings name.
///
/// # Errors
/// Where its end is beyond all time, or it cannot be signed, which would be a bug.
pub(crate) fn sign(secret: &Secret, config: &Config, grant: &Grant<'_>) -> anyhow::Result<String> {
    let now = Utc::now().timestamp();
    let end = i64::try_from(grant.ttl.as_secs()).ok().and_then(|ttl| now.checked_add(ttl));
    let end = end.filter(|end| end.unsigned_abs() <= LATEST_DATE).context("--ttl reaches behind the year 9999")?;
    let claims = Claims {
        sub: grant.subject,
        iss: &config.gateway.issuer,
        aud: &config.gateway.audience,
        iat: now,
        exp: end,
        orgs: grant.organizations,
        role: grant.role,
    };
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.reveal().as_bytes()))
        .context("sign the token")
}

/// A token that may do everything, for the person who runs the local stack.
///
/// # Errors
/// Where it cannot be signed, which would be a bug.
pub(crate) fn admin(secret: &Secret, config: &Config) -> anyhow::Result<String> {
    let organizations = ["*".to_owned()];
    let grant = Grant { subject: "admin", organizations: &organizations, role: Role::Admin, ttl: ADMIN_TTL };
    sign(secret, config, &grant)
}

/// The secret that signs tokens: the configured one, or the one that the stack in this directory made.
///
/// # Errors
/// Where the file cannot be read.
pub(crate) fn existing_secret(config: &Config, directory: &Path) -> anyhow::Result<Option<Secret>> {
    if let Some(secret) = &config.http.jwt_secret {
        return Ok(Some(secret.clone()));
    }
    let path = directory.join(SECRET_FILE);
    match std::fs::read_to_string(&path) {
        Ok(secret) => Ok(Some(Secret::new(secret.trim()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// As [`existing_secret`], or a new one that is kept in the directory.
///
/// # Errors
/// Where the file cannot be read or written.
pub(crate) fn secret(config: &Config, directory: &Path) -> anyhow::Result<Secret> {
    if let Some(secret) = existing_secret(config, directory)? {
        return Ok(secret);
    }
    let secret = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    write_private(&directory.join(SECRET_FILE), &secret)?;
    Ok(Secret::new(secret))
}
