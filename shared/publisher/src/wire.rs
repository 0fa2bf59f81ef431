//! Sends messages over the NATS connection and waits for acknowledgements. Every failure becomes a
//! [`PublishError`].

use std::collections::VecDeque;
use std::error::Error as _;
use std::future::IntoFuture;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use async_nats::jetstream::context::{Context, ContextBuilder, PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::publish::PublishAck;
use async_nats::{Client, Subject, SubjectError, jetstream};
use futures::SinkExt;
use records::Kind;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::prepare::Encoded;
use crate::{Limits, PublishError};

/// Interval between connection checks while waiting for an acknowledgement. The client does not report a lost
/// connection, so it is noticed after up to two of these intervals.
const CONNECTION_CHECK: Duration = Duration::from_millis(200);

/// Interval between connection checks before sending.
const READY_CHECK: Duration = Duration::from_millis(20);

/// Number of permission errors kept. Each only matters to a message sent a moment before.
const DENIALS: usize = 64;

/// Prefix of the headers of an atomic batch.
const BATCH_HEADERS: &str = "Nats-Batch-";

/// Bytes of the header block besides the headers: the version line and the empty line.
const AROUND_HEADERS: usize = "NATS/1.0\r\n\r\n".len();

/// Bytes of a header besides its name and value.
const AROUND_HEADER: usize = ": \r\n".len();

/// The server's permission errors for publishing.
#[derive(Debug, Default)]
pub(crate) struct Denials {
    seen: u64,
    latest: VecDeque<(u64, String, String)>,
}

impl Denials {
    /// Stores a server error if it is a permission error for publishing, such as `Permissions Violation for Publish
    /// to "watchbook.events.acme.x"`. Returns whether it is one.
    pub(crate) fn note(&mut self, error: &str) -> bool {
        let Some((_, rest)) = error.split_once("Permissions Violation for Publish to \"") else { return false };
        let Some((subject, _)) = rest.split_once('"') else { return false };
        self.seen += 1;
        self.latest.push_back((self.seen, subject.to_owned(), error.to_owned()));
        if self.latest.len() > DENIALS {
            self.latest.pop_front();
        }
        true
    }

    fn find(&self, since: u64, is_ours: impl Fn(&str) -> bool) -> Option<PublishError> {
        let (_, subject, detail) = self.latest.iter().find(|(at, subject, _)| *at > since && is_ours(subject))?;
        Some(PublishError::NotPermitted { subject: subject.clone(), detail: detail.clone() })
    }
}

/// A sent message that waits for its acknowledgement.
#[derive(Debug)]
pub(crate) struct Sent {
    ack: PublishAckFuture,
    mark: Mark,
}

/// The state of the connection when a message was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) connects: u64,
    denials: u64,
    sent_at: Instant,
}

/// A JetStream connection with the prefix and the limits of the publisher.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) client: Client,
    pub(crate) prefix: String,
    /// The domain whose streams have to acknowledge; any where there is none.
    domain: Option<String>,
    pub(crate) limits: Limits,
    /// The runtime in which the publisher was created. Background tasks run on it.
    pub(crate) runtime: Handle,
    context: Context,
    denials: Option<watch::Receiver<Denials>>,
    /// The number of the last connection known to be lost. Connections are counted from 1.
    lost: AtomicU64,
    /// Per kind: the number of the connection on which the stream turned out not to support atomic batches.
    without_atomic: [AtomicU64; Kind::ALL.len()],
}

impl Wire {
    pub(crate) fn new(
        client: Client,
        prefix: String,
        domain: Option<String>,
        limits: Limits,
        denials: Option<watch::Receiver<Denials>>,
    ) -> Self {
        let context =
            ContextBuilder::new().timeout(limits.ack_timeout).ack_timeout(limits.ack_timeout).build(client.clone());
        let runtime = Handle::current();
        Self {
            client,
            prefix,
            domain,
            limits,
            runtime,
            context,
            denials,
            lost: AtomicU64::new(0),
            without_atomic: Default::default(),
        }
    }

