//! `Idempotency-Key`: a repeated request publishes the same records.
//!
//! The guarantee: within 24 hours of a key's first request, if the same caller posts the same body to the same kind and
//! organization with the same key, the records get the same ids and times, whichever gateway responds. They are stored
//! once, and the response is the same. Another body with the same key is rejected, unless the first request had invalid
//! records: then nothing was published. A record keeps its own `id` and time. Without a key, records that have both, or
//! a UUIDv7 as `id`, are as safe to repeat.

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

/// Maximum length of a key, in bytes. A UUID has 36.
const KEY_BYTES: usize = 255;

/// Returns the key of a request, if it has one.
///
/// # Errors
/// 400 for an invalid or repeated header.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=KEY_BYTES).contains(&key.len()));
    match (key, values.next()) {
        (Some(key), None) => Ok(Some(key.to_owned())),
        _ => Err(Problem::parameters(vec![Fault::of("Idempotency-Key", "expected once, 1 to 255 bytes of ASCII")])),
    }
}

/// The identity of a request, from which records without an `id` or a time get theirs.
#[derive(Debug)]
pub(super) struct Identity {
    digest: Vec<u8>,
    known: StoredKey,
}

impl Identity {
    /// Stores the key of a request, or finds the time of its first request. `of_body` is the digest of everything that
    /// the records are made of.
    ///
    /// # Errors
    /// 422 if the key was used with another body; 503 for an error of the database.
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
            let detail = "this Idempotency-Key was used with another body before: a new request needs a new key";
            let (status, name) = (StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused");
            return Err(Problem::new(status, name, "Idempotency-Key used twice", detail));
        }
        Ok(Self { digest, known })
    }

    /// Removes the key of an invalid request, of which nothing was published, so that a corrected request can use it.
    pub(super) async fn take_back(&self, app: &App) {
        // If this fails, the corrected request needs another key: it gets a 422 that says so.
        if let Err(error) = idempotency::take_back(&app.pool, &self.digest, &self.known).await {
            tracing::debug!(error = store::describe(&error), "the key of an invalid request cannot be removed");
        }
    }

    /// Returns the id and the time for one record of the request.
    pub(super) fn of(&self, index: usize) -> (Uuid, DateTime<Utc>) {
        // Include the time: a key that is reused after 24 hours creates other records.
        let mut name = self.digest.clone();
        name.extend_from_slice(&self.known.first_at.timestamp_micros().to_be_bytes());
        name.extend_from_slice(&(index as u64).to_be_bytes());
        (Uuid::new_v5(&Uuid::NAMESPACE_OID, &name), self.known.first_at)
    }
}

/// Returns a digest over parts with their lengths, so that no two lists of parts have the same encoding.
pub(super) fn digest(parts: &[&[u8]]) -> Vec<u8> {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().to_vec()
}
