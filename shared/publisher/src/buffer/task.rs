//! The background task. It publishes each kind in order until the buffer is closed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use records::Kind;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::queue::{Lane, Queue};
use crate::PublishError;
use crate::backoff::Backoff;
use crate::batch::Progress;
use crate::prepare::{Encoded, Prepared};

/// Marks the buffer as ended when the task ends in any way, and logs how many records are left.
struct End(Arc<Queue>);

impl Drop for End {
    fn drop(&mut self) {
        let left = {
            let mut state = self.0.lock();
            state.closed = true;
            state.ended = true;
            state.records
        };
        self.0.moved.notify_waiters();
        if left > 0 {
            tracing::warn!(left, "the buffer ended with unacknowledged records");
        }
    }
}

/// Publishes until the buffer is closed and empty, the deadline passes, or the connection is closed.
pub(super) async fn run(queue: Arc<Queue>) {
    let end = End(queue);
    let queue = &*end.0;
    let lanes = futures::future::try_join_all(Kind::ALL.iter().map(|&kind| run_lane(queue, kind)));
    tokio::select! {
        ended = lanes => {
            if let Err(error) = ended {
                tracing::warn!(%error, "the buffer ended because the NATS connection is closed");
            }
        }
        () = deadline(queue.deadline.subscribe()) => {}
    }
}

async fn deadline(mut known: watch::Receiver<Option<Instant>>) {
    loop {
        let deadline = *known.borrow_and_update();
        match deadline {
            None if known.changed().await.is_err() => return std::future::pending().await,
            None => {}
            Some(deadline) => {
                tokio::select! {
                    () = tokio::time::sleep_until(deadline) => return,
                    // The deadline may have moved to an earlier time.
                    Ok(()) = known.changed() => {}
                }
            }
        }
    }
}

/// Publishes the records of one kind, in order. Ends when the buffer is closed and the kind has no more records.
async fn run_lane(queue: &Queue, kind: Kind) -> Result<(), PublishError> {
    while let Some(mut run) = next_run(queue, kind).await {
        let records = run.messages.len() as u64;
        let mut backoff = Backoff::in_background();
        while let Err(error) = publish_run(queue, &mut run).await {
            if matches!(error, PublishError::Closed) {
                return Err(error);
            }
            let retries = queue.retries.fetch_add(1, Ordering::Relaxed);
            if backoff.is_first() {
                tracing::warn!(%kind, waiting = run.messages.len(), %error, "publishing failed; retrying until it succeeds");
            } else {
                tracing::debug!(%kind, retries, %error, "publishing failed again");
            }
            let delay = backoff.next_delay();
            // The attempt itself already waited for a connection.
            if !matches!(error, PublishError::NotConnected { .. }) {
                tokio::time::sleep(delay).await;
            }
        }
        if !backoff.is_first() {
            tracing::info!(%kind, "publishing works again");
        }
        queue.settle(kind, records);
    }
    Ok(())
}

/// Returns the next records to publish: a full batch, or those that have lingered long enough.
async fn next_run(queue: &Queue, kind: Kind) -> Option<Run> {
    let limits = &queue.publisher.wire.limits;
    let work = queue.work.get(kind as usize)?;
    loop {
        let due = {
            let mut state = queue.lock();
            let is_urgent = state.closed || state.flushing > 0;
            let closed = state.closed;
            let lane = state.lanes.get_mut(kind as usize)?;
            let due = lane.since.map(|since| since + queue.options.linger);
            let is_due = is_urgent || due.is_some_and(|due| due <= Instant::now());
            if lane.waiting.is_empty() && closed {
                return None;
            }
            if lane.waiting.len() >= limits.batch_records || (!lane.waiting.is_empty() && is_due) {
                return Some(Run::take(kind, lane, limits.batch_records, limits.batch_bytes));
            }
            due
        };
        match due {
            None => work.notified().await,
            Some(due) => {
                // Usually ends by the timeout.
                let _ = tokio::time::timeout_at(due, work.notified()).await;
            }
        }
    }
}

/// Records being published. They stay in the buffer's totals until they are acknowledged.
struct Run {
    kind: Kind,
    ids: Vec<Uuid>,
    messages: Vec<Encoded>,
}

