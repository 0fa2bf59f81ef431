//! Settings of the streams: their size, and how long settled messages stay readable in them.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::KeepPerKind;

/// Streams, as `setup` creates them and the writers expect them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Streams {
    /// Bytes that each stream may hold. A full stream refuses publishes; it never drops unwritten records.
    pub max_bytes: ByteSize,
    /// How long settled messages stay readable. They are purged earlier if a stream gets full.
    #[serde(with = "humantime_serde")]
    pub replay_window: Duration,
    /// Copies in a NATS cluster: 1, 3 or 5.
    pub replicas: u8,
    /// The stream of events.
    #[serde(skip_serializing_if = "StreamSize::is_default")]
    pub events: StreamSize,
    /// The stream of errors.
    #[serde(skip_serializing_if = "StreamSize::is_default")]
    pub errors: StreamSize,
    /// The stream of container metrics.
    #[serde(skip_serializing_if = "StreamSize::is_default")]
    pub metrics: StreamSize,
    /// The stream of container logs.
    #[serde(skip_serializing_if = "StreamSize::is_default")]
    pub logs: StreamSize,
    /// The stream of audit records.
    #[serde(skip_serializing_if = "StreamSize::is_default")]
    pub audit: StreamSize,
    /// The stream of sandbox executions.
    #[serde(skip_serializing_if = "StreamSize::is_default")]
    pub executions: StreamSize,
    /// The stream of the directory.
    #[serde(skip_serializing_if = "StreamSize::is_default")]
    pub directory: StreamSize,
}

/// The size of one kind's stream, if it differs from the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamSize {
    /// Bytes that this stream may hold. Default: `max_bytes` of [streams].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<ByteSize>,
    /// How long settled messages stay readable in this stream. Default: `replay_window` of [streams].
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub replay_window: Option<Duration>,
}

impl Default for Streams {
    fn default() -> Self {
        let same = StreamSize::default();
        Self {
            max_bytes: ByteSize::gib(1),
            replay_window: Duration::from_secs(60 * 60),
            replicas: 1,
            events: same,
            errors: same,
            metrics: same,
            logs: same,
            audit: same,
            executions: same,
            directory: same,
        }
    }
}

impl StreamSize {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The minimum: a smaller stream cannot hold even one batch of large messages.
const MIN_STREAM: ByteSize = ByteSize::mib(16);
/// Bytes a second of a nearly idle stream.
const SLOWEST_STREAM: u64 = 500;

impl Streams {
    fn sizes(&self) -> [(&'static str, StreamSize); 7] {
        [
            ("events", self.events),
            ("errors", self.errors),
            ("metrics", self.metrics),
            ("logs", self.logs),
            ("audit", self.audit),
            ("executions", self.executions),
            ("directory", self.directory),
        ]
    }

    fn size(&self, kind: &str) -> StreamSize {
        self.sizes().into_iter().find(|(name, _)| *name == kind).map_or_else(StreamSize::default, |(_, size)| size)
    }

    /// Returns the bytes that the stream of the kind may hold.
    pub fn max_bytes(&self, kind: &str) -> ByteSize {
        self.size(kind).max_bytes.unwrap_or(self.max_bytes)
    }

    /// Returns how long settled messages stay readable in the stream of the kind.
    pub fn replay_window(&self, kind: &str) -> Duration {
        self.size(kind).replay_window.unwrap_or(self.replay_window)
    }

    /// Returns the problems of the sizes, each as the key to change and a description. A problem of a value that
    /// several kinds share is returned once.
    pub(super) fn problems(&self, keep: &KeepPerKind) -> Vec<(String, String)> {
        let mut problems: Vec<(String, String)> = Vec::new();
        for (kind, own) in self.sizes() {
            let (max_bytes, window) = (self.max_bytes(kind), self.replay_window(kind));
            let key = |is_own: bool, key: &str| {
                if is_own { format!("streams.{kind}.{key}") } else { format!("streams.{key}") }
            };
            let size_key = key(own.max_bytes.is_some(), "max_bytes");
            let window_key = key(own.replay_window.is_some(), "replay_window");
            let mut found = Vec::new();
            if max_bytes < MIN_STREAM {
                found.push((size_key.clone(), "at least 16 MiB".to_owned()));
            } else if window.as_secs().saturating_mul(SLOWEST_STREAM) > max_bytes.as_u64() {
                let records = "even at one record of 500 bytes a second";
                // Report the key that was set for this kind.
                found.push(if own.max_bytes.is_some() && own.replay_window.is_none() {
                    let window = humantime::format_duration(window);
                    (size_key, format!("cannot hold `replay_window` ({window}) {records}"))
                } else {
                    (window_key.clone(), format!("longer than `max_bytes` can hold {records}"))
                });
            }
            if keep.of(kind).duration().is_some_and(|keep| window > keep) {
                let problem =
                    "longer than the time in [retention] keep: replayed records would be too old to be stored";
                found.push((window_key, problem.to_owned()));
            }
            for problem in found {
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_its_own_size_or_that_of_all() {
        let streams: Streams =
            toml::from_str("max_bytes = \"2GiB\"\nlogs = { max_bytes = \"4GiB\" }\naudit = { replay_window = \"2d\" }")
                .unwrap();
        assert_eq!(streams.max_bytes("logs"), ByteSize::gib(4));
        assert_eq!(streams.replay_window("logs"), Duration::from_secs(3_600));
        assert_eq!(streams.max_bytes("audit"), ByteSize::gib(2));
        assert_eq!(streams.replay_window("audit"), Duration::from_secs(2 * 86_400));
        assert_eq!(streams.max_bytes("directory"), ByteSize::gib(2));
    }

    #[test]
    fn a_size_that_all_share_is_wrong_once_and_another_where_it_was_set() {
        let keys = |text: &str| {
            let streams: Streams = toml::from_str(text).unwrap();
            streams.problems(&KeepPerKind::default()).into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(keys(""), [""; 0]);
        assert_eq!(keys("max_bytes = \"1MiB\""), ["streams.max_bytes"]);
        assert_eq!(keys("replay_window = \"29d\""), ["streams.replay_window"]);
        // Enough for all but this one.
        assert_eq!(keys("replay_window = \"10h\"\nlogs = { max_bytes = \"16MiB\" }"), ["streams.logs.max_bytes"]);
        assert_eq!(keys("logs = { replay_window = \"29d\" }"), ["streams.logs.replay_window"]);
        assert_eq!(keys("logs = { replay_window = \"29d\", max_bytes = \"20MiB\" }"), ["streams.logs.replay_window"]);
        // Audit records are kept for ever and logs for 30 days.
        assert_eq!(keys("max_bytes = \"10GiB\"\naudit = { replay_window = \"31d\" }"), [""; 0]);
        assert_eq!(keys("max_bytes = \"10GiB\"\nlogs = { replay_window = \"31d\" }"), ["streams.logs.replay_window"]);
    }
}
