//! Connecting, and the limits of a publisher.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr, ToServerAddrs};
use tokio::sync::watch;

use crate::wire::{Denials, Wire};
use crate::{PublishError, Publisher};

/// The reason why a connection could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A setting or a server URL is invalid.
    #[error("cannot connect: {0}")]
    Setting(String),
    /// The credentials file cannot be read or parsed.
    #[error("cannot read the credentials file {}: {source}", path.display())]
    Credentials {
        /// Path of the file.
        path: PathBuf,
        /// The error of the operating system or the parser.
        source: std::io::Error,
    },
    /// The server could not be reached, or it refused the connection.
    #[error("cannot connect to NATS: {0}")]
    Connect(#[from] async_nats::ConnectError),
}

/// The limits of a publisher. The defaults suit most producers.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) ack_timeout: Duration,
    pub(crate) attempts: u32,
    pub(crate) batch_records: usize,
    pub(crate) batch_bytes: usize,
    pub(crate) batches_in_flight: usize,
    pub(crate) acks_in_flight: usize,
}

/// JetStream's maximum number of messages in an atomic batch.
const MAX_BATCH_RECORDS: usize = 1_000;

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A healthy server answers within milliseconds; a leader election in a cluster takes seconds.
            ack_timeout: Duration::from_secs(5),
            attempts: 3,
            batch_records: MAX_BATCH_RECORDS,
            // The server stages a batch in memory, and a retry sends all of it again.
            batch_bytes: 4 * 1024 * 1024,
            // Enough to hide the round trip. A stream allows 50 open batches for all producers together.
            batches_in_flight: 4,
            // Well below the 5,000 unacknowledged messages at which the client starts to block.
            acks_in_flight: 1_024,
        }
    }
}

/// Configures a [`Publisher`]. Start with [`Publisher::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    prefix: String,
    organization: Option<String>,
    source: Option<String>,
    options: ConnectOptions,
    credentials_file: Option<PathBuf>,
    domain: Option<String>,
    limits: Limits,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            prefix: "watchbook".to_owned(),
            organization: None,
            source: None,
            options: ConnectOptions::new().name("watchbook publisher"),
            credentials_file: None,
            domain: None,
            limits: Limits::default(),
        }
    }
}

impl Builder {
    /// Sets the prefix of all subjects. It consists of one or more subject tokens without wildcards. Default:
    /// `watchbook`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The JetStream domain of the streams, as `nats --js-domain`; any unless set.
    ///
    /// Records travel on their own subjects and need no domain to arrive. With one set, an acknowledgement by a
    /// stream of another domain is a [`PublishError::OtherDomain`]: a leaf node may have streams of its own that take
    /// the same subjects, and answer sooner.
    pub fn jetstream_domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// Sets the organization of the records (`[A-Za-z0-9_-]{1,64}`). [`Publisher::for_organization`] overrides it.
    /// Default: none, which is the subject token `_`.
    pub fn organization(mut self, organization: impl Into<String>) -> Self {
        self.organization = Some(organization.into());
        self
    }

