//! Publishing many records: in atomic batches if the stream supports them, else as single messages with a limited
//! number of unacknowledged ones.
//!
//! An atomic batch (ADR-50 of NATS) is stored completely or not at all. Only its last message is acknowledged, so
//! up to 1,000 records cost one acknowledgement and one write to disk.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_nats::header::{
    HeaderMap, HeaderName, NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE,
};
use async_nats::jetstream::publish::PublishAck;
use records::{Kind, Outgoing, Record, Reject, subject};
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::prepare::Encoded;
use crate::publisher::Receipt;
use crate::wire::{self, Sent, Wire};
use crate::{PublishError, Publisher};

/// The acknowledgement of all messages of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchReceipt {
    /// The name of the stream.
    pub stream: Arc<str>,
    /// The sequence of each message in the stream, in input order.
    pub sequences: Vec<u64>,
    /// Number of messages that the stream already had, by their `Nats-Msg-Id`.
    pub duplicates: u64,
}

/// The error of a batch of which not all records were acknowledged. It tells which ones were, and keeps the others.
pub struct BatchError(Box<Failure>);

struct Failure {
    error: PublishError,
    rejected: Vec<(usize, Reject)>,
    sequences: Vec<Option<u64>>,
    unacknowledged: Vec<Encoded>,
}

impl BatchError {
    /// Returns the first failure.
    pub fn error(&self) -> &PublishError {
        &self.0.error
    }

    /// Returns whether the unacknowledged records can succeed when they are published again later.
    pub fn is_retryable(&self) -> bool {
        self.0.error.is_retryable()
    }

    /// Returns the index and the reason of every invalid record. If this is not empty, nothing was sent.
    pub fn rejected(&self) -> &[(usize, Reject)] {
        &self.0.rejected
    }

    /// Returns for each record its sequence in the stream, or `None` if it was not acknowledged. Empty if nothing was
    /// sent because a record was invalid.
    pub fn sequences(&self) -> &[Option<u64>] {
        &self.0.sequences
    }

    /// Returns the number of acknowledged records.
    pub fn acknowledged(&self) -> usize {
        self.0.sequences.iter().flatten().count()
    }

    /// Returns the unacknowledged messages, in order. It is safe to publish them again with
    /// [`Publisher::publish_encoded`]: they keep their ids, even if some of them were stored. Empty if nothing was sent
    /// because a record was invalid.
    pub fn into_unacknowledged(self) -> Vec<Encoded> {
        self.0.unacknowledged
    }

    fn rejected_before_sending(rejected: Vec<(usize, Reject)>, first: Reject) -> Self {
        Self(Box::new(Failure {
            error: PublishError::Rejected(first),
            rejected,
            sequences: Vec::new(),
            unacknowledged: Vec::new(),
        }))
    }

    fn before_sending(error: PublishError) -> Self {
        Self(Box::new(Failure { error, rejected: Vec::new(), sequences: Vec::new(), unacknowledged: Vec::new() }))
    }
}

impl fmt::Debug for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchError")
            .field("error", &self.0.error)
            .field("rejected", &self.0.rejected.len())
            .field("acknowledged", &self.acknowledged())
            .field("unacknowledged", &self.0.unacknowledged.len())
            .finish()
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(index, first), rest @ ..] = self.rejected() {
            write!(f, "record {index} is invalid, nothing was sent: {first}")?;
            return if rest.is_empty() { Ok(()) } else { write!(f, " (and {} more)", rest.len()) };
        }
        let (acknowledged, all) = (self.acknowledged(), self.sequences().len());
        write!(f, "{acknowledged} of {all} records acknowledged: {}", self.0.error)
    }
}

impl std::error::Error for BatchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0.error)
    }
}

impl Publisher {
    /// Publishes records with new ids and the current time, and waits until the stream has stored all of them.
    ///
    /// All records are checked first. If one is invalid, nothing is sent. Up to 1,000 records and 4 MiB form one
    /// atomic batch, which is stored completely or not at all; [`Builder`](crate::Builder) changes these limits.
    /// More records are split into several batches, sent in order with a few unacknowledged at a time. After a
    /// failure no further batch is sent. If the stream does not support atomic batches, the records are sent as
    /// single messages.
    ///
    /// The whole input is held in memory. Split an endless input into parts, or use a [buffer](crate::Buffered).
    ///
    /// # Errors
    /// [`BatchError`], which lists either the invalid records or the unacknowledged ones.
    pub async fn publish_batch<R: Record>(
        &self,
        records: impl IntoIterator<Item = R>,
    ) -> Result<Vec<Receipt>, BatchError> {
        self.publish_batch_outgoing(records.into_iter().map(|record| self.outgoing(record))).await
    }

