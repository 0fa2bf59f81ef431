//! What all receivers that speak HTTP share: one client, and one answer to what a status means.

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

/// Of an answer's body. It is only read for what it says about a refusal.
const BODY_BYTES: usize = 4 * 1024;
/// Of that, in a problem.
const SHOWN_CHARACTERS: usize = 200;
/// A body that does not come says nothing; the status has been said already.
const BODY_WITHIN: Duration = Duration::from_secs(2);
/// Who we are.
const USER_AGENT: &str = concat!("watchbook/", env!("CARGO_PKG_VERSION"));

/// A client with its pool of connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    /// Why there is none stands in each try: nothing but the stop token ends a worker.
    client: Result<Client, String>,
}

/// A request, complete.
#[derive(Debug)]
pub(crate) struct Call {
    url: Url,
    body: Option<Vec<u8>>,
    headers: Vec<(HeaderName, String)>,
    secrets: Secrets,
}

impl Call {
    /// Fetches a URL.
    pub(crate) fn get(url: &Secret) -> Result<Self, Outcome> {
        Self::to(url.reveal(), None)
    }

    /// Posts a JSON body, which is serialized already because it may be signed.
    pub(crate) fn post(url: &str, body: Vec<u8>) -> Result<Self, Outcome> {
        Self::to(url, Some(body))
    }

    fn to(url: &str, body: Option<Vec<u8>>) -> Result<Self, Outcome> {
        // The parser's error says what is wrong and not what was read.
        let url = Url::parse(url).map_err(|error| Outcome::give_up(format!("the receiver's URL is none: {error}")))?;
        let secrets = Secrets::of_url(&url);
        Ok(Self { url, body, headers: Vec::new(), secrets })
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((HeaderName::from_static(name), value));
        self
    }

    /// Hides a text from every problem, beside what the URL holds.
    pub(crate) fn hiding(mut self, secret: &str) -> Self {
        self.secrets.add(secret);
        self
    }
}

impl Http {
    /// A client that trusts what this machine trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` included) and uses the
    /// proxies of the environment.
    pub(crate) fn new() -> Self {
        let client = build();
        if let Err(problem) = &client {
            tracing::error!(problem, "no receiver can be reached by HTTP");
        }
        Self { client }
    }

    /// Sends a request, and says what its answer means.
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
        let said = what_it_said(response, &call.secrets).await;
        judge(status, after, format!("{target} answered {status}{said}"))
    }
}

/// What a status other than 2xx means. As Alertmanager does, what the client did wrong is not tried again, but for
/// the three that say "not now": RFC 9110, section 15.5.9; RFC 8470, section 5.2; RFC 6585, section 4.
fn judge(status: StatusCode, after: Option<Duration>, problem: String) -> Outcome {
    match status.as_u16() {
        408 | 425 | 429 | 500.. => Outcome::Retry { after, problem },
        300..400 => Outcome::give_up(format!("{problem} (redirects are not followed: a secret must not travel)")),
        _ => Outcome::GiveUp { problem },
    }
}

async fn what_it_said(mut response: reqwest::Response, secrets: &Secrets) -> String {
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
        // At the cut there may be the beginning of a secret, which no comparison would find.
        body.truncate(body.len().min(BODY_BYTES).saturating_sub(secrets.longest()));
    }
    let said = clip(&one_line(&secrets.hide(&String::from_utf8_lossy(&body))), SHOWN_CHARACTERS);
    if said.is_empty() { said } else { format!(": {said}") }
}

/// An error with its causes, each of which says a part: "error sending request: connection refused".
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
    // A certificate that cannot be read is one that is not trusted; the connection says so.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .user_agent(USER_AGENT)
        .tls_backend_preconfigured(tls)
        .redirect(redirect::Policy::none())
        // One stage owns the retrying, and this is not it.
        .retry(protocol_retry::never())
        .build()
        .map_err(|error| format!("the HTTP client cannot be set up: {}", causes(&error)))
}
