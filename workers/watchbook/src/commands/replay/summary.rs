//! How a replay ended.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use store::questions::{Key, Span};
use uuid::Uuid;

use crate::output;

/// What a replay did, as `--json` says it.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// Where it went.
    pub(super) subject: String,
    /// The stream that takes the subject; null where none does.
    pub(super) stream: Option<String>,
    /// Whether it was only tried.
    dry_run: bool,
    /// The first moment that was looked at.
    from: DateTime<Utc>,
    /// The last one.
    to: DateTime<Utc>,
    /// Events that there are to publish.
    pub(super) events: u64,
    /// Events that were published.
    pub(super) published: u64,
    /// The last of these.
    pub(super) last: Option<Last>,
    /// Whether it was stopped before its end.
    pub(super) stopped: bool,
}

/// The last event that was published.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Last {
    created_at: DateTime<Utc>,
    id: Uuid,
}

impl From<Key> for Last {
    fn from((created_at, id): Key) -> Self {
        Self { created_at, id }
    }
}

impl Summary {
    pub(super) fn of(subject: String, stream: Option<String>, span: Span, dry_run: bool) -> Self {
        let Span { from, to } = span;
        Self { subject, stream, dry_run, from, to, events: 0, published: 0, last: None, stopped: false }
    }

    /// What there is to do, before it is done.
    pub(super) fn plan(&self, is_everything: bool) -> String {
        let all = if is_everything { "all that is kept: " } else { "" };
        let taken = match &self.stream {
            Some(stream) => format!("the stream {stream} takes it"),
            None => format!("no stream takes {}: whoever is not listening misses it", self.subject),
        };
        format!(
            "{all}{} events from {} to {} go to {}; {taken}",
            output::grouped(self.events),
            time(self.from),
            time(self.to),
            self.subject
        )
    }

    /// What was done, and how to go on where it is not all.
    pub(super) fn end(&self) -> String {
        let published = output::grouped(self.published);
        match self.last {
            _ if !self.stopped => format!("{published} events published"),
            None => "stopped before the first event".to_owned(),
            Some(Last { created_at, id }) => {
                let of = output::grouped(self.events);
                let at = time(created_at);
                format!(
                    "stopped: {published} of {of} events published, the last one {id} of {at}. `--from {at}` goes on with \
                     it; whoever takes the same event twice knows it by its id"
                )
            }
        }
    }

    /// That what comes next cannot be read.
    pub(super) fn unread(&self) -> String {
        match self.last {
            None => "read the first events".to_owned(),
            Some(Last { created_at, id }) => {
                let at = time(created_at);
                format!("read the events behind {id} of {at}, where `--from {at}` goes on")
            }
        }
    }
}

/// A moment, to the microsecond: what `--from` takes.
pub(super) fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_stopped_knows_how_to_go_on() {
        let at: DateTime<Utc> = "2026-01-02T03:04:05.000006Z".parse().unwrap();
        let mut summary = Summary::of("staging".to_owned(), None, Span { from: at, to: at }, false);
        summary.events = 1_200;
        assert!(summary.plan(true).contains("all that is kept: 1,200 events"));
        assert!(summary.plan(false).contains("no stream takes staging: whoever is not listening misses it"));
        summary.stopped = true;
        assert!(summary.end().contains("before the first"));
        (summary.published, summary.last) = (700, Some((at, Uuid::nil()).into()));
        assert!(summary.end().contains("--from 2026-01-02T03:04:05.000006Z"), "{}", summary.end());
        assert!(summary.unread().contains("--from 2026-01-02T03:04:05.000006Z"));
        summary.stopped = false;
        assert_eq!(summary.end(), "700 events published");
    }
}
