//! What was measured of containers.

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

/// Which samples.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetricFilter {
    /// Only of this organization.
    pub organization_id: Option<String>,
    /// Of which container.
    pub container_id: String,
}

/// A sample.
#[derive(Debug, Clone, FromRow, Serialize, ToSchema)]
pub struct MetricRow {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub organization_id: Option<String>,
    /// When it was taken.
    pub created_at: DateTime<Utc>,
    /// When the stream took it.
    pub received_at: DateTime<Utc>,
    /// Who published it.
    pub source: Option<String>,
    /// The container.
    pub container_id: String,
    /// Percent of one core.
    pub cpu_usage_percent: Option<f64>,
    /// Memory in use, in bytes.
    pub memory_usage_bytes: Option<i64>,
    /// Bytes received so far.
    pub network_rx_bytes: Option<i64>,
    /// Bytes sent so far.
    pub network_tx_bytes: Option<i64>,
    /// Whatever the contract has no field for.
    #[schema(value_type = Object)]
    pub attributes: StoredJson,
}
listed_by!(created_at: MetricRow);

/// `GET /api/metrics` without `step`: the samples of a container as they were taken.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
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

/// `GET /api/metrics` with `step`: between what the values of a container were, in the order of time. Steps without a
/// sample are left out.
///
/// # Errors
/// Where the database cannot be asked, or takes too long.
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
