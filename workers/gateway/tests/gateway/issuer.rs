//! An issuer that publishes its keys, and counts requests for them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A key of an issuer. These keys belong to the tests, and are of no other use.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) name: &'static str,
    pub(crate) algorithm: Algorithm,
    key: EncodingKey,
}

impl Pair {
    pub(crate) fn rsa() -> Self {
        Self {
            name: "rsa",
            algorithm: Algorithm::RS256,
            key: EncodingKey::from_rsa_der(include_bytes!("signing/rsa.der")),
        }
    }

    pub(crate) fn ec() -> Self {
        Self {
            name: "ec",
            algorithm: Algorithm::ES256,
            key: EncodingKey::from_ec_der(include_bytes!("signing/ec.der")),
        }
    }

    pub(crate) fn ed() -> Self {
        Self {
            name: "ed",
            algorithm: Algorithm::EdDSA,
            key: EncodingKey::from_ed_der(include_bytes!("signing/ed.der")),
        }
    }

    pub(crate) fn next() -> Self {
        Self {
            name: "next",
            algorithm: Algorithm::EdDSA,
            key: EncodingKey::from_ed_der(include_bytes!("signing/ed_next.der")),
        }
    }

    /// Returns a token signed by this key.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_as(Some(self.name), claims)
    }

    /// Returns a token signed by this key, with the key id of another one.
    pub(crate) fn sign_as(&self, kid: Option<&str>, claims: &Value) -> String {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }

    /// Returns a token signed by this key, with another algorithm in the header.
    pub(crate) fn sign_named(&self, alg: &str, claims: &Value) -> String {
        self.sign_with_header(&json!({ "alg": alg, "kid": self.name }), claims)
    }

    /// Returns a token signed by this key, with any header.
    pub(crate) fn sign_with_header(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }

    /// Returns the public key as it is published.
    pub(crate) fn published(&self) -> Value {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm).unwrap()).unwrap();
        jwk["kid"] = json!(self.name);
        jwk["use"] = json!("sig");
        jwk
    }
}

/// A running issuer.
#[derive(Clone)]
pub(crate) struct Issuer {
    pub(crate) address: SocketAddr,
    keys: Arc<Mutex<Vec<Value>>>,
    asked: Arc<AtomicUsize>,
    away: Arc<AtomicBool>,
}

impl Issuer {
    pub(crate) async fn start(pairs: &[Pair]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (keys, asked, away) = (Arc::default(), Arc::default(), Arc::default());
        let issuer = Self { address, keys, asked, away };
        issuer.publish(pairs.iter().map(Pair::published).collect());
        let serving = issuer.clone();
        let answer = async move || {
            serving.asked.fetch_add(1, Ordering::SeqCst);
            if serving.away.load(Ordering::SeqCst) {
                return Err(StatusCode::SERVICE_UNAVAILABLE);
            }
            Ok(json!({ "keys": *serving.keys.lock().unwrap() }).to_string())
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/keys", get(answer))).await });
        issuer
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    pub(crate) fn publish(&self, keys: Vec<Value>) {
        *self.keys.lock().unwrap() = keys;
    }

    pub(crate) fn is_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}
