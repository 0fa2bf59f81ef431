//! The summary of a replay.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use store::queries::{Key, Span};
use uuid::Uuid;

use crate::output;

/// The result of a replay, printed by `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// The subject that events were published on.
    pub(super) subject: String,
    /// The stream that captures the subject; null if there is none.
    pub(super) stream: Option<String>,
    /// Whether it was a dry run.
    dry_run: bool,
    /// Start of the time range that was searched.
    from: DateTime<Utc>,
    /// End of the time range that was searched.
    to: DateTime<Utc>,
    /// Number of events that match.
    pub(super) events: u64,
    /// Number of events published.
    pub(super) published: u64,
    /// The last event published.
    pub(super) last: Option<Last>,
    /// Number of events that were not published, because they would become dead letters.
    pub(super) skipped: u64,
    /// The first of these events.
    skipped_events: Vec<Skipped>,
    /// Whether it was stopped before its end.
    pub(super) stopped: bool,
}

/// Time and id of the last event published.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Last {
    created_at: DateTime<Utc>,
    id: Uuid,
}

/// The number of skipped events that are listed. Further ones are only counted, so that the summary stays bounded.
const NAMED: usize = 100;

/// An event that was not published.
#[derive(Debug, Clone, Serialize)]
struct Skipped {
    created_at: DateTime<Utc>,
    id: Uuid,
    why: String,
}

impl From<Key> for Last {
    fn from((created_at, id): Key) -> Self {
        Self { created_at, id }
    }
}

impl Summary {
    pub(super) fn of(subject: String, stream: Option<String>, span: Span, dry_run: bool) -> Self {
        let Span { from, to } = span;
        Self {
            subject,
            stream,
            dry_run,
            from,
            to,
            events: 0,
            published: 0,
            last: None,
            skipped: 0,
            skipped_events: Vec::new(),
            stopped: false,
        }
    }

    /// Returns what will be published, shown before the replay starts.
    pub(super) fn plan(&self, is_everything: bool) -> String {
        let all = if is_everything { "all stored events: " } else { "" };
        let taken = match &self.stream {
            Some(stream) => format!("the stream {stream} captures it"),
            None => format!("no stream captures {}: only current subscribers receive them", self.subject),
        };
        format!(
            "{all}{} events from {} to {} go to {}; {taken}",
            output::grouped(self.events),
            time(self.from),
            time(self.to),
            self.subject
        )
    }

    /// Counts an event that is not published. Returns what to say of it; nothing once enough of them are named.
    pub(super) fn skip(&mut self, (created_at, id): Key, why: String) -> Option<String> {
        self.skipped += 1;
        if self.skipped_events.len() == NAMED {
            return (self.skipped == NAMED as u64 + 1).then(|| "more events are skipped, and only counted".to_owned());
        }
        let said = format!("the event {id} of {} is skipped: {why}", time(created_at));
        self.skipped_events.push(Skipped { created_at, id, why });
        Some(said)
    }

    /// Returns what was done, and how to continue if the replay is incomplete.
    pub(super) fn end(&self) -> String {
        let published = output::grouped(self.published);
        match self.last {
            _ if !self.stopped && self.skipped > 0 => {
                format!("{published} events published, {} skipped", output::grouped(self.skipped))
            }
            _ if !self.stopped => format!("{published} events published"),
            None => "stopped before the first event".to_owned(),
            Some(Last { created_at, id }) => {
                let of = output::grouped(self.events);
                let at = time(created_at);
                format!(
                    "stopped: {published} of {of} events published, the last one {id} of {at}. `--from {at}` continues \
                     and publishes that event again, with the same id"
                )
            }
        }
    }

    /// Returns the context of an error that occurred while reading the next events.
    pub(super) fn unread(&self) -> String {
        match self.last {
            None => "read the first events".to_owned(),
            Some(Last { created_at, id }) => {
                let at = time(created_at);
                format!("read the events after {id} of {at} (`--from {at}` continues there)")
            }
        }
    }
}

/// Formats a time to the microsecond, as `--from` takes it.
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
        assert!(summary.plan(true).contains("all stored events: 1,200 events"));
        assert!(summary.plan(false).contains("no stream captures staging: only current subscribers receive them"));
        summary.stopped = true;
        assert!(summary.end().contains("before the first"));
        (summary.published, summary.last) = (700, Some((at, Uuid::nil()).into()));
        assert!(summary.end().contains("--from 2026-01-02T03:04:05.000006Z"), "{}", summary.end());
        assert!(summary.unread().contains("--from 2026-01-02T03:04:05.000006Z"));
        summary.stopped = false;
        assert_eq!(summary.end(), "700 events published");
        for number in 1..=NAMED as u64 + 2 {
            let said = summary.skip((at, Uuid::nil()), "too old".to_owned());
            assert_eq!(said.is_some(), number <= NAMED as u64 + 1);
        }
        assert_eq!(summary.end(), "700 events published, 102 skipped");
        assert_eq!(summary.skipped_events.len(), NAMED);
    }
}
