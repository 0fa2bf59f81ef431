//! Metrics of containers.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::select::Select;
use super::{Page, StoredJson, listed_by, printable};
use crate::Steps;
use crate::metric_hours::{self, Point};
use crate::scoped_read::ReadTransaction;

/// A filter for samples.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetricFilter {
    /// The organization to match.
    pub organization_id: Option<String>,
    /// The container to match.
    pub container_id: String,
}

/// A sample of a container's metrics.
#[derive(Debug, Clone, FromRow, Serialize, ToSchema)]
pub struct MetricRow {
    /// Its id.
    pub id: Uuid,
    /// The organization that owns it; null if it belongs to the platform.
    pub organization_id: Option<String>,
    /// When it was taken.
    pub created_at: DateTime<Utc>,
    /// When JetStream stored it.
    pub received_at: DateTime<Utc>,
    /// The service that published it.
    pub source: Option<String>,
    /// The container.
    pub container_id: String,
    /// CPU usage in percent of one core.
    pub cpu_usage_percent: Option<f64>,
    /// Memory in use, in bytes.
    pub memory_usage_bytes: Option<i64>,
    /// Total bytes received until then.
    pub network_rx_bytes: Option<i64>,
    /// Total bytes sent until then.
    pub network_tx_bytes: Option<i64>,
    /// Fields that the contract does not define.
    #[schema(value_type = Object)]
    pub attributes: StoredJson,
}
listed_by!(created_at: MetricRow);

/// Serves `GET /api/metrics` without `step`: returns the samples of a container, newest first.
///
/// # Errors
/// If the query fails or times out.
pub async fn list(
    transaction: &mut ReadTransaction,
    filter: &MetricFilter,
    page: &Page,
) -> crate::Result<Vec<MetricRow>> {
    Select::of(&format!(
        "SELECT id, organization_id, created_at, received_at, source, container_id, cpu_usage_percent, memory_usage_bytes,
                network_rx_bytes, network_tx_bytes, {}
           FROM watchbook.container_metrics",
        printable("attributes")
    ))
    .organization("organization_id", transaction, filter.organization_id.as_deref())
    .and_optional("container_id = ", Some(filter.container_id.as_str()))
    .on("created_at", page)
    .newest("created_at", page.limit)
    .all(transaction)
    .await
}

/// Serves `GET /api/metrics` with `step`: returns the aggregated values of a container in each step, in chronological
/// order. Steps without samples are left out.
///
/// # Errors
/// If the query fails or times out.
pub async fn series(
    transaction: &mut ReadTransaction,
    filter: &MetricFilter,
    steps: &Steps,
) -> crate::Result<Vec<Point>> {
    let organizations = transaction.organizations(filter.organization_id.as_deref());
    if organizations.as_ref().is_some_and(Vec::is_empty) {
        return Ok(Vec::new());
    }
    metric_hours::series(transaction.connection(), &filter.container_id, organizations.as_deref(), steps).await
}
