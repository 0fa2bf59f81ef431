//! The connection to NATS, with errors that say how to fix them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_nats::jetstream::{self, context::ContextBuilder};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr, ServerError};
use runtime::config::{Nats, redact_url};
use tokio::sync::watch;
use tokio::time::timeout;

/// The oldest supported nats-server, as major and minor version: the first with atomic batches of publishes.
pub const OLDEST_SERVER: (u64, u64) = (2, 12);

/// Time-out of connections and requests. After it, the server is unreachable, or this user may not send the request.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Time-out of `drain`, which waits for space in the command queue of the client's task.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);
/// Number of the server's recent refusals that are kept. The server does not answer refused requests, so these explain
/// time-outs.
const REFUSALS_KEPT: usize = 8;

/// A connection to NATS that reconnects by itself. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bus {
    link: Arc<RwLock<Client>>,
    pub(crate) prefix: Arc<str>,
    /// The prefix of the subjects of JetStream's API.
    pub(crate) api_prefix: Arc<str>,
    address: Arc<Address>,
    refusals: Arc<Mutex<VecDeque<String>>>,
    /// Counts established and broken connections. A change means that subscriptions and pulls of the old one are gone.
    reconnects: Arc<watch::Sender<u64>>,
    /// Set by [`Bus::close`]. A broken connection is then expected, and logged without a warning.
    closing: Arc<AtomicBool>,
}

/// The parameters of the connection.
#[derive(Debug)]
struct Address {
    config: Nats,
    url: String,
    name: String,
}

/// Why there is no connection, and how to fix it.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No server answers at the address, or its name cannot be resolved.
    #[error(
        "no NATS server answers at {url}: {reason}. Is it running, and is NATS_URL right? `watchbook up` starts one of its own"
    )]
    Away {
        /// The URL without secrets.
        url: String,
        /// The client's error.
        reason: String,
    },
    /// The server refuses the credentials.
    #[error(
        "the NATS server at {url} refuses the sign-in: {reason}. Check NATS_CREDS, or user and password in NATS_URL or [nats]"
    )]
    Refused {
        /// The URL without secrets.
        url: String,
        /// The server's error.
        reason: String,
    },
    /// A credentials or certificate file cannot be read.
    #[error("{path}: cannot be read: {reason}")]
    File {
        /// The path of the file.
        path: String,
        /// The error.
        reason: String,
    },
    /// The server is older than [`OLDEST_SERVER`].
    #[error("the NATS server at {url} is version {version}, and Watchbook needs {}.{} or newer", OLDEST_SERVER.0, OLDEST_SERVER.1)]
    TooOld {
        /// The URL without secrets.
        url: String,
        /// The server's version.
        version: String,
    },
    /// JetStream is not enabled on the server.
    #[error(
        "JetStream is switched off on the NATS server at {url}: start it with `-js`, or with a `jetstream {{ … }}` block in its configuration, and enable it for this account"
    )]
    NoJetStream {
        /// The URL without secrets.
        url: String,
    },
}

impl Bus {
    /// Connects, and checks that the server is new enough and has JetStream. `name` is the client's name on the server.
    ///
    /// # Errors
    /// There is no connection, or the server is not usable. The error says how to fix it.
    pub async fn connect(config: &Nats, url: &str, name: &str) -> Result<Self, ConnectError> {
        let address = Address { config: config.clone(), url: url.to_owned(), name: name.to_owned() };
        let (refusals, reconnects, closing) = (Arc::default(), Arc::new(watch::channel(0).0), Arc::default());
        let client = open(&address, &refusals, &reconnects, &closing).await?;
        Ok(Self {
            link: Arc::new(RwLock::new(client)),
            prefix: Arc::from(config.prefix.as_str()),
            api_prefix: Arc::from(config.api_prefix()),
            address: Arc::new(address),
            refusals,
            reconnects,
            closing,
        })
    }

    /// Replaces the client of every clone. The client recovers from network failures by itself; this is for a client
    /// that has ended.
    ///
    /// # Errors
    /// There is no connection. The old client then stays.
    pub async fn renew(&self) -> Result<(), ConnectError> {
        let client = open(&self.address, &self.refusals, &self.reconnects, &self.closing).await?;
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = client;
        self.reconnects.send_modify(|reconnects| *reconnects += 1);
        Ok(())
    }

    /// Returns the client, for publishing and plain subscriptions.
    pub fn client(&self) -> Client {
        // A panic while the lock was held cannot have left a partial client.
        self.link.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn jetstream(&self) -> jetstream::Context {
        ContextBuilder::new().api_prefix(&*self.api_prefix).timeout(ANSWER_WITHIN).build(self.client())
    }

    /// Closes the connection of every clone, within half a second. From then on a broken connection is logged without a
    /// warning, for example when the server is stopped next.
    pub async fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        match timeout(CLOSE_WITHIN, self.client().drain()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the connection to NATS was closed already"),
            Err(_) => tracing::debug!("the connection to NATS ends with the process"),
        }
    }

    /// Returns the prefix of all subjects.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the recent refusals of the server, newest last. At most eight are kept.
    pub fn refusals(&self) -> Vec<String> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(crate) fn reconnects(&self) -> watch::Receiver<u64> {
        self.reconnects.subscribe()
    }
}

