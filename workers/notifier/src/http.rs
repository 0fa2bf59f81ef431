//! The HTTP client that receivers share, and the meaning of each response status.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url, redirect, retry as protocol_retry};
use runtime::config::Secret;
use rustls::{ClientConfig, RootCertStore};

use crate::outcome::Outcome;
use crate::retry;
use crate::secrets::{Secrets, shown};
use crate::text::{clip, one_line};

/// Maximum number of bytes read of a response body. The body is only used to explain an error.
const BODY_BYTES: usize = 4 * 1024;
/// Maximum number of characters of a response body in an error message.
const SHOWN_CHARACTERS: usize = 200;
/// Time limit for reading a response body. The status is already known, so the body can be skipped.
const BODY_WITHIN: Duration = Duration::from_secs(2);
/// The `User-Agent` header.
const USER_AGENT: &str = concat!("watchbook/", env!("CARGO_PKG_VERSION"));

/// An HTTP client with a connection pool. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    /// The client, or the reason why it could not be built. The reason becomes the problem of each attempt, because
    /// the worker must not end.
    client: Result<Client, String>,
}

/// A complete request.
#[derive(Debug)]
pub(crate) struct Call {
    url: Url,
    body: Option<Vec<u8>>,
    headers: Vec<(HeaderName, String)>,
    secrets: Secrets,
}

impl Call {
    /// Builds a GET request.
    pub(crate) fn get(url: &Secret) -> Result<Self, Outcome> {
        Self::to(url.reveal(), None)
    }

    /// Builds a POST request with a JSON body, which is already serialized because it may be signed.
    pub(crate) fn post(url: &str, body: Vec<u8>) -> Result<Self, Outcome> {
        Self::to(url, Some(body))
    }

    fn to(url: &str, body: Option<Vec<u8>>) -> Result<Self, Outcome> {
        // The parser's error does not contain the URL, which may be secret.
        let url =
            Url::parse(url).map_err(|error| Outcome::give_up(format!("the receiver's URL is invalid: {error}")))?;
        let secrets = Secrets::of_url(&url);
        Ok(Self { url, body, headers: Vec::new(), secrets })
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((HeaderName::from_static(name), value));
        self
    }

    /// Adds a text to the secrets that are removed from error messages. The secrets in the URL are included anyway.
    pub(crate) fn hiding(mut self, secret: &str) -> Self {
        self.secrets.add(secret);
        self
    }
}

impl Http {
    /// Builds a client that uses the certificate store of the system (including `SSL_CERT_FILE` and `SSL_CERT_DIR`)
    /// and the proxies of the environment.
    pub(crate) fn new() -> Self {
        let client = build();
        if let Err(problem) = &client {
            tracing::error!(problem, "cannot build the HTTP client; HTTP receivers do not work");
        }
        Self { client }
    }

    /// Sends a request and returns the outcome that its response means.
    pub(crate) async fn send(&self, call: Call) -> Outcome {
        let client = match &self.client {
            Ok(client) => client,
            Err(problem) => return Outcome::retry(problem.clone()),
        };
        let target = shown(&call.url);
        let mut request = match call.body {
            Some(body) => client.post(call.url).header(CONTENT_TYPE, "application/json").body(body),
            None => client.get(call.url),
        };
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                let unsendable = error.is_builder();
                let problem = format!("{target}: {}", call.secrets.hide(&causes(&error.without_url())));
                return if unsendable { Outcome::give_up(problem) } else { Outcome::retry(problem) };
            }
        };
        let status = response.status();
        if status.is_success() {
            return Outcome::Delivered;
        }
        let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = header.and_then(|header| retry::asked(header, SystemTime::now()));
        let said = response_excerpt(response, &call.secrets).await;
        classify(status, after, format!("{target} answered {status}{said}"))
    }
}

/// Returns the outcome for a status other than 2xx. As in Alertmanager, client errors are not retried, except for
/// the three statuses that mean "not now": 408 (RFC 9110, section 15.5.9), 425 (RFC 8470, section 5.2) and 429 (RFC
/// 6585, section 4).
fn classify(status: StatusCode, after: Option<Duration>, problem: String) -> Outcome {
    match status.as_u16() {
        408 | 425 | 429 | 500.. => Outcome::Retry { after, problem },
        300..400 => Outcome::give_up(format!(
            "{problem} (redirects are not followed, so that secrets do not reach another host)"
        )),
        _ => Outcome::GiveUp { problem },
    }
}

async fn response_excerpt(mut response: reqwest::Response, secrets: &Secrets) -> String {
    let mut body = Vec::new();
    let read = async {
        while body.len() < BODY_BYTES {
            match response.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
        false
    };
    let whole = tokio::time::timeout(BODY_WITHIN, read).await.unwrap_or(false);
    if !whole {
        // The cut may leave the beginning of a secret at the end, which a comparison would not find.
        body.truncate(body.len().min(BODY_BYTES).saturating_sub(secrets.longest()));
    }
    let said = clip(&one_line(&secrets.hide(&String::from_utf8_lossy(&body))), SHOWN_CHARACTERS);
    if said.is_empty() { said } else { format!(": {said}") }
}

/// Formats an error with its causes, such as "error sending request: connection refused".
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    one_line(&text)
}

fn build() -> Result<Client, String> {
    let mut roots = RootCertStore::empty();
    // Unreadable certificates are skipped. A connection that needs one of them fails with its own error.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("cannot set up TLS: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .user_agent(USER_AGENT)
        .tls_backend_preconfigured(tls)
        .redirect(redirect::Policy::none())
        // Retries are decided in one place only, by the notifier.
        .retry(protocol_retry::never())
        .build()
        .map_err(|error| format!("cannot set up the HTTP client: {}", causes(&error)))
}
