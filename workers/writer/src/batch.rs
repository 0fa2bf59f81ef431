//! Gathers messages into a batch. Each message is decoded at once and becomes a row or a dead letter. Pure.

use std::collections::{BTreeSet, HashMap};

use bus::Delivery;
use chrono::{DateTime, TimeDelta, Utc};
use records::rollup::Rollup;
use records::{Headers, Kind, Message, Reason, Reject, RowFacts};
use store::batch::RecordKey;
use store::dead_letters::DeadLetter;
use store::partitions::Partition;
use uuid::Uuid;

/// The settings that all batches of a stream share.
#[derive(Debug, Clone)]
pub(crate) struct Contract {
    pub(crate) kind: Kind,
    pub(crate) prefix: String,
    pub(crate) stream: String,
    /// How long the kind is kept; older records are rejected. `None` keeps them for ever.
    pub(crate) keep: Option<TimeDelta>,
}

impl Contract {
    fn message<'d>(&'d self, delivery: &'d Delivery, headers: &'d Headers) -> Message<'d> {
        Message {
            kind: self.kind,
            prefix: &self.prefix,
            subject: &delivery.subject,
            stream: &self.stream,
            sequence: delivery.sequence,
            published_at: delivery.published_at,
            headers,
            body: &delivery.body,
        }
    }
}

/// A contiguous range of a stream, decoded. It keeps its messages until it is settled, because a row that Postgres
/// rejects becomes a dead letter with the whole message.
#[derive(Debug)]
pub(crate) struct Batch {
    first: u64,
    last: u64,
    deliveries: Vec<Delivery>,
    rows: Vec<u8>,
    entries: Vec<Entry>,
    refused: Vec<(usize, Reject)>,
    deleted: u64,
    message_bytes: usize,
}

/// One row: the end of its bytes in the buffer, the message it came from, and the facts the roll-ups need.
#[derive(Debug, Clone, Copy)]
struct Entry {
    end: usize,
    delivery: usize,
    id: Uuid,
    created_at: DateTime<Utc>,
    minute: DateTime<Utc>,
    failed: bool,
}

impl Batch {
    /// Returns an empty batch that starts at the sequence `first`.
    pub(crate) fn starting_at(first: u64) -> Self {
        Self {
            first,
            last: first - 1,
            deliveries: Vec::new(),
            rows: Vec::new(),
            entries: Vec::new(),
            refused: Vec::new(),
            deleted: 0,
            message_bytes: 0,
        }
    }

    /// Adds the message at the next sequence.
    pub(crate) fn push(&mut self, contract: &Contract, delivery: Delivery) {
        debug_assert_eq!(delivery.sequence, self.last + 1, "a batch is contiguous");
        self.last = delivery.sequence;
        let index = self.deliveries.len();
        match records::encode(&contract.message(&delivery, &delivery.record_headers()), contract.keep, &mut self.rows) {
            Ok(RowFacts { id, created_at, minute, failed, .. }) => {
                self.entries.push(Entry { end: self.rows.len(), delivery: index, id, created_at, minute, failed });
            }
            Err(reject) => self.refused.push((index, reject)),
        }
        self.message_bytes += delivery.size();
        self.deliveries.push(delivery);
    }

    /// Adds sequences that the stream no longer holds.
    pub(crate) fn push_deleted(&mut self, first: u64, last: u64) {
        debug_assert_eq!(first, self.last + 1, "a batch is contiguous");
        self.last = last;
        self.deleted += last - first + 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.last < self.first
    }

    /// Returns the sequence after the last one of the batch.
    pub(crate) fn next(&self) -> u64 {
        self.last + 1
    }

    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Returns the number of messages, including rejected ones.
    pub(crate) fn messages(&self) -> usize {
        self.deliveries.len()
    }

