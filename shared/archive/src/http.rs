//! The HTTP client under a bucket.

use std::sync::Arc;
use std::time::Duration;

use object_store::client::{ClientConfigKey, HttpClient, HttpConnector};
use object_store::{ClientOptions, Error};
use reqwest::{Client, redirect, retry};
use rustls::{ClientConfig, RootCertStore};

/// A server that is there takes a connection in far less, across an ocean too.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// Silence after which a request is lost. It holds the time that a piece of the upload takes to be sent, so it is
/// what 8 MiB take at 1.2 Mbit/s.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Makes clients that bring their own TLS, so that nothing has to be installed for the whole process.
#[derive(Debug)]
pub(crate) struct Connector;

impl HttpConnector for Connector {
    /// Of the options only this one is heeded: whether requests may go unencrypted. Proxies are those of the environment.
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allow_http = options.get_config_value(&ClientConfigKey::AllowHttp);
        let client = build(allow_http.as_deref() == Some("true"));
        client.map(HttpClient::new).map_err(|source| Error::Generic { store: "S3", source })
    }
}

fn build(allow_http: bool) -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    // What this machine trusts, `SSL_CERT_FILE` and `SSL_CERT_DIR` included. A certificate that cannot be read is one
    // that is not trusted; the connection says so.
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
        // A request is signed for one host, so none can be sent on to another.
        .redirect(redirect::Policy::none())
        // The store counts its tries itself.
        .retry(retry::never())
        // Bytes are to arrive as they are stored, whatever else is compiled in.
        .no_gzip()
        .no_brotli()
        .no_deflate()
        .no_zstd()
        .build()?;
    Ok(client)
}