    /// Returns whether to try atomic batches for this kind: the server supports them (2.12 or newer), and the
    /// stream has not rejected one on this connection.
    pub(crate) fn tries_atomic(&self, kind: Kind) -> bool {
        let refused_at = self.without_atomic.get(kind as usize).map_or(0, |at| at.load(Ordering::Relaxed));
        refused_at != self.connects() && self.client.is_server_compatible(2, 12, 0)
    }

    /// Remembers for this connection that the stream of the kind does not support atomic batches.
    pub(crate) fn forget_atomic(&self, kind: Kind) {
        if let Some(at) = self.without_atomic.get(kind as usize)
            && at.swap(self.connects(), Ordering::Relaxed) == 0
        {
            tracing::info!(%kind, "the stream does not support atomic batches; publishing single messages");
        }
    }

    /// Waits for a connection for up to the acknowledgement timeout.
    ///
    /// Without this, the client would queue messages and send them long after their caller has given up.
    pub(crate) async fn ready(&self) -> Result<(), PublishError> {
        let deadline = Instant::now() + self.limits.ack_timeout;
        while !self.is_connected() {
            if self.is_closed() {
                return Err(PublishError::Closed);
            }
            if Instant::now() >= deadline {
                return Err(PublishError::NotConnected { waited: self.limits.ack_timeout });
            }
            tokio::time::sleep(READY_CHECK).await;
        }
        Ok(())
    }

    /// Publishes one message and waits for its acknowledgement.
    pub(crate) async fn publish(&self, message: &Encoded) -> Result<PublishAck, PublishError> {
        self.ready().await?;
        let sent = self.send(message, self.mark(), |_| {}).await?;
        self.answer(sent, message, |subject| *subject == *message.subject).await
    }

    /// Returns the state of the connection. Take it before sending.
    pub(crate) fn mark(&self) -> Mark {
        let denials = self.denials.as_ref().map_or(0, |denials| denials.borrow().seen);
        Mark { connects: self.connects(), denials, sent_at: Instant::now() }
    }

    /// Sends a message that will be acknowledged. `add` may add headers.
    pub(crate) async fn send(
        &self,
        message: &Encoded,
        mark: Mark,
        add: impl FnOnce(&mut HeaderMap),
    ) -> Result<Sent, PublishError> {
        let mut headers = headers(message)?;
        add(&mut headers);
        let (subject, body) = (message.subject.clone(), message.body.clone());
        let sent = if headers.is_empty() {
            self.context.publish(subject, body).await
        } else {
            self.context.publish_with_headers(subject, headers, body).await
        };
        let ack = sent.map_err(|error| self.explain(&error, message))?;
        Ok(Sent { ack, mark: Mark { sent_at: Instant::now(), ..mark } })
    }

    /// Sends a message that will not be acknowledged.
    pub(crate) async fn send_unanswered(
        &self,
        message: &Encoded,
        add: impl FnOnce(&mut HeaderMap),
    ) -> Result<(), PublishError> {
        let mut headers = headers(message)?;
        add(&mut headers);
        let (subject, body) = (message.subject.clone(), message.body.clone());
        let sent = self.client.publish_with_headers(subject, headers, body).await;
        sent.map_err(|error| match error.kind() {
            async_nats::client::PublishErrorKind::MaxPayloadExceeded => self.too_large(message),
            async_nats::client::PublishErrorKind::InvalidSubject => invalid_subject(&message.subject),
            async_nats::client::PublishErrorKind::Send => PublishError::Closed,
        })
    }

