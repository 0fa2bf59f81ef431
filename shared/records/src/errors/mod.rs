//! Errors, with their trace, stack and severity.

mod fingerprint;

use std::borrow::Cow;

use schemars::{JsonSchema, Schema};
use serde::Serialize;

use crate::fields::{Fields, find_word};
use crate::kind::{Facts, Fixtures};
use crate::limits::{ID_BYTES, STACK_BYTES, TEXT_BYTES};
use crate::rollup::Column;
use crate::row::RowWriter;
use crate::{Conflict, Detail, Json, Kind, Partitioning, Record, Reject, Spec, schema};

pub(crate) const SPEC: Spec = Spec {
    table: "watchbook.error_logs",
    columns: &["trace_id", "error_type", "message", "stack", "detail", "project_id", "run_id", "endpoint", "severity"],
    detail: Detail { field: "severity", default: "error", word: Severity::word },
    derived: &["fingerprint"],
    labels: &[Column::Text("error_type"), Column::Text("severity"), Column::Text("project_id")],
    levels: &[],
    volume: None,
    partitioning: Partitioning::Daily,
    conflict: Conflict::KeepFirst,
    keep_days: Some(90),
    encode: |fields, row| {
        let error = ErrorRecord::decode(fields)?;
        error.encode(row);
        Ok(Facts { failed: error.severity != Severity::Warning, ..Facts::default() })
    },
    schema: own_schema,
    fixtures: Fixtures {
        accepted: include_str!("fixtures/accepted.ndjson"),
        rejected: include_str!("fixtures/rejected.ndjson"),
    },
};

/// Returns the schema of the fields, with the synonyms of severities.
fn own_schema() -> Schema {
    let mut schema = schema::own::<ErrorRecord<'static>>();
    if let Some(choices) =
        schema.get_mut("properties").and_then(|properties| properties["severity"]["oneOf"].as_array_mut())
    {
        choices.push(schema::words(
            "Synonyms. The word that was sent is kept in `attributes`.",
            Severity::SYNONYMS.iter().map(|(word, _)| *word),
        ));
    }
    schema
}

/// Severity of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing. The roll-ups do not count it as a failure.
    Warning,
    /// Something failed.
    #[default]
    Error,
    /// Someone must act.
    Critical,
}

impl Severity {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("warning", Self::Warning), ("error", Self::Error), ("critical", Self::Critical)];

    /// Synonyms of severities: from syslog (RFC 5424, section 6.2.1) and common loggers.
    const SYNONYMS: &'static [(&'static str, Self)] = &[
        ("warn", Self::Warning),
        ("info", Self::Warning),
        ("information", Self::Warning),
        ("informational", Self::Warning),
        ("notice", Self::Warning),
        ("err", Self::Error),
        ("crit", Self::Critical),
        ("fatal", Self::Critical),
        ("panic", Self::Critical),
        ("alert", Self::Critical),
        ("emerg", Self::Critical),
        ("emergency", Self::Critical),
    ];

    /// Returns the stored word for a severity or one of its synonyms, in upper or lower case.
    fn word(text: &str) -> Option<&'static str> {
        find_word(Self::CHOICES, text).or_else(|| find_word(Self::SYNONYMS, text)).map(Self::name)
    }

    /// Returns the word in subjects and columns.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// An error, with its trace and stack.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct ErrorRecord<'a> {
    /// Id of the trace. Required, 1 to 256 bytes.
    #[schemars(length(min = 1, max = ID_BYTES))]
    pub trace_id: Cow<'a, str>,
    /// Class of the error, such as `TimeoutError`. Required, 1 to 256 bytes.
    #[schemars(length(min = 1, max = ID_BYTES))]
    pub error_type: Cow<'a, str>,
    /// Message of the error. Required, at most 4 KiB.
    #[schemars(length(max = TEXT_BYTES))]
    pub message: Cow<'a, str>,
    /// Stack trace, at most 64 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = STACK_BYTES))]
    pub stack: Option<Cow<'a, str>>,
    /// Further details: a JSON object of at most 256 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Json<'a>>,
    /// Id of the project, at most 256 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = ID_BYTES))]
    pub project_id: Option<Cow<'a, str>>,
    /// Id of the run, at most 256 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = ID_BYTES))]
    pub run_id: Option<Cow<'a, str>>,
    /// Endpoint that was called, at most 4 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_BYTES))]
    pub endpoint: Option<Cow<'a, str>>,
    /// Severity of the error. Default: `error`.
    #[serde(default)]
    pub severity: Severity,
}

impl Record for ErrorRecord<'_> {
    const KIND: Kind = Kind::Errors;

    fn detail(&self) -> &str {
        self.severity.name()
    }
}

impl<'a> ErrorRecord<'a> {
    fn decode(fields: &mut Fields<'a>) -> Result<Self, Reject> {
        Ok(Self {
            trace_id: fields.required_id("trace_id")?,
            error_type: fields.required_id("error_type")?,
            message: fields.text("message", TEXT_BYTES)?.ok_or_else(|| Reject::missing("message"))?,
            stack: fields.text("stack", STACK_BYTES)?,
            detail: fields.object("detail")?.map(Json),
            project_id: fields.id("project_id")?,
            run_id: fields.id("run_id")?,
            endpoint: fields.text("endpoint", TEXT_BYTES)?,
            severity: fields.choice_or_synonym("severity", Severity::CHOICES, Severity::SYNONYMS)?.unwrap_or_default(),
        })
    }

    fn encode(&self, row: &mut RowWriter<'_>) {
        row.text(&self.trace_id);
        row.text(&self.error_type);
        row.text(&self.message);
        row.optional_text(self.stack.as_deref());
        row.optional_jsonb(self.detail.as_ref().map(Json::get));
        row.optional_text(self.project_id.as_deref());
        row.optional_text(self.run_id.as_deref());
        row.optional_text(self.endpoint.as_deref());
        row.text(self.severity.name());
        row.uuid(fingerprint::of(&self.error_type, &self.message, self.stack.as_deref()));
    }
}
