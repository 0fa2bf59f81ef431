//! Executions of strategies in a sandbox.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::{Value, json};

use crate::fields::{Fields, find_word};
use crate::kind::{Facts, Fixtures};
use crate::limits::{ID_BYTES, LIST_ITEMS};
use crate::rollup::Column;
use crate::row::RowWriter;
use crate::{Conflict, Detail, Json, Kind, Partitioning, Record, Reject, Spec, schema};

pub(crate) const SPEC: Spec = Spec {
    table: "watchbook.sandbox_execution_logs",
    columns: &[
        "user_id",
        "strategy_id",
        "execution_type",
        "success",
        "execution_time_ms",
        "memory_used_mb",
        "cpu_usage_percent",
        "timed_out",
        "error_count",
        "warning_count",
        "classes_found",
        "metadata",
    ],
    detail: Detail {
        field: "execution_type",
        default: "",
        word: |text| find_word(ExecutionType::CHOICES, text).map(ExecutionType::name),
    },
    derived: &[],
    labels: &[
        Column::Text("strategy_id"),
        Column::Text("user_id"),
        Column::Text("execution_type"),
        Column::Boolean("timed_out"),
    ],
    levels: &[],
    volume: None,
    partitioning: Partitioning::Daily,
    conflict: Conflict::KeepFirst,
    keep_days: Some(90),
    encode: |fields, row| {
        let execution = Execution::decode(fields)?;
        execution.encode(row);
        Ok(Facts { failed: !execution.success, ..Facts::default() })
    },
    schema: own_schema,
    fixtures: Fixtures {
        accepted: include_str!("fixtures/accepted.ndjson"),
        rejected: include_str!("fixtures/rejected.ndjson"),
    },
};

/// Older names of fields. Each is used if its field is absent.
const ALIASES: [(&str, &str); 3] =
    [("execution_time", "execution_time_ms"), ("memory_used", "memory_used_mb"), ("cpu_usage", "cpu_usage_percent")];

/// Returns the schema of the fields, with each alias as a property. Of a required field, either name suffices.
fn own_schema() -> Schema {
    let mut schema = schema::own::<Execution<'static>>();
    for (alias, name) in ALIASES {
        if let Some(Value::Object(properties)) = schema.get_mut("properties")
            && let Some(mut property) = properties.get(name).cloned()
        {
            property["description"] = json!(format!("Alias, used if {name} is absent."));
            properties.insert(alias.to_owned(), property);
        }
        if let Some(Value::Array(required)) = schema.get_mut("required")
            && let Some(at) = required.iter().position(|required| required == name)
        {
            required.remove(at);
            let given =
                |name: &str| json!({ "required": [name], "properties": { name: { "not": { "type": "null" } } } });
            schema.insert("anyOf".to_owned(), json!([given(name), given(alias)]));
        }
    }
    schema
}

/// Returns the schema of a list of texts, or of one text with commas.
fn text_list_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [
            { "type": "array", "items": { "type": "string" }, "maxItems": LIST_ITEMS },
            { "type": "string" }
        ]
    })
}

/// Purpose of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ExecutionType {
    /// To check whether the strategy is valid.
    #[default]
    Validation,
    /// To use the strategy from a terminal.
    Terminal,
}

impl ExecutionType {
    const CHOICES: &'static [(&'static str, Self)] = &[("VALIDATION", Self::Validation), ("TERMINAL", Self::Terminal)];

    const fn name(self) -> &'static str {
        match self {
            Self::Validation => "VALIDATION",
            Self::Terminal => "TERMINAL",
        }
    }
}

/// One execution of a strategy in a sandbox.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Execution<'a> {
    /// Id of the user who executed the strategy. Required, 1 to 256 bytes.
    #[schemars(length(min = 1, max = ID_BYTES))]
    pub user_id: Cow<'a, str>,
    /// Id of the strategy. Required, 1 to 256 bytes.
    #[schemars(length(min = 1, max = ID_BYTES))]
    pub strategy_id: Cow<'a, str>,
    /// Purpose of the execution. Required.
    pub execution_type: ExecutionType,
    /// Whether the execution succeeded. Required.
    pub success: bool,
    /// Duration in milliseconds, at least 0. Required. `execution_time` is accepted too.
    #[schemars(range(min = 0))]
    pub execution_time_ms: i64,
    /// Memory used, in MiB. `memory_used` is accepted too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_used_mb: Option<i64>,
    /// CPU usage in percent of one core. `cpu_usage` is accepted too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_usage_percent: Option<f64>,
    /// Whether the execution was stopped because it took too long. Default: `false`.
    #[serde(default)]
    pub timed_out: bool,
    /// Number of errors reported, at least 0. Default: 0.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub error_count: i64,
    /// Number of warnings reported, at least 0. Default: 0.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub warning_count: i64,
    /// Classes found in the strategy: a list of at most 4096 texts, or one text with commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text_list_schema")]
    pub classes_found: Option<Vec<String>>,
    /// Further details: a JSON object of at most 256 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Json<'a>>,
}

impl Record for Execution<'_> {
    const KIND: Kind = Kind::Executions;

    fn detail(&self) -> &str {
        self.execution_type.name()
    }
}

impl<'a> Execution<'a> {
    fn decode(fields: &mut Fields<'a>) -> Result<Self, Reject> {
        for (alias, name) in ALIASES {
            fields.alias(alias, name);
        }
        Ok(Self {
            user_id: fields.required_id("user_id")?,
            strategy_id: fields.required_id("strategy_id")?,
            execution_type: fields
                .choice("execution_type", ExecutionType::CHOICES)?
                .ok_or_else(|| Reject::missing("execution_type"))?,
            success: fields.boolean("success")?.ok_or_else(|| Reject::missing("success"))?,
            execution_time_ms: fields
                .integer("execution_time_ms", 0)?
                .ok_or_else(|| Reject::missing("execution_time_ms"))?,
            memory_used_mb: fields.integer("memory_used_mb", i64::MIN)?,
            cpu_usage_percent: fields.number("cpu_usage_percent", f64::MIN)?,
            timed_out: fields.boolean("timed_out")?.unwrap_or_default(),
            error_count: fields.integer("error_count", 0)?.unwrap_or_default(),
            warning_count: fields.integer("warning_count", 0)?.unwrap_or_default(),
            classes_found: fields.text_list("classes_found")?,
            metadata: fields.object("metadata")?.map(Json),
        })
    }

    fn encode(&self, row: &mut RowWriter<'_>) {
        row.text(&self.user_id);
        row.text(&self.strategy_id);
        row.text(self.execution_type.name());
        row.boolean(self.success);
        row.bigint(self.execution_time_ms);
        row.optional_bigint(self.memory_used_mb);
        row.optional_double(self.cpu_usage_percent);
        row.boolean(self.timed_out);
        row.bigint(self.error_count);
        row.bigint(self.warning_count);
        row.optional_text_array(self.classes_found.as_deref());
        row.optional_jsonb(self.metadata.as_ref().map(Json::get));
    }
}
