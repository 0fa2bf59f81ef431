//! The publisher: one record at a time.

use std::sync::Arc;

use async_nats::{Client, ToServerAddrs};
use records::{Kind, Outgoing, Record, Reject};
use uuid::Uuid;

use crate::PublishError;
use crate::backoff::Backoff;
use crate::connect::{Builder, ConnectError, check_organization};
use crate::prepare::{Encoded, JsonBody, Place, Prepared, Terms, check, new_identity};
use crate::wire::Wire;

/// Room for a usual record's row, so that checking one costs one allocation.
const SCRATCH_BYTES: usize = 1024;

/// The stream's word that it holds a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The id under which the record will be stored.
    pub id: Uuid,
    /// The stream that took it.
    pub stream: Arc<str>,
    /// Its sequence in the stream, from 1.
    pub sequence: u64,
    /// Whether the stream knew its `Nats-Msg-Id` already. Always `false` for what this crate
    /// publishes by itself: it sets no such header (see the crate's documentation).
    pub duplicate: bool,
}

/// Publishes records, each acknowledged. A clone shares the connection and costs next to nothing.
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

    /// Connects with the defaults of [`Publisher::builder`], to `nats://host:4222` or several of these with commas.
    ///
    /// # Errors
    /// Where no server answers, or it refuses the connection.
    pub async fn connect(servers: impl ToServerAddrs) -> Result<Self, ConnectError> {
        Self::builder().connect(servers).await
    }

    /// A publisher to be configured.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A publisher with the defaults, on a connection that somebody else made. Like everything of
    /// async-nats it must be made inside a Tokio runtime.
    ///
    /// Such a publisher does not hear the server's words about permissions: a forbidden subject
    /// shows as [`PublishError::TimedOut`] after the whole wait, where one that made its own
    /// connection answers [`PublishError::NotPermitted`] at once.
    pub fn from_client(client: Client) -> Self {
        let wire = Wire::new(client, "watchbook".to_owned(), None, crate::Limits::default(), None);
        Self::new(Arc::new(wire), None, None)
    }

    /// The same publisher for another organization; cheap.
    ///
    /// # Errors
    /// [`PublishError::Invalid`] where the text is not an organization (`[A-Za-z0-9_-]{1,64}`).
    pub fn for_organization(&self, organization: &str) -> Result<Self, PublishError> {
        check_organization(organization)?;
        Ok(Self { organization: Some(organization.into()), ..self.clone() })
    }

    /// The connection.
    pub fn client(&self) -> &Client {
        &self.wire.client
    }

    /// Whether there is a connection now. Without one, publishing waits for it as long as for an acknowledgement.
    pub fn is_connected(&self) -> bool {
        self.wire.is_connected()
    }

    /// The prefix of all subjects.
    pub fn prefix(&self) -> &str {
        &self.wire.prefix
    }

    /// Publishes a record with a new id and the current time, and waits until the stream holds it.
    ///
    /// While the answer is unclear the same record is sent again, as often as
    /// [`Builder::attempts`] says. To carry on after that, make the record's identity first with
    /// [`Publisher::outgoing`] and use [`Publisher::publish_outgoing`].
    ///
    /// # Errors
    /// [`PublishError::Rejected`] before anything is sent where the record breaks the contract;
    /// otherwise why it was not acknowledged.
    pub async fn publish<R: Record>(&self, record: R) -> Result<Receipt, PublishError> {
        self.publish_outgoing(&self.outgoing(record)).await
    }

    /// A record with a new id, the current time and this publisher's source: fixed from here on, so
    /// that publishing it twice stores it once.
    pub fn outgoing<R: Record>(&self, record: R) -> Outgoing<R> {
        let (id, created_at) = new_identity();
        let source = self.source.as_deref().map(str::to_owned);
        Outgoing { id, created_at, source, attributes: serde_json::Map::new(), record }
    }

    /// Publishes a record that has its identity, source and attributes already.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub async fn publish_outgoing<R: Record>(&self, outgoing: &Outgoing<R>) -> Result<Receipt, PublishError> {
        let prepared = self.prepare(outgoing)?;
        self.publish_prepared(&prepared).await
    }

    /// Publishes a record that is JSON already, text or a map.
    ///
    /// It is checked as a writer will check it, and sent as it is, with one exception: where it has
    /// no `id` or no time, these are added, so that publishing it again is harmless.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub async fn publish_json<'b>(
        &self,
        kind: Kind,
        organization: Option<&str>,
        body: impl Into<JsonBody<'b>>,
    ) -> Result<Receipt, PublishError> {
        let prepared = self.prepare_json(kind, organization, body)?;
        self.publish_prepared(&prepared).await
    }

    /// A checked message of a record, for this publisher's organization. Sends nothing.
    ///
    /// # Errors
    /// [`PublishError::Rejected`] where the record breaks the contract.
    pub fn prepare<R: Record>(&self, outgoing: &Outgoing<R>) -> Result<Prepared, PublishError> {
        self.place(self.organization.as_deref()).record(outgoing, &mut Vec::with_capacity(SCRATCH_BYTES))
    }

    /// A checked message of a record that is JSON already; see [`Publisher::publish_json`]. Sends
    /// nothing. An organization of `None` is this publisher's own.
    ///
    /// # Errors
    /// [`PublishError::Rejected`] where the record breaks the contract, [`PublishError::Invalid`]
    /// where the organization is none.
    pub fn prepare_json<'b>(
        &self,
        kind: Kind,
        organization: Option<&str>,
        body: impl Into<JsonBody<'b>>,
    ) -> Result<Prepared, PublishError> {
        self.prepare_json_with(kind, organization, body, Terms::default())
    }

    /// As [`Publisher::prepare_json`], with what a record gets that lacks an identity, and how old it may be.
    ///
    /// # Errors
    /// As [`Publisher::prepare_json`].
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

    /// Whether a writer would store this message, and under which id; against the current time, and
    /// without regard to how long the kind is kept.
    ///
    /// # Errors
    /// With which reason it would become a dead letter.
    pub fn check(&self, kind: Kind, message: &Encoded) -> Result<Uuid, Reject> {
        check(&self.wire.prefix, kind, message, None, &mut Vec::with_capacity(SCRATCH_BYTES))
    }

    /// Publishes what [`Publisher::prepare`] or [`Publisher::prepare_json`] made, as often as is needed.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
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
                    tracing::debug!(%error, attempt, "publishing the same record again");
                    attempt += 1;
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends messages that are ready, in order, **without checking them** and unanswered: on subjects that no stream
    /// takes, for whoever listens now. Returns when they are on the connection.
    ///
    /// # Errors
    /// Where there is no connection, or one of them can never be sent; those before it may be out.
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
