//! Logs: the output of containers, line by line.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use crate::fields::Fields;
use crate::kind::{Facts, Fixtures};
use crate::limits::{ID_BYTES, LOG_LINE_BYTES};
use crate::rollup::Column;
use crate::row::RowWriter;
use crate::{Conflict, Detail, Kind, Partitioning, Record, Reject, Spec, Volume, schema, text};

pub(crate) const SPEC: Spec = Spec {
    table: "watchbook.container_logs",
    columns: &["container_id", "stream", "message"],
    detail: Detail::text("container_id"),
    derived: &[],
    labels: &[Column::Text("container_id"), Column::Text("stream")],
    levels: &[],
    volume: Some(Volume { owner: "container_id", text: "message" }),
    partitioning: Partitioning::Daily,
    conflict: Conflict::KeepFirst,
    keep_days: Some(30),
    encode: |fields, row| {
        let (line, truncated_bytes) = LogLine::decode(fields)?;
        line.encode(row);
        Ok(Facts { truncated_bytes, ..Facts::default() })
    },
    schema: schema::own::<LogLine<'static>>,
    fixtures: Fixtures {
        accepted: include_str!("fixtures/accepted.ndjson"),
        rejected: include_str!("fixtures/rejected.ndjson"),
    },
};

/// Output stream of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

impl Output {
    const CHOICES: &'static [(&'static str, Self)] = &[("stdout", Self::Stdout), ("stderr", Self::Stderr)];

    const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One line of the output of a container.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct LogLine<'a> {
    /// Id of the container. Required, 1 to 256 bytes.
    #[schemars(length(min = 1, max = ID_BYTES))]
    pub container_id: Cow<'a, str>,
    /// Output stream. Required.
    pub stream: Output,
    /// The line. Required. Cut at a character after at most 16 KiB; `attributes.truncated_bytes` counts the rest.
    pub message: Cow<'a, str>,
}

impl Record for LogLine<'_> {
    const KIND: Kind = Kind::Logs;

    fn detail(&self) -> &str {
        &self.container_id
    }
}

impl<'a> LogLine<'a> {
    /// Returns the line, and how many bytes of its message were cut.
    fn decode(fields: &mut Fields<'a>) -> Result<(Self, usize), Reject> {
        let container_id = fields.required_id("container_id")?;
        let stream = fields.choice("stream", Output::CHOICES)?.ok_or_else(|| Reject::missing("stream"))?;
        let whole = fields.unbounded_text("message")?.ok_or_else(|| Reject::missing("message"))?;
        let kept = text::cut(&whole, LOG_LINE_BYTES).len();
        let truncated = whole.len() - kept;
        let message = match whole {
            Cow::Borrowed(whole) => Cow::Borrowed(&whole[..kept]),
            Cow::Owned(mut whole) => {
                whole.truncate(kept);
                Cow::Owned(whole)
            }
        };
        Ok((Self { container_id, stream, message }, truncated))
    }

    fn encode(&self, row: &mut RowWriter<'_>) {
        row.text(&self.container_id);
        row.text(self.stream.name());
        row.text(&self.message);
    }
}
