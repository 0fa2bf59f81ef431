//! The publisher, and publishing single records.

use std::sync::Arc;

use async_nats::{Client, ToServerAddrs};
use records::{Kind, Outgoing, Record, Reject};
use uuid::Uuid;

use crate::PublishError;
use crate::backoff::Backoff;
use crate::connect::{Builder, ConnectError, check_organization};
use crate::prepare::{Encoded, JsonBody, Place, Prepared, Terms, check, new_identity};
use crate::wire::Wire;

/// Initial capacity for an encoded row, so that the check of a usual record allocates once.
const SCRATCH_BYTES: usize = 1024;

/// The acknowledgement of a record by the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The id under which the record will be stored.
    pub id: Uuid,
    /// The name of the stream.
    pub stream: Arc<str>,
    /// The sequence of the message in the stream, from 1.
    pub sequence: u64,
    /// Whether the stream already had a message with this `Nats-Msg-Id`. Always `false` unless you set that header,
    /// see the [crate documentation](crate).
    pub duplicate: bool,
}

/// Publishes records and waits for their acknowledgements. Cloning is cheap; clones share the connection.
#[derive(Debug, Clone)]
pub struct Publisher {
    pub(crate) wire: Arc<Wire>,
    pub(crate) organization: Option<Arc<str>>,
    source: Option<Arc<str>>,
}

impl Publisher {
    pub(crate) fn new(wire: Arc<Wire>, organization: Option<Arc<str>>, source: Option<Arc<str>>) -> Self {
        Self { wire, organization, source }
    }

    /// Connects with the defaults of [`Publisher::builder`]. `servers` is a URL such as `nats://host:4222`, or
    /// several separated by commas.
    ///
    /// # Errors
    /// [`ConnectError`] if a URL is invalid, no server can be reached, or the server refuses the connection.
    pub async fn connect(servers: impl ToServerAddrs) -> Result<Self, ConnectError> {
        Self::builder().connect(servers).await
    }

    /// Returns a builder that configures the connection and the publisher.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Creates a publisher with the default settings on an existing connection. See [`Builder::from_client`] for
    /// other settings.
    ///
    /// Such a publisher does not receive the server's permission errors. Publishing on a forbidden subject then
    /// fails with [`PublishError::TimedOut`] after the whole wait, whereas a publisher made by
    /// [`Publisher::connect`] or [`Builder::connect`] fails with [`PublishError::NotPermitted`] at once.
    ///
    /// # Panics
    /// If called outside of a Tokio runtime.
    pub fn from_client(client: Client) -> Self {
        let wire = Wire::new(client, "watchbook".to_owned(), None, crate::Limits::default(), None);
        Self::new(Arc::new(wire), None, None)
    }

    /// Returns a publisher for another organization on the same connection. Cheap.
    ///
    /// # Errors
    /// [`PublishError::Invalid`] if `organization` does not match `[A-Za-z0-9_-]{1,64}`.
    pub fn for_organization(&self, organization: &str) -> Result<Self, PublishError> {
        check_organization(organization)?;
        Ok(Self { organization: Some(organization.into()), ..self.clone() })
    }

    /// Returns the NATS client.
    pub fn client(&self) -> &Client {
        &self.wire.client
    }

    /// Returns whether the client is connected. Without a connection, publishing waits for one for up to
    /// [`Builder::ack_timeout`].
    pub fn is_connected(&self) -> bool {
        self.wire.is_connected()
    }

    /// Returns the prefix of all subjects.
    pub fn prefix(&self) -> &str {
        &self.wire.prefix
    }

    /// Publishes a record with a new id and the current time, and waits until the stream has stored it.
    ///
    /// If it is unclear whether the record was stored, the same record is sent again, up to [`Builder::attempts`]
    /// times in total. To continue after that, fix the identity with [`Publisher::outgoing`] and use
    /// [`Publisher::publish_outgoing`].
    ///
    /// # Errors
    /// [`PublishError::Rejected`] if the record is invalid; nothing was sent. Otherwise the reason why it was not
    /// acknowledged.
    pub async fn publish<R: Record>(&self, record: R) -> Result<Receipt, PublishError> {
        self.publish_outgoing(&self.outgoing(record)).await
    }

    /// Gives a record a new id, the current time and this publisher's source. The result can be published any
    /// number of times and is stored once.
    pub fn outgoing<R: Record>(&self, record: R) -> Outgoing<R> {
        let (id, created_at) = new_identity();
        let source = self.source.as_deref().map(str::to_owned);
        Outgoing { id, created_at, source, attributes: serde_json::Map::new(), record }
    }