    /// Like [`Publisher::publish_batch`], for records that already have an id and a time.
    ///
    /// # Errors
    /// See [`Publisher::publish_batch`].
    pub async fn publish_batch_outgoing<R: Record>(
        &self,
        records: impl IntoIterator<Item = Outgoing<R>>,
    ) -> Result<Vec<Receipt>, BatchError> {
        let (ids, messages) = self.prepare_all(records)?;
        let BatchReceipt { stream, sequences, .. } = self.publish_encoded(R::KIND, messages).await?;
        let receipts = ids.into_iter().zip(sequences);
        Ok(receipts
            .map(|(id, sequence)| Receipt { id, stream: Arc::clone(&stream), sequence, duplicate: false })
            .collect())
    }

    /// Publishes encoded messages **without checking them**: for messages read from a stream, for benchmarks, and
    /// for messages checked by [`Publisher::prepare_json`] or [`Publisher::check`]. They are split into atomic
    /// batches like those of [`Publisher::publish_batch`].
    ///
    /// All messages must belong to `kind`. An atomic batch goes to one stream, and a subject of another stream
    /// fails the whole batch.
    ///
    /// # Errors
    /// [`BatchError`], which lists the unacknowledged messages.
    pub async fn publish_encoded(
        &self,
        kind: Kind,
        messages: impl IntoIterator<Item = impl Into<Encoded>>,
    ) -> Result<BatchReceipt, BatchError> {
        let messages: Vec<Encoded> = messages.into_iter().map(Into::into).collect();
        let mut progress = Progress::new(messages.len());
        let mut backoff = Backoff::between_attempts();
        let mut attempt = 1;
        while let Err(error) = self.wire.publish_all(kind, &messages, &mut progress).await {
            if attempt >= self.wire.limits.attempts || !error.is_worth_repeating_at_once() {
                return Err(progress.failed(error, messages));
            }
            tracing::debug!(%error, attempt, "publishing was not acknowledged; sending the same records again");
            attempt += 1;
            tokio::time::sleep(backoff.next_delay()).await;
        }
        Ok(progress.done(&subject::stream_name(&self.wire.prefix, kind)))
    }

    /// Encodes and checks all records. The error lists every invalid one.
    fn prepare_all<R: Record>(
        &self,
        records: impl IntoIterator<Item = Outgoing<R>>,
    ) -> Result<(Vec<Uuid>, Vec<Encoded>), BatchError> {
        let place = self.place(self.organization.as_deref());
        let records = records.into_iter();
        let mut ids = Vec::with_capacity(records.size_hint().0);
        let mut messages = Vec::with_capacity(records.size_hint().0);
        let mut rejected = Vec::new();
        let mut scratch = Vec::new();
        for (index, outgoing) in records.enumerate() {
            match place.record(&outgoing, &mut scratch) {
                Ok(prepared) => {
                    ids.push(prepared.id);
                    messages.push(prepared.message);
                }
                Err(PublishError::Rejected(reject)) => rejected.push((index, reject)),
                Err(error) => return Err(BatchError::before_sending(error)),
            }
        }
        match rejected.first() {
            None => Ok((ids, messages)),
            Some((_, first)) => {
                let first = first.clone();
                Err(BatchError::rejected_before_sending(rejected, first))
            }
        }
    }
}

/// The acknowledged part of an input.
#[derive(Debug)]
pub(crate) struct Progress {
    sequences: Vec<Option<u64>>,
    stream: Option<Arc<str>>,
    duplicates: u64,
}

impl Progress {
    pub(crate) fn new(messages: usize) -> Self {
        Self { sequences: vec![None; messages], stream: None, duplicates: 0 }
    }

    /// Returns for each message whether it is acknowledged.
    pub(crate) fn acknowledged(&self) -> impl Iterator<Item = bool> {
        self.sequences.iter().map(Option::is_some)
    }

    /// Marks the messages of `range` as stored. The acknowledged sequence is that of the last one.
    fn acknowledge(&mut self, range: Range<usize>, ack: PublishAck) {
        let first = (ack.sequence + 1).saturating_sub(range.len() as u64);
        for (sequence, message) in (first..).zip(self.sequences.iter_mut().take(range.end).skip(range.start)) {
            *message = Some(sequence);
        }
        self.duplicates += u64::from(ack.duplicate);
        if self.stream.is_none() {
            self.stream = Some(ack.stream.into());
        }
    }