    /// Sets the `source` of every record, such as the name of the service. Default: none.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Sets the name of the connection in the server's monitoring. Default: `watchbook publisher`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options = self.options.name(name.into());
        self
    }

    /// Authenticates with a user name and a password.
    pub fn user_and_password(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.options = self.options.user_and_password(user.into(), password.into());
        self
    }

    /// Authenticates with a token.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.options = self.options.token(token.into());
        self
    }

    /// Authenticates with an NKey. `seed` is its secret seed.
    pub fn nkey(mut self, seed: impl Into<String>) -> Self {
        self.options = self.options.nkey(seed.into());
        self
    }

    /// Authenticates with a `.creds` file, which holds a JWT and its NKey seed. [`Builder::connect`] reads the
    /// file.
    pub fn credentials_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.credentials_file = Some(path.into());
        self
    }

    /// Lets [`Builder::connect`] return at once and connects in the background. Publishing waits for the connection
    /// and fails with [`PublishError::NotConnected`] until it is there. Default: off.
    pub fn retry_on_initial_connect(mut self) -> Self {
        self.options = self.options.retry_on_initial_connect();
        self
    }

    /// Changes any other option of the NATS client, such as TLS. The publisher replaces an `event_callback` set
    /// here with its own. If you need yours, create the client yourself and use [`Builder::from_client`].
    pub fn connect_options(mut self, change: impl FnOnce(ConnectOptions) -> ConnectOptions) -> Self {
        self.options = change(self.options);
        self
    }

    /// Sets how long to wait for a connection and for an acknowledgement, at least 10 ms. Default: 5 s.
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.limits.ack_timeout = timeout.max(Duration::from_millis(10));
        self
    }

    /// Sets how often the same record is sent in total if it is unclear whether it was stored, at least once.
    /// Default: 3. A [`Buffered`](crate::Buffered) publisher ignores this and retries until it is closed.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.limits.attempts = attempts.max(1);
        self
    }

    /// Sets the maximum number of records in an atomic batch, from 1 to 1,000 (JetStream's limit). With 1, every
    /// record is published on its own. Default: 1,000.
    pub fn batch_records(mut self, records: usize) -> Self {
        self.limits.batch_records = records.clamp(1, MAX_BATCH_RECORDS);
        self
    }

    /// Sets the maximum size of an atomic batch in bytes. A record larger than this is published on its own.
    /// Default: 4 MiB.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.limits.batch_bytes = bytes;
        self
    }

    /// Sets how many atomic batches of one call may be unacknowledged at a time, from 1 to 16. A stream allows 50
    /// open batches for all producers together. Default: 4.
    pub fn batches_in_flight(mut self, batches: usize) -> Self {
        self.limits.batches_in_flight = batches.clamp(1, 16);
        self
    }

    /// Sets how many single messages of one call may be unacknowledged at a time, from 1 to 4,096. It applies if
    /// the stream does not support atomic batches. Default: 1,024.
    pub fn acks_in_flight(mut self, acks: usize) -> Self {
        self.limits.acks_in_flight = acks.clamp(1, 4_096);
        self
    }

    /// Connects and returns the publisher. `servers` is a URL such as `nats://host:4222`, or several separated by
    /// commas. A user and password or a token in the first URL is used to authenticate.
    ///
    /// A publisher with its own connection receives the server's permission errors, see
    /// [`PublishError::NotPermitted`].
    ///
    /// # Errors
    /// [`ConnectError::Setting`] if the prefix, the organization or a URL is malformed,
    /// [`ConnectError::Credentials`] if the credentials file cannot be read, and [`ConnectError::Connect`] if the server
    /// refuses the connection or, unless [`Builder::retry_on_initial_connect`] is set, no server can be reached.
    pub async fn connect(mut self, servers: impl ToServerAddrs) -> Result<Publisher, ConnectError> {
        self.check().map_err(|error| ConnectError::Setting(error.to_string()))?;
        let mut options = std::mem::take(&mut self.options);
        if let Some(path) = &self.credentials_file {
            let failed = |source| ConnectError::Credentials { path: path.clone(), source };
            options = options.credentials_file(path).await.map_err(failed)?;
        }
        let (denials, receiver) = watch::channel(Denials::default());
        let denials = Arc::new(denials);
        let options = options.event_callback(move |event| {
            hear(&denials, &event);
            std::future::ready(())
        });
        let servers: Vec<_> =
            servers.to_server_addrs().map_err(|error| ConnectError::Setting(error.to_string()))?.collect();
        let client = sign_in_by_url(options, &servers).connect(servers).await?;
        Ok(self.publisher(client, Some(receiver)))
    }

    /// Creates a publisher on an existing connection, see [`Publisher::from_client`]. The connection settings of
    /// this builder are ignored.
    ///
    /// # Errors
    /// [`PublishError::Invalid`] if the prefix or the organization is malformed.
    ///
    /// # Panics
    /// If called outside of a Tokio runtime.
    pub fn from_client(self, client: Client) -> Result<Publisher, PublishError> {
        self.check()?;
        Ok(self.publisher(client, None))
    }

    fn check(&self) -> Result<(), PublishError> {
        let is_token = |token: &str| {
            !token.is_empty() && token.chars().all(|c| !c.is_whitespace() && !c.is_control() && !matches!(c, '*' | '>'))
        };
        if !self.prefix.split('.').all(is_token) {
            return Err(PublishError::Invalid(format!(
                "`{}` is not a subject prefix: expected non-empty tokens separated by dots, without spaces or wildcards",
                self.prefix
            )));
        }
        self.organization.as_deref().map_or(Ok(()), check_organization)
    }

    fn publisher(self, client: Client, denials: Option<watch::Receiver<Denials>>) -> Publisher {
        let wire = Wire::new(client, self.prefix, self.domain, self.limits, denials);
        Publisher::new(Arc::new(wire), self.organization.map(Arc::from), self.source.map(Arc::from))
    }
}

/// Rejects an organization that is not exactly one token: it would shift the tokens of the subject, and so change
/// the owner of the record.
pub(crate) fn check_organization(organization: &str) -> Result<(), PublishError> {
    if records::subject::is_organization(organization) {
        return Ok(());
    }
    Err(PublishError::Invalid(format!("`{organization}` is not an organization: expected 1 to 64 of A-Z a-z 0-9 _ -")))
}

/// Logs what happens to the connection, and keeps the server's permission errors.
fn hear(denials: &watch::Sender<Denials>, event: &Event) {
    match event {
        Event::ServerError(error) => {
            let error = error.to_string();
            let is_denial = denials.send_if_modified(|denials| denials.note(&error));
            if !is_denial {
                tracing::warn!(error, "the NATS server reported an error");
            }
        }
        Event::ClientError(error) => tracing::warn!(%error, "the NATS client reported an error"),
        Event::Connected | Event::Disconnected | Event::LameDuckMode => tracing::info!("NATS: {event}"),
        Event::Draining | Event::Closed | Event::SlowConsumer(_) => tracing::debug!("NATS: {event}"),
    }
}

/// Authenticates with the user info of the first URL: a user with a password, or a token. The client ignores it.
fn sign_in_by_url(options: ConnectOptions, servers: &[ServerAddr]) -> ConnectOptions {
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    match servers.first().map(|server| (server.username(), server.password())) {
        Some((Some(user), Some(password))) => options.user_and_password(decoded(user), decoded(password)),
        Some((Some(token), None)) => options.token(decoded(token)),
        _ => options,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_and_an_organization_must_fit_into_a_subject() {
        for (prefix, organization, fits) in [
            ("watchbook", None, true),
            ("eu.prod-1", Some("acme"), true),
            ("", None, false),
            ("a..b", None, false),
            ("a.*", None, false),
            ("a b", None, false),
            ("watchbook", Some("a.b"), false),
            ("watchbook", Some(""), false),
            ("watchbook", Some("_"), true),
        ] {
            let mut builder = Builder::default().prefix(prefix);
            builder.organization = organization.map(str::to_owned);
            assert_eq!(builder.check().is_ok(), fits, "{prefix:?} {organization:?}");
        }
    }
}
