//! A replay under way.

use std::time::{Duration, Instant};

use anyhow::Context;
use bus::Bus;
use indicatif::ProgressBar;
use publisher::{PublishError, Publisher};
use records::{Headers, Kind};
use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use super::source::{Again, Source};
use super::summary::{Summary, time};
use super::writers::Writers;

/// Bytes that are sent at once at the most, which is one atomic batch: of several on their way one may be refused and the
/// next one taken, and they come in order.
const AT_ONCE_BYTES: usize = 2 * 1024 * 1024;

/// A replay under way.
#[derive(Debug)]
pub(super) struct Replaying {
    pub(super) publisher: Publisher,
    pub(super) bus: Bus,
    pub(super) headers: Headers,
    /// Of the subject, where it is Watchbook's own.
    pub(super) writers: Option<Writers>,
    pub(super) stop: CancellationToken,
    pub(super) progress: ProgressBar,
}

impl Replaying {
    /// Publishes all that the source has, or until it is stopped. The summary says how far it came, however it ends.
    ///
    /// # Errors
    /// Which event was not taken, and why; or why none could be read.
    pub(super) async fn all(&self, mut source: Source, mut pace: Pace, summary: &mut Summary) -> anyhow::Result<()> {
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
                (slice, rest) = rest.split_at(at_once(rest.iter().map(|again| again.message.size()), pace.at_once()));
                let sent = match said_no(&self.bus) {
                    Ok(()) => self.slice(slice, summary).await,
                    refused => refused,
                };
                self.progress.set_position(summary.published);
                if let Err(error) = sent {
                    self.progress.finish_and_clear();
                    return Err(error);
                }
                let wait = pace.sent(slice.len(), Instant::now());
                if wait > Duration::ZERO {
                    self.stop.run_until_cancelled(tokio::time::sleep(wait)).await;
                }
                if self.stop.is_cancelled() {
                    break;
                }
            }
        }
    }

    /// Publishes some, in order, and passes by those that would only become dead letters. Where the stream refuses them,
    /// one by one: so it is known which one.
    async fn slice(&self, slice: &[Again], summary: &mut Summary) -> anyhow::Result<()> {
        let mut rest = slice;
        while !rest.is_empty() {
            let mut problem = None;
            let sound = rest.iter().position(|again| {
                problem = self.problem(again);
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
            if let (Some((again, behind)), Some(problem)) = (rest.split_first(), problem) {
                if let Some(skipped) = summary.skip(again.key, problem) {
                    self.progress.suspend(|| eprintln!("{skipped}"));
                }
                rest = behind;
            }
        }
        Ok(())
    }

    /// Why an event cannot be published again.
    fn problem(&self, again: &Again) -> Option<String> {
        if !again.is_whole {
            return Some("its JSON is nested too deep for numbers that print so long".to_owned());
        }
        let reject = self.writers.as_ref()?.check(&again.message).err()?;
        Some(format!("it would be a dead letter: {reject}"))
    }

    /// Sends some, in order. Where one is not taken, says which.
    async fn send(&self, slice: &[Again], is_taken: bool) -> Result<(), (usize, PublishError)> {
        let messages: Vec<_> = slice.iter().map(|again| again.message.clone()).collect();
        if !is_taken {
            return self.publisher.send_unanswered(&messages).await.map_err(|error| (0, error));
        }
        let Err(failed) = self.publisher.publish_encoded(Kind::Events, messages).await else { return Ok(()) };
        let mut missing: Vec<_> = failed.sequences().iter().map(Option::is_none).collect();
        missing.resize(slice.len(), true);
        let first = missing.iter().position(|is_missing| *is_missing).unwrap_or(0);
        // The answer to a batch is about all of it. One that is lost would only be lost again.
        let error = failed.error();
        if slice.len() == 1
            || error.is_unclear()
            || matches!(error, PublishError::NotConnected { .. } | PublishError::Closed)
        {
            return Err((first, error.clone()));
        }
        for (index, again) in slice.iter().enumerate().filter(|(index, _)| missing[*index]) {
            let one = self.publisher.publish_encoded(Kind::Events, [again.message.clone()]).await;
            one.map_err(|failed| (index, failed.error().clone()))?;
        }
        Ok(())
    }
}

fn taken(slice: &[Again], summary: &mut Summary) {
    summary.published += slice.len() as u64;
    if let Some(last) = slice.last() {
        summary.last = Some(last.key.into());
    }
}

fn refused(again: &Again, why: &str) -> anyhow::Error {
    let (created_at, id) = again.key;
    let at = time(created_at);
    anyhow::anyhow!("the event {id} of {at} is not taken: {why}. `--from {at}` goes on with it, a later one behind it")
}

/// How many messages of these sizes are sent at once: at least one.
fn at_once(sizes: impl Iterator<Item = usize>, most: usize) -> usize {
    let sums = sizes.scan(0_usize, |sum, size| {
        *sum += size;
        Some(*sum)
    });
    sums.take(most).take_while(|sum| *sum <= AT_ONCE_BYTES).count().max(1)
}

/// On a subject that no stream takes a refusal shows by a word of the server's alone.
pub(super) fn said_no(bus: &Bus) -> anyhow::Result<()> {
    anyhow::ensure!(bus.refusals().is_empty(), "not all of it was taken");
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