    fn failed(self, error: PublishError, mut messages: Vec<Encoded>) -> BatchError {
        let mut acknowledged = self.acknowledged();
        messages.retain(|_| acknowledged.next() == Some(false));
        drop(acknowledged);
        let sequences = self.sequences;
        BatchError(Box::new(Failure { error, rejected: Vec::new(), sequences, unacknowledged: messages }))
    }

    fn done(self, stream: &str) -> BatchReceipt {
        BatchReceipt {
            stream: self.stream.unwrap_or_else(|| stream.into()),
            sequences: self.sequences.into_iter().flatten().collect(),
            duplicates: self.duplicates,
        }
    }
}

impl Wire {
    /// Sends every unacknowledged message once and records the acknowledgements. Stops sending at the first
    /// failure.
    pub(crate) async fn publish_all(
        &self,
        kind: Kind,
        messages: &[Encoded],
        progress: &mut Progress,
    ) -> Result<(), PublishError> {
        self.ready().await?;
        if messages.len() > 1 && self.limits.batch_records > 1 && self.tries_atomic(kind) {
            let sent = self.publish_cut(messages, self.limits.batch_records, self.limits.batches_in_flight, progress);
            match sent.await {
                Err(error) if error.is_without_atomic_batches() => self.forget_atomic(kind),
                sent => return sent,
            }
        }
        self.publish_cut(messages, 1, self.limits.acks_in_flight, progress).await
    }

