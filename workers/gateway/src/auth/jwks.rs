//! The issuer's public keys: fetched when they are needed, by one at a time, and kept through its outages.
//!
//! - A key that is known and fresh costs one look. One that is known and not fresh is used, while somebody fetches.
//! - A key that is not known makes its bearer wait for a fetch: a new key works with the first token that it signs.
//! - Nobody fetches more often than `KeyTimes::at_most_every`, whatever keys are invented.
//! - A key that cannot be used is skipped, and logged once with its reason, not with each fetch. The others are as good
//!   as they are (RFC 7517, section 5).

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

/// Skipped keys that are logged one by one after a fetch; more are only counted. Real sets have a handful of keys.
const LOGGED: usize = 16;
/// What of a text of the set is logged, in bytes.
const SHOWN_BYTES: usize = 64;
/// An Ed25519 public key, in bytes (RFC 8032, section 5.1.5).
const ED25519_BYTES: usize = 32;

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
    known: ArcSwapOption<KnownKeys>,
    /// Held by whoever fetches; when that was tried last, and how it ended.
    fetching: Mutex<Option<(Instant, FetchOutcome)>>,
    /// Whether somebody fetches beside the requests.
    renewing: AtomicBool,
}

struct KnownKeys {
    keys: HashMap<String, Arc<Key>>,
    /// For tokens that name no key, where there is only one.
    only: Option<Arc<Key>>,
    skipped: BTreeSet<Skipped>,
    fetched_at: Instant,
}

/// A key that is not used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Skipped {
    /// Its name; `-` where it has none.
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

    /// The key of this name.
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
            // What the issuer would say now nobody knows; that the bearer lies nobody should say.
            None if tried == FetchOutcome::Failed => Err(NoKey::Away),
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
enum FetchOutcome {
    Fetched,
    Failed,
}

impl Inner {
    /// The keys, unless they are too old to be believed.
    fn current_keys(&self) -> Option<Arc<KnownKeys>> {
        self.known.load_full().filter(|known| known.fetched_at.elapsed() < self.times.stale_for)
    }

    /// Fetches for somebody who needs this key. Who waited for another's fetch is content with what that found.
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
        // After the fetch, however long it took: who waited for it does not fetch again at once.
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
                "the issuer's keys cannot be fetched; those that are known are used for a while"
            ),
        }
        tried
    }

    /// Logs the keys that are skipped now and were not after the fetch before, or for another reason.
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

/// A key that signs in one of the ways that we take, or why it is none. A shared secret among public keys is none.
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
        format!("it is no key for RS256, ES256 or Ed25519 that can be read ({})", said.join(", "))
    };
    let jwk = Jwk::deserialize(published).map_err(|_| not_taken())?;
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            // The library takes the first bytes of whatever is there, and panics where these are too few.
            if URL_SAFE_NO_PAD.decode(&key.x).is_ok_and(|x| x.len() != ED25519_BYTES) {
                return Err(format!("its `x` is not of {ED25519_BYTES} bytes, as a key of Ed25519 is"));
            }
            Algorithm::EdDSA
        }
        _ => return Err(not_taken()),
    };
    // As it is written: the library knows fewer names.
    if member("alg").is_some_and(|said| !said.as_str().is_some_and(|said| verifier::is_named(algorithm, said))) {
        return Err(not_taken());
    }
    let key = DecodingKey::from_jwk(&jwk).map_err(|_| "its numbers are not written in base64url".to_owned())?;
    Ok(Key { key, algorithm })
}

/// A value of the set, for the log.
fn written(value: &Value) -> String {
    value.as_str().map_or_else(|| "of another type than text".to_owned(), |text| format!("`{}`", shown(text)))
}

/// A text of the set, in one line and not too long for one.
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
            (json!("no key"), "that can be read ()"),
        ] {
            let refused = usable(&bad).map(|key| key.algorithm).unwrap_err();
            assert!(refused.contains(reason) && !refused.contains("c2VjcmV0"), "{bad}: {refused}");
        }
    }
}
