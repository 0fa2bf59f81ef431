//! The issuer's public keys: fetched on demand, one fetch at a time, and kept through outages of the issuer.
//!
//! - A known, fresh key costs one lookup. A known, stale key is used while the keys are fetched in the background.
//! - A request with an unknown key waits for a fetch, so a new key works with the first token that it signs.
//! - Keys are fetched at most once per `KeyTimes::at_most_every`, whatever unknown keys requests name.
//! - A key that cannot be used is skipped, and logged once with the reason, not with each fetch. The other keys are
//!   still used (RFC 7517, section 5).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::Client;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{client, verifier};
use crate::metrics;
use crate::settings::KeyTimes;

/// Skipped keys that are logged one by one after a fetch; further ones are only counted. Real sets have a few keys.
const LOGGED: usize = 16;
/// Bytes of a string of the set that are logged.
const SHOWN_BYTES: usize = 64;
/// An Ed25519 public key, in bytes (RFC 8032, section 5.1.5).
const ED25519_BYTES: usize = 32;

/// A key with its algorithm.
pub(super) struct Key {
    pub(super) key: DecodingKey,
    pub(super) algorithm: Algorithm,
}

/// The reason why there is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoKey {
    /// The issuer does not publish a key with this id.
    Unknown,
    /// The issuer's keys were never fetched, or too long ago.
    Away,
}

/// The keys of one issuer.
#[derive(Clone)]
pub(super) struct Jwks(Arc<Inner>);

struct Inner {
    client: Client,
    url: String,
    times: KeyTimes,
    known: ArcSwapOption<KnownKeys>,
    /// Locked during a fetch. Holds the time and the result of the last fetch.
    fetching: Mutex<Option<(Instant, FetchOutcome)>>,
    /// Whether a background fetch is running.
    renewing: AtomicBool,
}

struct KnownKeys {
    keys: HashMap<String, Arc<Key>>,
    /// The key for tokens without a key id, if the set has only one key.
    only: Option<Arc<Key>>,
    skipped: BTreeSet<Skipped>,
    fetched_at: Instant,
}

/// A key that is not used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Skipped {
    /// Its id; `-` if it has none.
    kid: String,
    reason: String,
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

    /// Returns the key with this id.
    pub(super) async fn key(&self, kid: Option<&str>) -> Result<Arc<Key>, NoKey> {
        if let Some(known) = self.0.current_keys()
            && let Some(key) = known.find(kid)
        {
            if known.fetched_at.elapsed() >= self.0.times.fresh_for {
                self.renew();
            }
            return Ok(key);
        }
        let tried = self.0.fetch(kid).await;
        let known = self.0.current_keys().ok_or(NoKey::Away)?;
        match known.find(kid) {
            Some(key) => Ok(key),
            // The fetch failed, so the issuer may publish this key by now: do not report it as unknown.
            None if tried == FetchOutcome::Failed => Err(NoKey::Away),
            None => Err(NoKey::Unknown),
        }
    }

    /// Starts a background fetch, unless one is running.
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

/// The result of the last fetch, which another request may have made a moment ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FetchOutcome {
    Fetched,
    Failed,
}

impl Inner {
    /// Returns the keys, unless they are too old to be used.
    fn current_keys(&self) -> Option<Arc<KnownKeys>> {
        self.known.load_full().filter(|known| known.fetched_at.elapsed() < self.times.stale_for)
    }

    /// Fetches because a request needs this key. If another request fetched it meanwhile, uses that result.
    async fn fetch(&self, kid: Option<&str>) -> FetchOutcome {
        let seen = self.known.load_full().map(|known| known.fetched_at);
        let mut last = self.fetching.lock().await;
        let now = self.known.load_full();
        if now.as_ref().map(|known| known.fetched_at) != seen && now.is_some_and(|known| known.find(kid).is_some()) {
            return FetchOutcome::Fetched;
        }
        self.fetch_unless_just_tried(&mut last).await
    }

    async fn fetch_if_due(&self) -> FetchOutcome {
        self.fetch_unless_just_tried(&mut *self.fetching.lock().await).await
    }

    async fn fetch_unless_just_tried(&self, last: &mut Option<(Instant, FetchOutcome)>) -> FetchOutcome {
        if let Some((at, tried)) = *last
            && at.elapsed() < self.times.at_most_every
        {
            return tried;
        }
        let fetched = client::fetch(&self.client, &self.url).await;
        let (tried, outcome) =
            if fetched.is_ok() { (FetchOutcome::Fetched, "fetched") } else { (FetchOutcome::Failed, "failed") };
        // Take the time after the fetch, however long it took, so that requests that waited do not fetch again at once.
        *last = Some((Instant::now(), tried));
        ::metrics::counter!(metrics::KEY_FETCHES, "outcome" => outcome).increment(1);
        match fetched {
            Ok(keys) => {
                let known = KnownKeys::of(&keys);
                self.log_skipped(&known);
                self.known.store(Some(Arc::new(known)));
            }
            Err(error) => tracing::warn!(
                url = self.url,
                error,
                "the issuer's keys cannot be fetched; known keys are still used for a while"
            ),
        }
        tried
    }