    /// Publishes a record that already has its id, time, source and attributes.
    ///
    /// # Errors
    /// See [`Publisher::publish`].
    pub async fn publish_outgoing<R: Record>(&self, outgoing: &Outgoing<R>) -> Result<Receipt, PublishError> {
        let prepared = self.prepare(outgoing)?;
        self.publish_prepared(&prepared).await
    }

    /// Publishes a record that is JSON already, given as text or as a map. `organization` defaults to the
    /// publisher's own.
    ///
    /// The record is checked like a typed one and sent as it is. Only a missing `id` or time is added, so that
    /// publishing it again is safe.
    ///
    /// # Errors
    /// See [`Publisher::prepare_json`] and [`Publisher::publish`].
    pub async fn publish_json<'b>(
        &self,
        kind: Kind,
        organization: Option<&str>,
        body: impl Into<JsonBody<'b>>,
    ) -> Result<Receipt, PublishError> {
        let prepared = self.prepare_json(kind, organization, body)?;
        self.publish_prepared(&prepared).await
    }

    /// Encodes and checks a record for this publisher's organization. Sends nothing.
    ///
    /// # Errors
    /// [`PublishError::Rejected`] if the record is invalid, [`PublishError::NotJson`] if it cannot be serialized.
    pub fn prepare<R: Record>(&self, outgoing: &Outgoing<R>) -> Result<Prepared, PublishError> {
        self.place(self.organization.as_deref()).record(outgoing, &mut Vec::with_capacity(SCRATCH_BYTES))
    }

    /// Checks a record that is JSON already, see [`Publisher::publish_json`]. Sends nothing. `organization`
    /// defaults to the publisher's own.
    ///
    /// # Errors
    /// [`PublishError::Rejected`] if the record is invalid, [`PublishError::Invalid`] if `organization` is
    /// malformed.
    pub fn prepare_json<'b>(
        &self,
        kind: Kind,
        organization: Option<&str>,
        body: impl Into<JsonBody<'b>>,
    ) -> Result<Prepared, PublishError> {
        self.prepare_json_with(kind, organization, body, Terms::default())
    }

    /// Like [`Publisher::prepare_json`], with an identity for records that have none, and a maximum age.
    ///
    /// # Errors
    /// See [`Publisher::prepare_json`].
    pub fn prepare_json_with<'b>(
        &self,
        kind: Kind,
        organization: Option<&str>,
        body: impl Into<JsonBody<'b>>,
        terms: Terms,
    ) -> Result<Prepared, PublishError> {
        organization.map_or(Ok(()), check_organization)?;
        let place = self.place(organization.or(self.organization.as_deref()));
        place.json(kind, body.into(), terms, &mut Vec::with_capacity(SCRATCH_BYTES))
    }

    /// Checks a message as a writer would, and returns the id under which it would be stored. It uses the current
    /// time, and does not check against the retention of the kind.
    ///
    /// # Errors
    /// The reason why the message would become a dead letter.
    pub fn check(&self, kind: Kind, message: &Encoded) -> Result<Uuid, Reject> {
        check(&self.wire.prefix, kind, message, None, &mut Vec::with_capacity(SCRATCH_BYTES))
    }

    /// Publishes a record made by [`Publisher::prepare`] or [`Publisher::prepare_json`], with up to
    /// [`Builder::attempts`] attempts.
    ///
    /// # Errors
    /// See [`Publisher::publish`].
    pub async fn publish_prepared(&self, prepared: &Prepared) -> Result<Receipt, PublishError> {
        let mut backoff = Backoff::between_attempts();
        let mut attempt = 1;
        loop {
            match self.wire.publish(&prepared.message).await {
                Ok(ack) => {
                    return Ok(Receipt {
                        id: prepared.id,
                        stream: ack.stream.into(),
                        sequence: ack.sequence,
                        duplicate: ack.duplicate,
                    });
                }
                Err(error) if attempt < self.wire.limits.attempts && error.is_worth_repeating_at_once() => {
                    tracing::debug!(%error, attempt, "publishing was not acknowledged; sending the same record again");
                    attempt += 1;
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends messages in order, **unchecked** and without waiting for acknowledgements. Use it for subjects that no
    /// stream matches, to reach current subscribers only. Returns after the messages were flushed to the server.
    ///
    /// # Errors
    /// [`PublishError::NotConnected`] or [`PublishError::Closed`] without a connection, or the error of the first
    /// message that cannot be sent. Earlier messages may have been sent.
    pub async fn send_unanswered(&self, messages: &[Encoded]) -> Result<(), PublishError> {
        self.wire.ready().await?;
        for message in messages {
            self.wire.send_unanswered(message, |_| {}).await?;
        }
        self.wire.client.flush().await.map_err(|_| PublishError::Closed)
    }

    pub(crate) fn place<'p>(&'p self, organization: Option<&'p str>) -> Place<'p> {
        Place { prefix: &self.wire.prefix, organization }
    }
}