    /// Returns the size in bytes of the rows or of the messages they came from, whichever is larger.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.len().max(self.message_bytes)
    }

    pub(crate) fn deleted(&self) -> u64 {
        self.deleted
    }

    /// Returns the newest message: its sequence, and the stream's timestamp in nanoseconds.
    pub(crate) fn newest(&self) -> Option<(u64, i64)> {
        let newest = self.deliveries.last()?;
        Some((newest.sequence, newest.published_at.timestamp_nanos_opt()?))
    }

    pub(crate) fn row_count(&self) -> usize {
        self.entries.len()
    }

    /// Returns the rows `from..to`, encoded for COPY.
    pub(crate) fn rows(&self, from: usize, to: usize) -> &[u8] {
        let end_of =
            |count: usize| count.checked_sub(1).and_then(|last| self.entries.get(last)).map_or(0, |entry| entry.end);
        self.rows.get(end_of(from)..end_of(to)).unwrap_or_default()
    }

    /// Returns the partitions that the rows need.
    pub(crate) fn partitions(&self, kind: Kind) -> BTreeSet<Partition> {
        // The records of a batch mostly share one day, so the partition is computed once per run of equal days.
        let mut partitions = BTreeSet::new();
        let mut seen = None;
        for entry in &self.entries {
            let day = entry.created_at.timestamp().div_euclid(24 * 60 * 60);
            if seen != Some(day) {
                seen = Some(day);
                partitions.extend(Partition::of(kind, entry.created_at));
            }
        }
        partitions
    }

    /// Returns the messages that failed validation, as dead letters.
    pub(crate) fn refused<'b>(&'b self, contract: &'b Contract) -> impl Iterator<Item = DeadLetter<'b>> {
        self.refused.iter().filter_map(|(delivery, reject)| self.dead_letter(contract, *delivery, reject.clone()))
    }

    /// Returns the message of a row as a dead letter with the reason `rejected_by_database`.
    pub(crate) fn rejected_by_database<'b>(
        &'b self,
        contract: &'b Contract,
        row: usize,
        reason: &str,
    ) -> Option<DeadLetter<'b>> {
        let entry = self.entries.get(row)?;
        self.dead_letter(contract, entry.delivery, Reject::message(Reason::RejectedByDatabase, reason))
    }

    fn dead_letter<'b>(&'b self, contract: &'b Contract, delivery: usize, reject: Reject) -> Option<DeadLetter<'b>> {
        let delivery = self.deliveries.get(delivery)?;
        let headers = delivery.headers();
        let (id, _) = contract.message(delivery, &headers).replay_identity();
        Some(DeadLetter {
            id,
            kind: contract.kind.name(),
            subject: &delivery.subject,
            stream: &contract.stream,
            stream_seq: delivery.sequence,
            reject,
            payload: &delivery.body,
            headers,
            received_at: delivery.published_at,
        })
    }

    /// Returns the roll-up of all rows.
    pub(crate) fn rollup(&self, kind: Kind) -> Rollup<'_> {
        let mut rollup = Rollup::new(kind);
        for row in 0..self.entries.len() {
            self.count(&mut rollup, row);
        }
        rollup
    }

    /// Returns the roll-up of the rows with these keys. Of several rows with the same key only the first one
    /// counts.
    pub(crate) fn rollup_of(&self, kind: Kind, keys: &[RecordKey]) -> Rollup<'_> {
        let mut by_key: HashMap<RecordKey, usize> = HashMap::with_capacity(self.entries.len());
        for (row, entry) in self.entries.iter().enumerate() {
            by_key.entry((entry.created_at, entry.id)).or_insert(row);
        }
        let mut rollup = Rollup::new(kind);
        for row in keys.iter().filter_map(|key| by_key.get(key)) {
            self.count(&mut rollup, *row);
        }
        rollup
    }

    fn count<'b>(&'b self, rollup: &mut Rollup<'b>, row: usize) {
        if let Some(entry) = self.entries.get(row) {
            rollup.add(self.rows(row, row + 1), entry.created_at, entry.minute, entry.failed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contract() -> Contract {
        Contract {
            kind: Kind::Executions,
            prefix: "watchbook".to_owned(),
            stream: "WATCHBOOK_EXECUTIONS".to_owned(),
            keep: None,
        }
    }

    fn delivery(sequence: u64, organization: &str, body: &str) -> Delivery {
        let published_at = DateTime::from_timestamp_nanos(1_790_000_000_000_000_000 + sequence as i64);
        Delivery::new(
            sequence,
            published_at,
            &format!("watchbook.executions.{organization}.VALIDATION"),
            body.to_owned(),
        )
    }

    fn execution(success: bool) -> String {
        format!(
            r#"{{"user_id":"u","strategy_id":"s","execution_type":"VALIDATION","success":{success},"execution_time_ms":5}}"#
        )
    }

    #[test]
    fn every_message_ends_in_one_outcome() {
        let contract = contract();
        let mut batch = Batch::starting_at(7);
        assert!(batch.is_empty());
        batch.push(&contract, delivery(7, "acme", &execution(true)));
        batch.push(&contract, delivery(8, "acme", "no JSON"));
        batch.push_deleted(9, 11);
        batch.push(&contract, delivery(12, "acme", &execution(false)));
        batch.push(&contract, delivery(13, "_", &execution(false)));
        assert_eq!((batch.first(), batch.last(), batch.next()), (7, 13, 14));
        assert_eq!((batch.row_count(), batch.deleted(), batch.messages()), (3, 3, 4));
        assert_eq!(batch.newest().map(|(sequence, _)| sequence), Some(13));
        let letters: Vec<_> =
            batch.refused(&contract).map(|letter| (letter.stream_seq, letter.reject.reason)).collect();
        assert_eq!(letters, [(8, Reason::InvalidJson)]);
        let minutes = batch.rollup(contract.kind).finish().minutes;
        let outcomes: Vec<_> = store::outcomes::of(contract.kind, &minutes)
            .into_iter()
            .map(|outcome| (outcome.organization_id, outcome.total, outcome.failed))
            .collect();
        assert_eq!(outcomes, [("_".to_owned(), 1, 1), ("acme".to_owned(), 2, 1)]);
    }

    #[test]
    fn rows_can_be_cut_anywhere() {
        let contract = contract();
        let mut batch = Batch::starting_at(1);
        for sequence in 1..=5 {
            batch.push(&contract, delivery(sequence, "acme", &execution(true)));
        }
        let whole = batch.rows(0, 5).to_vec();
        assert_eq!([batch.rows(0, 2), batch.rows(2, 2), batch.rows(2, 5)].concat(), whole);
        let third = batch.rejected_by_database(&contract, 2, "no").unwrap();
        assert_eq!(third.stream_seq, 3);
    }
}
