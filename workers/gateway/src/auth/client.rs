//! The HTTP client that fetches the issuer's keys.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use reqwest::{Client, redirect};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde_json::Value;

/// Time limit of a fetch. Only requests with an unknown key wait for it.
const FETCH_WITHIN: Duration = Duration::from_secs(5);
/// Maximum size of a key set, in bytes. Real ones have some thousand bytes.
const SET_BYTES: usize = 256 * 1024;

/// Creates a client that trusts the system's root certificates, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
pub(super) fn build() -> anyhow::Result<Client> {
    let mut roots = RootCertStore::empty();
    // Unreadable certificates are not trusted. If one is needed, the connection fails with an error.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("set up TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .timeout(FETCH_WITHIN)
        // Keys are trusted because of their URL, so a redirect must not lead elsewhere.
        .redirect(redirect::Policy::none())
        .build()
        .context("set up the HTTP client for the issuer's keys")
}

/// Fetches the issuer's key set. Returns its keys undecoded.
///
/// # Errors
/// The reason, without the URL.
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
        .map_err(|error| format!("the issuer answered with an invalid key set: {error}"))?;
    Ok(published.keys)
}

/// A key set (RFC 7517, section 5). Its keys may be of unsupported types.
#[derive(Deserialize)]
struct Published {
    keys: Vec<Value>,
}