    /// Waits for an acknowledgement until the timeout, the loss of the connection, or a permission error for a
    /// subject for which `is_ours` returns `true`.
    pub(crate) async fn answer(
        &self,
        sent: Sent,
        message: &Encoded,
        is_ours: impl Fn(&str) -> bool,
    ) -> Result<PublishAck, PublishError> {
        let Sent { ack, mark } = sent;
        let deadline = mark.sent_at + self.limits.ack_timeout;
        let subject = || message.subject.to_string();
        tokio::select! {
            biased;
            answer = ack.into_future() => match answer {
                Ok(ack) => self.of_our_domain(ack, message),
                Err(error) => Err(self.explain(&error, message)),
            },
            denied = self.denied(mark, is_ours) => Err(denied),
            () = self.connection_lost(mark) => Err(PublishError::ConnectionLost { subject: subject() }),
            () = tokio::time::sleep_until(deadline) => {
                Err(PublishError::TimedOut { subject: subject(), waited: self.limits.ack_timeout })
            }
        }
    }

    /// Refuses an acknowledgement by a stream of another domain than the one that was asked for.
    fn of_our_domain(&self, ack: PublishAck, message: &Encoded) -> Result<PublishAck, PublishError> {
        match &self.domain {
            Some(wanted) if *wanted != ack.domain => Err(PublishError::OtherDomain {
                subject: message.subject.to_string(),
                wanted: wanted.clone(),
                domain: ack.domain,
                stream: ack.stream,
            }),
            _ => Ok(ack),
        }
    }