    async fn publish_cut(
        &self,
        messages: &[Encoded],
        records: usize,
        in_flight: usize,
        progress: &mut Progress,
    ) -> Result<(), PublishError> {
        let mut sent = VecDeque::with_capacity(in_flight);
        let mut result = Ok(());
        for range in cut(messages, &progress.sequences, records, self.limits.batch_bytes) {
            if sent.len() >= in_flight
                && let Some((range, answer)) = sent.pop_front()
            {
                result = self.settle(messages, range, answer, progress).await;
            }
            if result.is_err() {
                break;
            }
            match self.send_batch(&messages[range.clone()]).await {
                Ok(answer) => sent.push_back((range, answer)),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        for (range, answer) in sent {
            result = result.and(self.settle(messages, range, answer, progress).await);
        }
        result
    }

    /// Waits for the acknowledgement of one batch.
    async fn settle(
        &self,
        messages: &[Encoded],
        range: Range<usize>,
        answer: Sent,
        progress: &mut Progress,
    ) -> Result<(), PublishError> {
        let batch = &messages[range.clone()];
        let Some(last) = batch.last() else { return Ok(()) };
        let is_ours = |subject: &str| batch.iter().any(|message| *message.subject == *subject);
        let ack = self.answer(answer, last, is_ours).await?;
        if batch.len() > 1 && ack.batch_id.is_none() {
            // An older server ignores the batch headers and stores only the last message.
            return Err(PublishError::without_atomic_batches(&last.subject));
        }
        progress.acknowledge(range, ack);
        Ok(())
    }

    /// Sends messages as one atomic batch, or a single message without batch headers.
    async fn send_batch(&self, batch: &[Encoded]) -> Result<Sent, PublishError> {
        let waited = self.limits.ack_timeout;
        match tokio::time::timeout(waited, self.send_batch_unbounded(batch)).await {
            Ok(sent) => sent,
            Err(_) => {
                let subject = batch.last().map(|message| message.subject.to_string()).unwrap_or_default();
                Err(PublishError::TimedOut { subject, waited })
            }
        }
    }

    async fn send_batch_unbounded(&self, batch: &[Encoded]) -> Result<Sent, PublishError> {
        let mark = self.mark();
        let id = format!("{:016x}", fastrand::u64(..));
        let member = |headers: &mut HeaderMap, sequence: usize| {
            headers.insert(NATS_BATCH_ID, id.as_str());
            headers.insert(NATS_BATCH_SEQUENCE, sequence.to_string());
        };
        let Some((last, others)) = batch.split_last() else {
            return Err(PublishError::Invalid("the batch is empty".to_owned()));
        };
        if others.is_empty() {
            return self.send(last, mark, |_| {}).await;
        }
        // Checked before sending, so that the server is not left with an open batch.
        if let Some(large) = too_large(batch, &id, self.client.max_payload()) {
            return Err(self.too_large(large));
        }
        for (index, message) in others.iter().enumerate() {
            self.send_unanswered(message, |headers| member(headers, index + 1)).await?;
        }
        let commit = |headers: &mut HeaderMap| {
            member(headers, batch.len());
            headers.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
        };
        self.send(last, mark, commit).await
    }
}

/// Returns the first message of a batch that exceeds the server's `max_payload` together with its batch headers.
fn too_large<'b>(batch: &'b [Encoded], id: &str, limit: usize) -> Option<&'b Encoded> {
    let header = |name: HeaderName, value: &str| wire::header_bytes(name.as_ref(), value);
    let of_all = header(NATS_BATCH_ID, id);
    let of_last = header(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
    let of_member = |sequence: usize| {
        let commit = if sequence == batch.len() { of_last } else { 0 };
        of_all + header(NATS_BATCH_SEQUENCE, &sequence.to_string()) + commit
    };
    // The exact size is only computed near the limit. The last message has the longest headers.
    let most = of_member(batch.len());
    let mut members = (1..).zip(batch);
    let large = members.find(|(sequence, message)| {
        wire::payload(message, most) > limit && wire::payload(message, of_member(*sequence)) > limit
    });
    large.map(|(_, message)| message)
}

/// Splits the unacknowledged messages into contiguous ranges of at most `records` messages and `bytes` bytes. A
/// message larger than `bytes` is a range of its own.
fn cut(messages: &[Encoded], acknowledged: &[Option<u64>], records: usize, bytes: usize) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::with_capacity(messages.len() / records + 1);
    let mut size = 0;
    for (index, (message, _)) in messages.iter().zip(acknowledged).enumerate().filter(|(_, (_, seq))| seq.is_none()) {
        match runs.last_mut() {
            Some(run) if run.end == index && run.len() < records && size + message.size() <= bytes => {
                run.end += 1;
                size += message.size();
            }
            _ => {
                runs.push(index..index + 1);
                size = message.size();
            }
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(sizes: &[usize]) -> Vec<Encoded> {
        sizes.iter().map(|size| Encoded::new("s", vec![b' '; size - 1])).collect()
    }

    #[test]
    fn an_input_is_cut_by_records_and_by_bytes() {
        for (sizes, records, bytes, ends) in [
            (vec![], 3, 100, vec![]),
            (vec![10; 3], 3, 100, vec![3]),
            (vec![10; 4], 3, 100, vec![3, 4]),
            (vec![10; 4], 1, 100, vec![1, 2, 3, 4]),
            (vec![10; 4], 3, 20, vec![2, 4]),
            (vec![10, 500, 10], 3, 100, vec![1, 2, 3]),
        ] {
            let messages = messages(&sizes);
            let runs = cut(&messages, &vec![None; messages.len()], records, bytes);
            assert_eq!(runs.iter().map(|run| run.end).collect::<Vec<_>>(), ends, "{sizes:?}");
            assert!(runs.iter().zip(runs.iter().skip(1)).all(|(run, next)| run.end == next.start));
        }
    }

    #[test]
    fn a_member_is_as_large_as_its_headers_make_it() {
        let member = "NATS/1.0\r\nNats-Batch-Id: b\r\nNats-Batch-Sequence: 1\r\n\r\n".len();
        let last = member + "Nats-Batch-Commit: 1\r\n".len();
        for (first, second, culprit) in [
            (100 - member, 100 - last, None),
            (100 - member + 1, 100 - last, Some(0)),
            (100 - member, 100 - last + 1, Some(1)),
        ] {
            let batch = [first, second].map(|size| Encoded::new("s", vec![b' '; size]));
            let found = too_large(&batch, "b", 100).map(|large| batch.iter().position(|one| std::ptr::eq(one, large)));
            assert_eq!(found, culprit.map(Some), "{first} {second}");
        }
    }

    #[test]
    fn what_is_acknowledged_is_not_sent_again() {
        let acknowledged = [None, Some(1), Some(2), None, None];
        assert_eq!(cut(&messages(&[10; 5]), &acknowledged, 10, 1000), [0..1, 3..5]);
    }

    #[test]
    fn an_error_says_what_is_acknowledged_and_keeps_the_rest() {
        let mut progress = Progress::new(5);
        progress.acknowledge(1..3, PublishAck { sequence: 8, stream: "S".to_owned(), ..PublishAck::default() });
        let messages = ["a", "b", "c", "d", "e"].map(|body| Encoded::new("s", body)).to_vec();
        let error = progress.failed(PublishError::Closed, messages);
        assert_eq!(error.sequences(), [None, Some(7), Some(8), None, None]);
        assert_eq!(error.acknowledged(), 2);
        assert!(error.to_string().starts_with("2 of 5 records acknowledged"));
        let left: Vec<_> = error.into_unacknowledged().into_iter().map(|message| message.body).collect();
        assert_eq!(left, ["a", "d", "e"]);
    }
}
