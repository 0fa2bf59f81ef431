//! Metrics: samples of the resource usage of containers.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use crate::fields::Fields;
use crate::kind::{Facts, Fixtures};
use crate::limits::ID_BYTES;
use crate::rollup::Column;
use crate::row::RowWriter;
use crate::{Conflict, Detail, Kind, Partitioning, Record, Reject, Spec, schema};

pub(crate) const SPEC: Spec = Spec {
    table: "watchbook.container_metrics",
    columns: &["container_id", "cpu_usage_percent", "memory_usage_bytes", "network_rx_bytes", "network_tx_bytes"],
    detail: Detail::text("container_id"),
    derived: &[],
    labels: &[Column::Text("container_id")],
    // The network fields are counters, not levels.
    levels: &[Column::Double("cpu_usage_percent"), Column::Bigint("memory_usage_bytes")],
    volume: None,
    partitioning: Partitioning::Daily,
    conflict: Conflict::KeepFirst,
    keep_days: Some(30),
    encode: |fields, row| {
        MetricSample::decode(fields)?.encode(row);
        Ok(Facts::default())
    },
    schema: schema::own::<MetricSample<'static>>,
    fixtures: Fixtures {
        accepted: include_str!("fixtures/accepted.ndjson"),
        rejected: include_str!("fixtures/rejected.ndjson"),
    },
};

/// Resource usage of a container at one moment.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct MetricSample<'a> {
    /// Id of the container. Required, 1 to 256 bytes.
    #[schemars(length(min = 1, max = ID_BYTES))]
    pub container_id: Cow<'a, str>,
    /// CPU usage in percent of one core, at least 0; above 100 if several cores are used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cpu_usage_percent: Option<f64>,
    /// Memory in use, in bytes, at least 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub memory_usage_bytes: Option<i64>,
    /// Bytes received so far: a counter, at least 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub network_rx_bytes: Option<i64>,
    /// Bytes sent so far: a counter, at least 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub network_tx_bytes: Option<i64>,
}

impl Record for MetricSample<'_> {
    const KIND: Kind = Kind::Metrics;

    fn detail(&self) -> &str {
        &self.container_id
    }
}

impl<'a> MetricSample<'a> {
    fn decode(fields: &mut Fields<'a>) -> Result<Self, Reject> {
        Ok(Self {
            container_id: fields.required_id("container_id")?,
            cpu_usage_percent: fields.number("cpu_usage_percent", 0.0)?,
            memory_usage_bytes: fields.integer("memory_usage_bytes", 0)?,
            network_rx_bytes: fields.integer("network_rx_bytes", 0)?,
            network_tx_bytes: fields.integer("network_tx_bytes", 0)?,
        })
    }

    fn encode(&self, row: &mut RowWriter<'_>) {
        row.text(&self.container_id);
        row.optional_double(self.cpu_usage_percent);
        row.optional_bigint(self.memory_usage_bytes);
        row.optional_bigint(self.network_rx_bytes);
        row.optional_bigint(self.network_tx_bytes);
    }
}