    /// Waits for a permission error for one of our subjects. Never returns if the publisher does not own the
    /// connection.
    async fn denied(&self, mark: Mark, is_ours: impl Fn(&str) -> bool) -> PublishError {
        let Some(denials) = &self.denials else { return std::future::pending().await };
        let mut denials = denials.clone();
        loop {
            let found = denials.borrow_and_update().find(mark.denials, &is_ours);
            if let Some(error) = found {
                return error;
            }
            if denials.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Returns once the connection used for sending is lost. It checks twice, because a message queued during the
    /// reconnect may still be acknowledged on the new connection.
    async fn connection_lost(&self, mark: Mark) {
        let mut missing = 0;
        while missing < 2 && self.lost.load(Ordering::Relaxed) < mark.connects {
            tokio::time::sleep(CONNECTION_CHECK).await;
            missing = if self.is_connected() && self.connects() == mark.connects { 0 } else { missing + 1 };
        }
        self.lost.fetch_max(mark.connects, Ordering::Relaxed);
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    /// Returns whether the client's task has ended, so that nothing can be sent any more.
    fn is_closed(&self) -> bool {
        let ready = self.client.clone().poll_ready_unpin(&mut TaskContext::from_waker(Waker::noop()));
        matches!(ready, Poll::Ready(Err(_)))
    }

    fn explain(&self, error: &jetstream::context::PublishError, message: &Encoded) -> PublishError {
        let subject = || message.subject.to_string();
        match error.kind() {
            PublishErrorKind::StreamNotFound => PublishError::StreamMissing { subject: subject() },
            PublishErrorKind::TimedOut => {
                PublishError::TimedOut { subject: subject(), waited: self.limits.ack_timeout }
            }
            PublishErrorKind::MaxPayloadExceeded => self.too_large(message),
            PublishErrorKind::BrokenPipe => PublishError::Closed,
            _ => match error.source() {
                Some(source) => self.explain_source(source, message),
                None => PublishError::Closed,
            },
        }
    }

    fn explain_source(&self, source: &(dyn std::error::Error + 'static), message: &Encoded) -> PublishError {
        if let Some(error) = source.downcast_ref::<jetstream::Error>() {
            return PublishError::from_server(error, &message.subject, payload(message, 0), self.client.max_payload());
        }
        if source.is::<SubjectError>() {
            return invalid_subject(&message.subject);
        }
        if source.is::<serde_json::Error>() {
            let detail =
                "the response is not a JetStream acknowledgement; another service may be subscribed to this subject"
                    .to_owned();
            return PublishError::Refused { subject: message.subject.to_string(), status: 500, code: 0, detail };
        }
        // The only remaining cause is that the client's task has ended.
        PublishError::Closed
    }

    pub(crate) fn too_large(&self, message: &Encoded) -> PublishError {
        PublishError::TooLarge {
            subject: message.subject.to_string(),
            bytes: payload(message, 0),
            limit: self.client.max_payload(),
        }
    }
}

fn invalid_subject(subject: &Subject) -> PublishError {
    PublishError::Invalid(format!("`{subject}` is not a valid subject"))
}

/// Returns the size that the server compares with `max_payload`, in bytes: the headers sent, `more` bytes of
/// additional headers, and the body.
pub(crate) fn payload(message: &Encoded, more: usize) -> usize {
    let own: usize = own_headers(message).map(|(name, value)| header_bytes(name, value)).sum();
    let around = if own + more > 0 { AROUND_HEADERS } else { 0 };
    around + own + more + message.body.len()
}

/// Returns the size of a header on the wire in bytes.
pub(crate) fn header_bytes(name: &str, value: &str) -> usize {
    name.len() + value.len() + AROUND_HEADER
}

/// Returns the headers to send, without those of an earlier batch.
fn own_headers(message: &Encoded) -> impl Iterator<Item = (&str, &str)> {
    let is_batch =
        |name: &str| name.get(..BATCH_HEADERS.len()).is_some_and(|start| start.eq_ignore_ascii_case(BATCH_HEADERS));
    message.headers.iter().filter(move |(name, _)| !is_batch(name))
}

fn headers(message: &Encoded) -> Result<HeaderMap, PublishError> {
    let mut map = HeaderMap::new();
    for (name, value) in own_headers(message) {
        let invalid = |what: &str| PublishError::Invalid(format!("the header `{name}` {what}"));
        let header: HeaderName = name.parse().map_err(|_| invalid("has an invalid name"))?;
        let value: HeaderValue =
            value.parse().map_err(|_| invalid("has an invalid value; line breaks are not allowed"))?;
        map.append(header, value);
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_found_by_its_subject_and_only_by_what_was_sent_before_it() {
        let mut denials = Denials::default();
        assert!(!denials.note("Permissions Violation for Subscription to \"x\""));
        assert!(denials.note("Permissions Violation for Publish to \"watchbook.events.acme.x\""));
        let find = |since, subject: &str| denials.find(since, |denied| denied == subject);
        assert!(matches!(find(0, "watchbook.events.acme.x"), Some(PublishError::NotPermitted { .. })));
        assert!(find(1, "watchbook.events.acme.x").is_none());
        assert!(find(0, "watchbook.events.acme.y").is_none());
    }

    #[test]
    fn headers_of_an_earlier_batch_are_left_behind() {
        let pairs = [("nats-batch-id", "b"), ("ce-id", "1"), ("Watchbook-Replay-Id", "x")];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let message = Encoded::new("s", "{}").with_headers(pairs.into_iter().collect());
        let map = headers(&message).unwrap();
        assert_eq!(map.len(), 2);
        assert!(map.get("Watchbook-Replay-Id").is_some());
    }

    #[test]
    fn headers_count_as_the_server_counts_them() {
        let with = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Encoded::new("s", "{}").with_headers(pairs.collect())
        };
        assert_eq!(payload(&with(&[]), 0), 2);
        assert_eq!(payload(&with(&[]), 5), "NATS/1.0\r\n12345\r\n{}".len());
        assert_eq!(payload(&with(&[("Nats-Batch-Id", "left behind")]), 0), 2);
        assert_eq!(payload(&with(&[("a", "1"), ("b", "22")]), 0), "NATS/1.0\r\na: 1\r\nb: 22\r\n\r\n{}".len());
    }

    #[test]
    fn a_header_cannot_smuggle_another() {
        let pairs = [("a".to_owned(), "1\r\nb: 2".to_owned())];
        let message = Encoded::new("s", "{}").with_headers(pairs.into_iter().collect());
        assert!(matches!(headers(&message), Err(PublishError::Invalid(_))));
    }
}
