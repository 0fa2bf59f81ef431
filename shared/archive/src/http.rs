//! The HTTP client for buckets.

use std::sync::Arc;
use std::time::Duration;

use object_store::client::{ClientConfigKey, HttpClient, HttpConnector};
use object_store::{ClientOptions, Error};
use reqwest::{Client, redirect, retry};
use rustls::{ClientConfig, RootCertStore};

/// Time limit for connecting. A reachable server needs far less, even across an ocean.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// Time limit for a response. It includes the time to send an 8 MiB part of an upload, at 1.2 Mbit/s or more.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Builds clients with their own TLS configuration, so that no process-wide one must be installed.
#[derive(Debug)]
pub(crate) struct Connector;

impl HttpConnector for Connector {
    /// Only the option that allows unencrypted requests is used. The proxies are those of the environment.
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allow_http = options.get_config_value(&ClientConfigKey::AllowHttp);
        let client = build(allow_http.as_deref() == Some("true"));
        client.map(HttpClient::new).map_err(|source| Error::Generic { store: "S3", source })
    }
}

fn build(allow_http: bool) -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    // The certificate store of the system, including `SSL_CERT_FILE` and `SSL_CERT_DIR`. Unreadable certificates
    // are skipped; a connection that needs one of them fails with its own error.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Client::builder()
        .tls_backend_preconfigured(tls)
        .https_only(!allow_http)
        .http1_only()
        .connect_timeout(CONNECT_WITHIN)
        .read_timeout(ANSWER_WITHIN)
        // A request is signed for one host, so it cannot be redirected to another.
        .redirect(redirect::Policy::none())
        // `object_store` retries by itself.
        .retry(retry::never())
        // The bytes must arrive as they are stored, whichever features other crates enable.
        .no_gzip()
        .no_brotli()
        .no_deflate()
        .no_zstd()
        .build()?;
    Ok(client)
}
