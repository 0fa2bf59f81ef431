//! `Idempotency-Key`: the same request sent again makes the same records.
//!
//! What is guaranteed: within 24 hours of a key's first request, the same caller posting the same body to the same kind
//! and organization under the same key makes records of the same ids and times, whichever gateway answers; so they are
//! stored once, and the answer is the same. Another body under the same key is refused, unless the first had records that
//! are not valid: then nothing was done. A record's own `id` and time stay; without the key, records that have both, or a
//! UUIDv7, are as safe to send again.

use axum::http::{HeaderMap, StatusCode};
use chrono::{DateTime, Utc};
use records::Kind;
use sha2::{Digest, Sha256};
use store::idempotency::{self, StoredKey};
use uuid::Uuid;

use super::IDEMPOTENCY_KEY;
use crate::app::App;
use crate::auth::Caller;
use crate::problem::{Fault, Problem};

/// A key at the most: a UUID has 36.
const KEY_BYTES: usize = 255;

/// The key of a request, where it has one.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=KEY_BYTES).contains(&key.len()));
    match (key, values.next()) {
        (Some(key), None) => Ok(Some(key.to_owned())),
        _ => Err(Problem::parameters(vec![Fault::of("Idempotency-Key", "expected once, 1 to 255 bytes of ASCII")])),
    }
}

/// What records get that have no identity of their own.
#[derive(Debug)]
pub(super) struct Identity {
    digest: Vec<u8>,
    known: StoredKey,
}

impl Identity {
    /// Remembers a request by its key, or finds when it came first. `of_body` is the digest of all that its records are
    /// made of.
    pub(super) async fn remember(
        app: &App,
        caller: &Caller,
        organization: &str,
        kind: Kind,
        key: &str,
        of_body: &[u8],
    ) -> Result<Self, Problem> {
        let digest =
            digest(&[caller.subject.as_bytes(), organization.as_bytes(), kind.name().as_bytes(), key.as_bytes()]);
        let known = idempotency::remember(&app.pool, &digest, of_body).await;
        let known = known.map_err(|error| Problem::of_database(&error))?;
        if known.body != of_body {
            let detail = "this Idempotency-Key came with another body before: a new request needs a new key";
            let (status, name) = (StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused");
            return Err(Problem::new(status, name, "Idempotency-Key used twice", detail));
        }
        Ok(Self { digest, known })
    }

    /// Nothing was published: what is sent next under this key, mended, is the request.
    pub(super) async fn take_back(&self, app: &App) {
        // Where that fails the mended one needs another key, and is told so.
        if let Err(error) = idempotency::take_back(&app.pool, &self.digest, &self.known).await {
            tracing::debug!(error = store::describe(&error), "a key stays known whose records were not valid");
        }
    }

    /// The identity of one record of the request.
    pub(super) fn of(&self, index: usize) -> (Uuid, DateTime<Utc>) {
        // The time is in it: a key that is used again after its day makes other records.
        let mut name = self.digest.clone();
        name.extend_from_slice(&self.known.first_at.timestamp_micros().to_be_bytes());
        name.extend_from_slice(&(index as u64).to_be_bytes());
        (Uuid::new_v5(&Uuid::NAMESPACE_OID, &name), self.known.first_at)
    }
}

/// Over parts with their lengths, so that no two lists of parts look the same.
pub(super) fn digest(parts: &[&[u8]]) -> Vec<u8> {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().to_vec()
}
