//! Errors, with their trace and stack.

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

/// The fields, with the other names of severities.
fn own_schema() -> Schema {
    let mut schema = schema::own::<ErrorRecord<'static>>();
    if let Some(choices) =
        schema.get_mut("properties").and_then(|properties| properties["severity"]["oneOf"].as_array_mut())
    {
        choices.push(schema::words(
            "Other names: kept in `attributes` as they were sent.",
            Severity::SYNONYMS.iter().map(|(word, _)| *word),
        ));
    }
    schema
}

/// How bad an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Somebody should know.
    Warning,
    /// Something failed.
    #[default]
    Error,
    /// Somebody must act.
    Critical,
}

impl Severity {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("warning", Self::Warning), ("error", Self::Error), ("critical", Self::Critical)];

    /// Other names of severities: of syslog (RFC 5424, section 6.2.1) and of common loggers.
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

    /// The stored word for a word or one of its synonyms.
    fn word(text: &str) -> Option<&'static str> {
        find_word(Self::CHOICES, text).or_else(|| find_word(Self::SYNONYMS, text)).map(Self::name)
    }

    /// The word in subjects and columns.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// Something that went wrong.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct ErrorRecord<'a> {
    /// The trace it belongs to.
    #[schemars(length(min = 1, max = ID_BYTES))]
    pub trace_id: Cow<'a, str>,
    /// Its class, such as `TimeoutError`.
    #[schemars(length(min = 1, max = ID_BYTES))]
    pub error_type: Cow<'a, str>,
    /// What it says.
    #[schemars(length(max = TEXT_BYTES))]
    pub message: Cow<'a, str>,
    /// Where it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = STACK_BYTES))]
    pub stack: Option<Cow<'a, str>>,
    /// Whatever belongs to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Json<'a>>,
    /// The project.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = ID_BYTES))]
    pub project_id: Option<Cow<'a, str>>,
    /// The run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = ID_BYTES))]
    pub run_id: Option<Cow<'a, str>>,
    /// The endpoint that was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_BYTES))]
    pub endpoint: Option<Cow<'a, str>>,
    /// How bad it is.
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