async fn open(
    address: &Address,
    refusals: &Arc<Mutex<VecDeque<String>>>,
    reconnects: &Arc<watch::Sender<u64>>,
    closing: &Arc<AtomicBool>,
) -> Result<Client, ConnectError> {
    let shown = redact_url(&address.url);
    let callback = {
        let (refusals, reconnects, closing) = (refusals.clone(), reconnects.clone(), closing.clone());
        move |event: Event| {
            record_event(&event, &refusals, &reconnects, closing.load(Ordering::Relaxed));
            async {}
        }
    };
    let options = sign_in(&address.config, &address.url)?
        .name(&address.name)
        .request_timeout(Some(ANSWER_WITHIN))
        .connection_timeout(ANSWER_WITHIN)
        .event_callback(callback);
    let client = options.connect(servers(&address.url)).await.map_err(|error| explain(&error, &shown))?;
    let info = client.server_info();
    if version(&info.version) < OLDEST_SERVER {
        return Err(ConnectError::TooOld { url: shown, version: info.version });
    }
    // In another domain or account, another server's JetStream answers. The first request shows whether it does.
    let is_elsewhere = address.config.jetstream_domain.is_some() || address.config.jetstream_api_prefix.is_some();
    if !info.jetstream && !is_elsewhere {
        return Err(ConnectError::NoJetStream { url: shown });
    }
    Ok(client)
}

fn record_event(event: &Event, refusals: &Mutex<VecDeque<String>>, reconnects: &watch::Sender<u64>, closing: bool) {
    match event {
        // Expected while the process closes the connection.
        Event::Disconnected | Event::ServerError(_) | Event::SlowConsumer(_) if closing => {
            tracing::debug!(%event, "NATS connection, while closing it");
        }
        Event::Connected => {
            let before = *reconnects.borrow();
            reconnects.send_replace(before + 1);
            if before > 0 {
                tracing::info!("connected to NATS again");
            }
        }
        Event::Disconnected => {
            reconnects.send_modify(|reconnects| *reconnects += 1);
            tracing::warn!("the connection to NATS broke; reconnecting");
        }
        Event::ServerError(error) => {
            let reason = match error {
                ServerError::AuthorizationViolation => "authorization violation".to_owned(),
                ServerError::Other(reason) => reason.clone(),
                other => other.to_string(),
            };
            tracing::warn!(reason, "the NATS server reported an error");
            let mut kept = refusals.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == REFUSALS_KEPT {
                kept.pop_front();
            }
            kept.push_back(reason);
        }
        Event::SlowConsumer(_) => tracing::warn!("NATS messages arrived faster than they were read; reading again"),
        Event::ClientError(error) => tracing::debug!(%error, "NATS client"),
        Event::LameDuckMode | Event::Draining | Event::Closed => tracing::debug!(%event, "NATS connection"),
    }
}

fn servers(url: &str) -> Vec<String> {
    url.split(',').map(|server| server.trim().to_owned()).collect()
}

/// Uses the part of a URL before its `@`: a user with a password, or a token. The client ignores it.
fn sign_in_by_url(options: ConnectOptions, url: &str) -> ConnectOptions {
    let first = servers(url).into_iter().find_map(|server| server.parse::<ServerAddr>().ok());
    match first.as_ref().map(|server| (server.username(), server.password())) {
        Some((Some(user), Some(password))) => options.user_and_password(decoded(user), decoded(password)),
        Some((Some(token), None)) => options.token(decoded(token)),
        _ => options,
    }
}

/// Decodes percent-encoding: a URL has `@`, `:` and `/` of a password as `%40`, `%3A` and `%2F`.
fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn sign_in(config: &Nats, url: &str) -> Result<ConnectOptions, ConnectError> {
    let read = |path: &std::path::Path| {
        std::fs::read_to_string(path)
            .map_err(|error| ConnectError::File { path: path.display().to_string(), reason: error.to_string() })
    };
    let mut options = ConnectOptions::new();
    if let Some(path) = &config.credentials {
        options = options
            .credentials(&read(path)?)
            .map_err(|error| ConnectError::File { path: path.display().to_string(), reason: error.to_string() })?;
    } else if let Some(path) = &config.nkey_seed_file {
        options = options.nkey(read(path)?.trim().to_owned());
    } else if let (Some(user), Some(password)) = (&config.user, &config.password) {
        options = options.user_and_password(user.clone(), password.reveal().to_owned());
    } else {
        options = sign_in_by_url(options, url);
    }
    if let Some(path) = &config.ca_file {
        options = options.add_root_certificates(path.clone()).require_tls(true);
    }
    if let (Some(certificate), Some(key)) = (&config.cert_file, &config.key_file) {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(options)
}

fn explain(error: &async_nats::ConnectError, url: &str) -> ConnectError {
    let (url, reason) = (url.to_owned(), error.to_string());
    match error.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            ConnectError::Refused { url, reason }
        }
        _ => ConnectError::Away { url, reason },
    }
}

/// Returns major and minor of a version such as `2.12.1-RC.3`. Parts that cannot be parsed are 0, and so too old.
fn version(text: &str) -> (u64, u64) {
    let mut parts = text.trim_start_matches('v').split(['.', '-']).map(|part| part.parse().unwrap_or_default());
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(version("2.12.1-RC.3"), (2, 12));
        assert!(version("2.9.25") < OLDEST_SERVER);
        assert!(version("2.15.1") > OLDEST_SERVER);
        assert!(version("strange") < OLDEST_SERVER);
    }
}
