//! The publishing loop of a replay.

use std::time::{Duration, Instant};

use anyhow::Context;
use bus::Bus;
use indicatif::ProgressBar;
use publisher::{PublishError, Publisher};
use records::{Headers, Kind};
use tokio_util::sync::CancellationToken;

use super::precheck::Precheck;
use super::rate_limiter::RateLimiter;
use super::source::{ReplayMessage, Source};
use super::summary::{Summary, time};

/// Maximum bytes sent at once, as one atomic batch. With several batches in flight, one could be refused and the next
/// accepted, which would break the order.
const AT_ONCE_BYTES: usize = 2 * 1024 * 1024;

/// A running replay.
#[derive(Debug)]
pub(super) struct ReplayPublisher {
    pub(super) publisher: Publisher,
    pub(super) bus: Bus,
    pub(super) headers: Headers,
    /// The writers that read the subject, if it is one of Watchbook's own.
    pub(super) precheck: Option<Precheck>,
    pub(super) stop: CancellationToken,
    pub(super) progress: ProgressBar,
}

impl ReplayPublisher {
    /// Publishes all events of the source, or until it is stopped. Keeps the progress in `summary`, also on an error.
    ///
    /// # Errors
    /// If an event was not accepted, naming the event and the reason; or if events could not be read.
    pub(super) async fn all(
        &self,
        mut source: Source,
        mut limiter: RateLimiter,
        summary: &mut Summary,
    ) -> anyhow::Result<()> {
        loop {
            let subject = summary.subject.clone();
            let read = self.stop.run_until_cancelled(source.part(&subject, &self.headers));
            let part = match read.await {
                None => Vec::new(),
                Some(part) => part.with_context(|| summary.unread())?,
            };
            summary.stopped = self.stop.is_cancelled();
            if part.is_empty() || summary.stopped {
                self.progress.finish_and_clear();
                return Ok(());
            }
            let mut rest = &part[..];
            while !rest.is_empty() {
                let slice;
                (slice, rest) =
                    rest.split_at(at_once(rest.iter().map(|replayed| replayed.message.size()), limiter.at_once()));
                let sent = match check_refusals(&self.bus) {
                    Ok(()) => self.slice(slice, summary).await,
                    refused => refused,
                };
                self.progress.set_position(summary.published);
                if let Err(error) = sent {
                    self.progress.finish_and_clear();
                    return Err(error);
                }
                let wait = limiter.sent(slice.len(), Instant::now());
                if wait > Duration::ZERO {
                    self.stop.run_until_cancelled(tokio::time::sleep(wait)).await;
                }
                if self.stop.is_cancelled() {
                    break;
                }
            }
        }
    }

    /// Publishes a slice in order and skips events that would become dead letters. If the stream refuses the slice,
    /// publishes one by one to find the refused event.
    async fn slice(&self, slice: &[ReplayMessage], summary: &mut Summary) -> anyhow::Result<()> {
        let mut rest = slice;
        while !rest.is_empty() {
            let mut problem = None;
            let sound = rest.iter().position(|replayed| {
                problem = self.problem(replayed);
                problem.is_some()
            });
            let (sendable, behind) = rest.split_at(sound.unwrap_or(rest.len()));
            if !sendable.is_empty()
                && let Err((index, error)) = self.send(sendable, summary.stream.is_some()).await
            {
                taken(&sendable[..index], summary);
                return Err(refused(&sendable[index], &error.to_string()));
            }
            taken(sendable, summary);
            rest = behind;
            if let (Some((replayed, behind)), Some(problem)) = (rest.split_first(), problem) {
                if let Some(skipped) = summary.skip(replayed.key, problem) {
                    self.progress.suspend(|| eprintln!("{skipped}"));
                }
                rest = behind;
            }
        }
        Ok(())
    }

    /// Returns why an event cannot be published again, if it cannot.
    fn problem(&self, replayed: &ReplayMessage) -> Option<String> {
        if !replayed.is_whole {
            return Some("its JSON is nested too deeply for numbers that print this long".to_owned());
        }
        let reject = self.precheck.as_ref()?.check(&replayed.message).err()?;
        Some(format!("it would be a dead letter: {reject}"))
    }

    /// Sends a slice in order. On an error, returns the index of the event that was not accepted.
    async fn send(&self, slice: &[ReplayMessage], is_taken: bool) -> Result<(), (usize, PublishError)> {
        let messages: Vec<_> = slice.iter().map(|replayed| replayed.message.clone()).collect();
        if !is_taken {
            return self.publisher.send_unanswered(&messages).await.map_err(|error| (0, error));
        }
        let Err(failed) = self.publisher.publish_encoded(Kind::Events, messages).await else { return Ok(()) };
        let mut missing: Vec<_> = failed.sequences().iter().map(Option::is_none).collect();
        missing.resize(slice.len(), true);
        let first = missing.iter().position(|is_missing| *is_missing).unwrap_or(0);
        // A batch is answered as a whole, so retry one by one. Do not retry on a lost connection or an unclear
        // acknowledgement: that would only fail again.
        let error = failed.error();
        if slice.len() == 1
            || error.is_unclear()
            || matches!(error, PublishError::NotConnected { .. } | PublishError::Closed)
        {
            return Err((first, error.clone()));
        }
        for (index, replayed) in slice.iter().enumerate().filter(|(index, _)| missing[*index]) {
            let one = self.publisher.publish_encoded(Kind::Events, [replayed.message.clone()]).await;
            one.map_err(|failed| (index, failed.error().clone()))?;
        }
        Ok(())
    }
}

fn taken(slice: &[ReplayMessage], summary: &mut Summary) {
    summary.published += slice.len() as u64;
    if let Some(last) = slice.last() {
        summary.last = Some(last.key.into());
    }
}

fn refused(replayed: &ReplayMessage, why: &str) -> anyhow::Error {
    let (created_at, id) = replayed.key;
    let at = time(created_at);
    anyhow::anyhow!(
        "event {id} of {at} was not accepted: {why}. Continue with it by `--from {at}`, or skip it by a later time"
    )
}

/// Returns how many messages of these sizes are sent at once, at least one.
fn at_once(sizes: impl Iterator<Item = usize>, most: usize) -> usize {
    let sums = sizes.scan(0_usize, |sum, size| {
        *sum += size;
        Some(*sum)
    });
    sums.take(most).take_while(|sum| *sum <= AT_ONCE_BYTES).count().max(1)
}

/// Checks that the server refused nothing. On a subject without a stream a refusal is only visible as an asynchronous
/// error of the server.
///
/// # Errors
/// If the server refused a publish.
pub(super) fn check_refusals(bus: &Bus) -> anyhow::Result<()> {
    anyhow::ensure!(bus.refusals().is_empty(), "NATS refused some of the events");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_at_once_is_one_batch() {
        const HALF: usize = AT_ONCE_BYTES / 2;
        for (sizes, most, at_once) in [
            (&[1, 1, 1][..], 2, 2),
            (&[1, 1, 1], 5, 3),
            (&[HALF, HALF, 1], 5, 2),
            (&[HALF, HALF + 1, 1], 5, 1),
            (&[AT_ONCE_BYTES + 1, 1], 5, 1),
        ] {
            assert_eq!(super::at_once(sizes.iter().copied(), most), at_once, "{sizes:?}");
        }
    }
}