    /// Logs keys that the previous fetch did not skip, or skipped for another reason.
    fn log_skipped(&self, known: &KnownKeys) {
        let before = self.known.load();
        let is_new = |skipped: &&Skipped| !before.as_ref().is_some_and(|before| before.skipped.contains(skipped));
        let mut new = known.skipped.iter().filter(is_new);
        for Skipped { kid, reason } in new.by_ref().take(LOGGED) {
            tracing::info!(url = self.url, kid, reason, "a key of the issuer is skipped: its tokens are refused");
        }
        let more = new.count();
        if more > 0 {
            tracing::info!(url = self.url, more, "more keys of the issuer are skipped");
        }
    }
}

impl KnownKeys {
    fn of(set: &[Value]) -> Self {
        let (mut keys, mut skipped) = (Vec::new(), BTreeSet::new());
        for jwk in set {
            let kid = jwk.get("kid").and_then(Value::as_str);
            match usable(jwk) {
                Ok(key) => keys.push((kid, Arc::new(key))),
                Err(reason) => {
                    skipped.insert(Skipped { kid: kid.map_or_else(|| "-".to_owned(), shown), reason });
                }
            }
        }
        let only = if let [(_, key)] = keys.as_slice() { Some(Arc::clone(key)) } else { None };
        let named = keys.into_iter().filter_map(|(kid, key)| Some((kid?.to_owned(), key)));
        Self { keys: named.collect(), only, skipped, fetched_at: Instant::now() }
    }

    fn find(&self, kid: Option<&str>) -> Option<Arc<Key>> {
        match kid {
            Some(kid) => self.keys.get(kid).cloned(),
            None => self.only.clone(),
        }
    }
}

/// Returns a key with a supported algorithm, or the reason why it cannot be used. A shared secret among public keys
/// cannot be used.
fn usable(published: &Value) -> Result<Key, String> {
    let member = |name: &str| published.get(name).filter(|value| !value.is_null());
    if let Some(purpose) = member("use")
        && purpose != "sig"
    {
        return Err(format!("it is not for signatures: its `use` is {}", written(purpose)));
    }
    let not_taken = || {
        let said = ["kty", "crv", "alg"].into_iter().filter_map(|name| Some((name, member(name)?)));
        let said: Vec<_> = said.map(|(name, value)| format!("`{name}` {}", written(value))).collect();
        format!("it is not a readable key for RS256, ES256 or Ed25519 ({})", said.join(", "))
    };
    let jwk = Jwk::deserialize(published).map_err(|_| not_taken())?;
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            // The library uses the first bytes without checking the length, and panics if there are too few.
            if URL_SAFE_NO_PAD.decode(&key.x).is_ok_and(|x| x.len() != ED25519_BYTES) {
                return Err(format!("its `x` does not have the {ED25519_BYTES} bytes of an Ed25519 key"));
            }
            Algorithm::EdDSA
        }
        _ => return Err(not_taken()),
    };
    // Compare `alg` as it is written: the library supports fewer names.
    if member("alg").is_some_and(|said| !said.as_str().is_some_and(|said| verifier::is_named(algorithm, said))) {
        return Err(not_taken());
    }
    let key = DecodingKey::from_jwk(&jwk).map_err(|_| "its numbers are not valid base64url".to_owned())?;
    Ok(Key { key, algorithm })
}

/// Formats a value of the set for the log.
fn written(value: &Value) -> String {
    value.as_str().map_or_else(|| "of another type than text".to_owned(), |text| format!("`{}`", shown(text)))
}

/// Returns a string of the set on one line, truncated.
fn shown(text: &str) -> String {
    text[..text.floor_char_boundary(SHOWN_BYTES)].escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_is_used_or_skipped_with_its_reason() {
        let ed = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        let with = |name: &str, value: Value| {
            let mut key = ed.clone();
            key[name] = value;
            key
        };
        for good in [
            ed.clone(),
            with("alg", json!("EdDSA")),
            with("alg", json!("Ed25519")),
            with("alg", json!(null)),
            with("use", json!("sig")),
        ] {
            assert_eq!(usable(&good).map(|key| key.algorithm), Ok(Algorithm::EdDSA), "{good}");
        }
        let oct = json!({ "kty": "oct", "alg": "HS256", "k": "c2VjcmV0" });
        for (bad, reason) in [
            (with("use", json!("enc")), "its `use` is `enc`"),
            (with("use", json!(["sig"])), "its `use` is of another type"),
            (with("alg", json!("Ed448")), "`alg` `Ed448`"),
            (with("alg", json!("HS256")), "`alg` `HS256`"),
            (with("alg", json!(7)), "`alg` of another type"),
            (with("crv", json!("Ed448")), "`crv` `Ed448`"),
            (with("crv", json!("X25519")), "`crv` `X25519`"),
            (with("x", json!("AAAA")), "32 bytes"),
            (with("x", json!("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURoA")), "32 bytes"),
            (with("x", json!("no base64!")), "base64url"),
            (with("kty", json!("A\nK")), "`kty` `A\\nK`"),
            (oct, "`kty` `oct`"),
            (json!("no key"), "or Ed25519 ()"),
        ] {
            let refused = usable(&bad).map(|key| key.algorithm).unwrap_err();
            assert!(refused.contains(reason) && !refused.contains("c2VjcmV0"), "{bad}: {refused}");
        }
    }
}
