//! How the issuer is asked for its keys.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use reqwest::{Client, redirect};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde_json::Value;

/// What a fetch may take: nobody waits for it but who brings a key that is not known.
const FETCH_WITHIN: Duration = Duration::from_secs(5);
/// A set of keys at the most. Real ones have some thousand bytes.
const SET_BYTES: usize = 256 * 1024;

/// A client that trusts what this machine trusts, `SSL_CERT_FILE` and `SSL_CERT_DIR` included.
pub(super) fn build() -> anyhow::Result<Client> {
    let mut roots = RootCertStore::empty();
    // A certificate that cannot be read is one that is not trusted; the connection says so.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("set up TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .timeout(FETCH_WITHIN)
        // Keys are believed because of where they come from.
        .redirect(redirect::Policy::none())
        .build()
        .context("set up the HTTP client for the issuer's keys")
}

/// Fetches the keys that an issuer publishes, as they stand in its set.
pub(super) async fn fetch(client: &Client, url: &str) -> Result<Vec<Value>, String> {
    let mut response = client.get(url).send().await.map_err(|error| error.without_url().to_string())?;
    if !response.status().is_success() {
        return Err(format!("the issuer answered {}", response.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| error.without_url().to_string())? {
        if body.len() + chunk.len() > SET_BYTES {
            return Err(format!("the issuer answered with more than {SET_BYTES} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    let published: Published = serde_json::from_slice(&body)
        .map_err(|error| format!("the issuer answered with what is no set of keys: {error}"))?;
    Ok(published.keys)
}

/// A set of keys, each of which may be of a kind that nobody here knows.
#[derive(Deserialize)]
struct Published {
    keys: Vec<Value>,
}
