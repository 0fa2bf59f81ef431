//! The issuer's public keys: fetched when they are needed, by one at a time, and kept through its outages.
//!
//! - A key that is known and fresh costs one look. One that is known and not fresh is used, while somebody fetches.
//! - A key that is not known makes its bearer wait for a fetch: a new key works with the first token that it signs.
//! - Nobody fetches more often than `KeyTimes::at_most_every`, whatever keys are invented.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::Client;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::client;
use crate::metrics;
use crate::settings::KeyTimes;

/// A key, and the one way in which it signs.
pub(super) struct Key {
    pub(super) key: DecodingKey,
    pub(super) algorithm: Algorithm,
}

/// Why there is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoKey {
    /// The issuer publishes none of this name.
    Unknown,
    /// Its keys are not known, or were not for too long.
    Away,
}

/// The keys of one issuer.
#[derive(Clone)]
pub(super) struct Jwks(Arc<Inner>);

struct Inner {
    client: Client,
    url: String,
    times: KeyTimes,
    known: ArcSwapOption<Known>,
    /// Held by whoever fetches; when that was tried last, and how it ended.
    fetching: Mutex<Option<(Instant, Tried)>>,
    /// Whether somebody fetches beside the requests.
    renewing: AtomicBool,
}

struct Known {
    keys: HashMap<String, Arc<Key>>,
    /// For tokens that name no key, where there is only one.
    only: Option<Arc<Key>>,
    fetched_at: Instant,
}

impl std::fmt::Debug for Jwks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jwks").field("url", &self.0.url).finish_non_exhaustive()
    }
}

impl Jwks {
    pub(super) fn new(url: String, times: KeyTimes) -> anyhow::Result<Self> {
        let client = client::build()?;
        let (known, fetching, renewing) = (ArcSwapOption::empty(), Mutex::new(None), AtomicBool::new(false));
        Ok(Self(Arc::new(Inner { client, url, times, known, fetching, renewing })))
    }

    /// The key of this name.
    pub(super) async fn key(&self, kid: Option<&str>) -> Result<Arc<Key>, NoKey> {
        if let Some(known) = self.0.believed()
            && let Some(key) = known.find(kid)
        {
            if known.fetched_at.elapsed() >= self.0.times.fresh_for {
                self.renew();
            }
            return Ok(key);
        }
        let tried = self.0.fetch(kid).await;
        let known = self.0.believed().ok_or(NoKey::Away)?;
        match known.find(kid) {
            Some(key) => Ok(key),
            // What the issuer would say now nobody knows; that the bearer lies nobody should say.
            None if tried == Tried::Failed => Err(NoKey::Away),
            None => Err(NoKey::Unknown),
        }
    }

    /// Fetches beside the requests, unless somebody does.
    fn renew(&self) {
        if self.0.renewing.swap(true, Ordering::AcqRel) {
            return;
        }
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            inner.fetch_if_due().await;
            inner.renewing.store(false, Ordering::Release);
        });
    }
}

/// How the last fetch ended, which may be that of somebody else a moment ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tried {
    Fetched,
    Failed,
}

impl Inner {
    /// The keys, unless they are too old to be believed.
    fn believed(&self) -> Option<Arc<Known>> {
        self.known.load_full().filter(|known| known.fetched_at.elapsed() < self.times.stale_for)
    }

    /// Fetches for somebody who needs this key. Who waited for another's fetch is content with what that found.
    async fn fetch(&self, kid: Option<&str>) -> Tried {
        let seen = self.known.load_full().map(|known| known.fetched_at);
        let mut last = self.fetching.lock().await;
        let now = self.known.load_full();
        if now.as_ref().map(|known| known.fetched_at) != seen && now.is_some_and(|known| known.find(kid).is_some()) {
            return Tried::Fetched;
        }
        self.fetch_unless_just_tried(&mut last).await
    }

    async fn fetch_if_due(&self) -> Tried {
        self.fetch_unless_just_tried(&mut *self.fetching.lock().await).await
    }

    async fn fetch_unless_just_tried(&self, last: &mut Option<(Instant, Tried)>) -> Tried {
        if let Some((at, tried)) = *last
            && at.elapsed() < self.times.at_most_every
        {
            return tried;
        }
        let fetched = client::fetch(&self.client, &self.url).await;
        let (tried, outcome) = if fetched.is_ok() { (Tried::Fetched, "fetched") } else { (Tried::Failed, "failed") };
        // After the fetch, however long it took: who waited for it does not fetch again at once.
        *last = Some((Instant::now(), tried));
        ::metrics::counter!(metrics::KEY_FETCHES, "outcome" => outcome).increment(1);
        match fetched {
            Ok(set) => self.known.store(Some(Arc::new(Known::of(&set)))),
            Err(error) => tracing::warn!(
                url = self.url,
                error,
                "the issuer's keys cannot be fetched; those that are known are used for a while"
            ),
        }
        tried
    }
}

impl Known {
    fn of(set: &JwkSet) -> Self {
        let usable: Vec<_> = set.keys.iter().filter_map(|jwk| Some((jwk, Arc::new(usable(jwk)?)))).collect();
        let only = if let [(_, key)] = usable.as_slice() { Some(Arc::clone(key)) } else { None };
        let named = usable.into_iter().filter_map(|(jwk, key)| Some((jwk.common.key_id.clone()?, key)));
        Self { keys: named.collect(), only, fetched_at: Instant::now() }
    }

    fn find(&self, kid: Option<&str>) -> Option<Arc<Key>> {
        match kid {
            Some(kid) => self.keys.get(kid).cloned(),
            None => self.only.clone(),
        }
    }
}

/// A key that signs in one of the ways that we take. A shared secret among public keys is none.
fn usable(jwk: &Jwk) -> Option<Key> {
    if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return None;
    }
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        _ => return None,
    };
    if jwk.common.key_algorithm.is_some_and(|said| said != named) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some(Key { key, algorithm })
}