impl Run {
    fn take(kind: Kind, lane: &mut Lane, records: usize, bytes: usize) -> Self {
        let most = lane.waiting.len().min(records);
        let mut run = Self { kind, ids: Vec::with_capacity(most), messages: Vec::with_capacity(most) };
        let mut size = 0;
        while run.messages.len() < most
            && let Some((_, message)) = lane.waiting.front()
        {
            size += message.size();
            if size > bytes && !run.messages.is_empty() {
                break;
            }
            if let Some((id, message)) = lane.waiting.pop_front() {
                run.ids.push(id);
                run.messages.push(message);
            }
        }
        // The remaining records have lingered already, so they go with the next batch at once.
        if lane.waiting.is_empty() {
            lane.since = None;
        }
        run
    }

    /// Removes the settled records, given in the order of the run, and returns their messages.
    fn settle(&mut self, is_settled: impl IntoIterator<Item = bool>) -> Vec<Encoded> {
        let mut is_settled = is_settled.into_iter();
        let (mut ids, mut messages, mut settled) = (Vec::new(), Vec::new(), Vec::new());
        for (id, message) in self.ids.drain(..).zip(self.messages.drain(..)) {
            if is_settled.next() == Some(true) {
                settled.push(message);
            } else {
                ids.push(id);
                messages.push(message);
            }
        }
        (self.ids, self.messages) = (ids, messages);
        settled
    }
}

/// Publishes the remaining records of a run once. The error is either temporary or [`PublishError::Closed`].
async fn publish_run(queue: &Queue, run: &mut Run) -> Result<(), PublishError> {
    let mut progress = Progress::new(run.messages.len());
    let result = queue.publisher.wire.publish_all(run.kind, &run.messages, &mut progress).await;
    let settled = run.settle(progress.acknowledged());
    queue.published.fetch_add(settled.len() as u64, Ordering::Relaxed);
    queue.release(&settled);
    match result {
        // One of the records is at fault. Publishing each on its own shows which one.
        Err(error) if !run.messages.is_empty() && is_of_one(&error) => publish_each(queue, run).await,
        result => result,
    }
}

/// Returns whether the error may concern a single message of a batch.
fn is_of_one(error: &PublishError) -> bool {
    match error {
        PublishError::BatchAbandoned { .. } | PublishError::StreamMissing { .. } => true,
        PublishError::Closed => false,
        error => !error.is_retryable(),
    }
}

/// Publishes the records one by one, and refuses those that can never be acknowledged.
async fn publish_each(queue: &Queue, run: &mut Run) -> Result<(), PublishError> {
    let mut done = 0;
    let mut result = Ok(());
    for (id, message) in run.ids.iter().zip(&run.messages) {
        match queue.publisher.wire.publish(message).await {
            Ok(_) => {
                queue.published.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error.is_retryable() || matches!(error, PublishError::Closed) => {
                result = Err(error);
                break;
            }
            Err(error) => {
                let record = Prepared { id: *id, kind: run.kind, message: message.clone() };
                queue.refuse(record, error);
            }
        }
        done += 1;
    }
    let settled = run.settle((0..).map(|index| index < done));
    queue.release(&settled);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(sizes: &[usize]) -> Lane {
        let waiting = sizes.iter().map(|size| (Uuid::nil(), Encoded::new("s", vec![b' '; size - 1]))).collect();
        Lane { waiting, since: Some(Instant::now()), ..Lane::default() }
    }

    #[test]
    fn a_run_is_bounded_in_records_and_bytes() {
        for (sizes, taken) in
            [(vec![10; 3], 3), (vec![10; 9], 4), (vec![60, 60, 10], 1), (vec![500, 10], 1), (vec![10, 500], 1)]
        {
            let mut lane = lane(&sizes);
            let run = Run::take(Kind::Events, &mut lane, 4, 100);
            assert_eq!(run.messages.len(), taken, "{sizes:?}");
            assert_eq!(lane.waiting.len(), sizes.len() - taken);
            assert_eq!(lane.since.is_none(), lane.waiting.is_empty());
        }
    }

    #[test]
    fn what_is_settled_leaves_the_run_in_order() {
        let mut run = Run::take(Kind::Events, &mut lane(&[11, 12, 13, 14]), 4, 100);
        let settled = run.settle([true, false, true, false]);
        assert_eq!(settled.iter().map(Encoded::size).collect::<Vec<_>>(), [11, 13]);
        assert_eq!(run.messages.iter().map(Encoded::size).collect::<Vec<_>>(), [12, 14]);
        assert_eq!(run.ids.len(), 2);
    }
}
