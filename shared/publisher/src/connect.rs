//! Connecting, and the bounds within which a publisher works.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr, ToServerAddrs};
use tokio::sync::watch;

use crate::wire::{Denials, Wire};
use crate::{PublishError, Publisher};

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A setting cannot be.
    #[error("cannot connect: {0}")]
    Setting(String),
    /// The credentials file cannot be used.
    #[error("cannot read the credentials file {}: {source}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What the operating system or the parser said.
        source: std::io::Error,
    },
    /// The server could not be reached, or refused the connection.
    #[error("cannot connect to NATS: {0}")]
    Connect(#[from] async_nats::ConnectError),
}

/// The bounds within which a publisher works. Each is a default that suits most producers.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) ack_timeout: Duration,
    pub(crate) attempts: u32,
    pub(crate) batch_records: usize,
    pub(crate) batch_bytes: usize,
    pub(crate) batches_in_flight: usize,
    pub(crate) acks_in_flight: usize,
}

/// JetStream takes no more messages in an atomic batch.
const MAX_BATCH_RECORDS: usize = 1_000;

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A healthy server answers within milliseconds; a fail-over of a cluster takes seconds.
            ack_timeout: Duration::from_secs(5),
            attempts: 3,
            batch_records: MAX_BATCH_RECORDS,
            // A batch is repeated whole, and staged whole by the server.
            batch_bytes: 4 * 1024 * 1024,
            // Enough to hide the way there and back; a stream has 50 for all its producers.
            batches_in_flight: 4,
            // Well below the 5,000 at which the client itself begins to block.
            acks_in_flight: 1_024,
        }
    }
}

/// How to connect, and who publishes. Begin with [`Publisher::builder`].
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
    /// The prefix of all subjects, `watchbook` unless set.
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

    /// The organization for which records are published unless
    /// [`Publisher::for_organization`] names another; none unless set.
    pub fn organization(mut self, organization: impl Into<String>) -> Self {
        self.organization = Some(organization.into());
        self
    }

    /// The `source` of every record that names none: who publishes.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The connection's name, as the server's monitoring shows it.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options = self.options.name(name.into());
        self
    }

    /// A user with a password.
    pub fn user_and_password(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.options = self.options.user_and_password(user.into(), password.into());
        self
    }

    /// A token.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.options = self.options.token(token.into());
        self
    }

    /// The seed of an NKey.
    pub fn nkey(mut self, seed: impl Into<String>) -> Self {
        self.options = self.options.nkey(seed.into());
        self
    }

    /// A `.creds` file with a JWT and its NKey, read when connecting.
    pub fn credentials_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.credentials_file = Some(path.into());
        self
    }

    /// Whether [`Builder::connect`] returns at once and the connection is made in the background;
    /// until then nothing is sent. Off unless set.
    pub fn retry_on_initial_connect(mut self) -> Self {
        self.options = self.options.retry_on_initial_connect();
        self
    }

    /// Anything else that async-nats can be told, TLS for example. An `event_callback` that is set
    /// here is replaced by the publisher's own; make the client yourself and use
    /// [`Builder::from_client`] where you need yours.
    pub fn connect_options(mut self, change: impl FnOnce(ConnectOptions) -> ConnectOptions) -> Self {
        self.options = change(self.options);
        self
    }

    /// How long an acknowledgement is awaited, 5 seconds unless set. At least 10 milliseconds.
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.limits.ack_timeout = timeout.max(Duration::from_millis(10));
        self
    }

    /// How often the same record is sent while the answer is unclear, 3 times unless set; at least
    /// once. A buffer retries for ever, whatever this says.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.limits.attempts = attempts.max(1);
        self
    }

    /// At most how many records one atomic batch has: 1 to 1,000, which is JetStream's bound and the default.
    /// With 1 every record is published by itself, without a batch.
    pub fn batch_records(mut self, records: usize) -> Self {
        self.limits.batch_records = records.clamp(1, MAX_BATCH_RECORDS);
        self
    }

    /// At most how many bytes one atomic batch has, 4 MiB unless set. A record that is larger than
    /// this alone goes alone.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.limits.batch_bytes = bytes;
        self
    }

    /// How many atomic batches of one call may await their answer at a time: 1 to 16, 4 unless set.
    /// A stream has 50 open ones at most, for all its producers.
    pub fn batches_in_flight(mut self, batches: usize) -> Self {
        self.limits.batches_in_flight = batches.clamp(1, 16);
        self
    }

    /// How many single messages of one call may await their answer at a time, where the stream takes
    /// no atomic batches: 1 to 4,096, 1,024 unless set.
    pub fn acks_in_flight(mut self, acks: usize) -> Self {
        self.limits.acks_in_flight = acks.clamp(1, 4_096);
        self
    }

    /// Connects. With this connection the server's own words about a forbidden subject are heard,
    /// see [`PublishError::NotPermitted`].
    ///
    /// # Errors
    /// Where a setting cannot be, the credentials file cannot be read, or no server answers (unless
    /// [`Builder::retry_on_initial_connect`] is set).
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

    /// A publisher on a connection that somebody else made, see [`Publisher::from_client`]. What
    /// this builder knows about connecting is not used.
    ///
    /// # Errors
    /// Where the prefix or the organization cannot stand in a subject.
    pub fn from_client(self, client: Client) -> Result<Publisher, PublishError> {
        self.check()?;
        Ok(self.publisher(client, None))
    }

    fn check(&self) -> Result<(), PublishError> {
        let is_token = |token: &str| {
            !token.is_empty() && token.chars().all(|c| !c.is_whitespace() && !c.is_control() && !matches!(c, '*' | '>'))
        };
        if !self.prefix.split('.').all(is_token) {
            return Err(PublishError::Invalid(format!("`{}` is not a prefix of subjects", self.prefix)));
        }
        self.organization.as_deref().map_or(Ok(()), check_organization)
    }

    fn publisher(self, client: Client, denials: Option<watch::Receiver<Denials>>) -> Publisher {
        let wire = Wire::new(client, self.prefix, self.domain, self.limits, denials);
        Publisher::new(Arc::new(wire), self.organization.map(Arc::from), self.source.map(Arc::from))
    }
}

/// Refuses what would shift the tokens of a subject, and with them whose the record is.
pub(crate) fn check_organization(organization: &str) -> Result<(), PublishError> {
    if records::subject::is_organization(organization) {
        return Ok(());
    }
    Err(PublishError::Invalid(format!("`{organization}` is not an organization: expected 1 to 64 of A-Z a-z 0-9 _ -")))
}

/// What happens to the connection, in the log; what the server says about permissions, kept.
fn hear(denials: &watch::Sender<Denials>, event: &Event) {
    match event {
        Event::ServerError(error) => {
            let error = error.to_string();
            let is_denial = denials.send_if_modified(|denials| denials.note(&error));
            if !is_denial {
                tracing::warn!(error, "the NATS server reports an error");
            }
        }
        Event::ClientError(error) => tracing::warn!(%error, "the NATS client reports an error"),
        Event::Connected | Event::Disconnected | Event::LameDuckMode => tracing::info!("NATS: {event}"),
        Event::Draining | Event::Closed | Event::SlowConsumer(_) => tracing::debug!("NATS: {event}"),
    }
}

/// What a URL says before its `@`: a user with a password, or a token. The client does not read it.
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
