//! Health of entities.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgConnection};

/// Maximum entities written or announced at once.
const AT_ONCE: usize = 1_000;

/// The health of an entity.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct HealthRow {
    /// Organization; `_` for none.
    pub organization_id: String,
    /// `strategy`, `project`, `container` or `organization`.
    pub entity: String,
    /// Id of the entity.
    pub entity_id: String,
    /// `healthy`, `degraded`, `failing` or `silent`.
    pub state: String,
    /// Reason, in words.
    pub reason: String,
    /// Figures that the state is derived from.
    pub figures: Value,
    /// When the entity entered this state.
    pub since: DateTime<Utc>,
    /// When the figures were computed.
    pub updated_at: DateTime<Utc>,
    /// When the last record of the entity arrived.
    pub last_seen_at: DateTime<Utc>,
}

const COLUMNS: &str = "organization_id, entity, entity_id, state, reason, figures, since, updated_at, last_seen_at";

/// Returns the health of every entity.
///
/// # Errors
/// If the query fails.
pub async fn all(connection: &mut PgConnection) -> crate::Result<Vec<HealthRow>> {
    let statement = format!("SELECT {COLUMNS} FROM watchbook.health ORDER BY organization_id, entity, entity_id");
    sqlx::query_as(&statement).fetch_all(connection).await
}

/// Stores the health of entities. Marks those whose state changed as not announced.
///
/// # Errors
/// If a statement fails.
pub async fn put(transaction: &mut PgConnection, rows: &[HealthRow]) -> crate::Result<()> {
    for rows in rows.chunks(AT_ONCE) {
        let all = |of: fn(&HealthRow) -> &str| rows.iter().map(of).collect::<Vec<_>>();
        let times = |of: fn(&HealthRow) -> DateTime<Utc>| rows.iter().map(of).collect::<Vec<_>>();
        sqlx::query(
            "INSERT INTO watchbook.health AS known (organization_id, entity, entity_id, state, reason, figures, since, updated_at, last_seen_at)
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::jsonb[], $7::timestamptz[], $8::timestamptz[], $9::timestamptz[])
                 ON CONFLICT (organization_id, entity, entity_id) DO UPDATE
                SET state = excluded.state, reason = excluded.reason, figures = excluded.figures,
                    since = CASE WHEN known.state = excluded.state THEN known.since ELSE excluded.since END,
                    updated_at = excluded.updated_at, last_seen_at = excluded.last_seen_at,
                    announced = known.announced AND known.state = excluded.state",
        )
        .bind(all(|row| &row.organization_id))
        .bind(all(|row| &row.entity))
        .bind(all(|row| &row.entity_id))
        .bind(all(|row| &row.state))
        .bind(all(|row| &row.reason))
        .bind(rows.iter().map(|row| &row.figures).collect::<Vec<_>>())
        .bind(times(|row| row.since))
        .bind(times(|row| row.updated_at))
        .bind(times(|row| row.last_seen_at))
        .execute(&mut *transaction)
        .await?;
    }
    Ok(())
}

/// Returns entities whose state is not announced yet, oldest first, at most 1,000.
///
/// # Errors
/// If the query fails.
pub async fn unannounced(connection: &mut PgConnection) -> crate::Result<Vec<HealthRow>> {
    let statement =
        format!("SELECT {COLUMNS} FROM watchbook.health WHERE NOT announced ORDER BY updated_at LIMIT {AT_ONCE}");
    sqlx::query_as(&statement).fetch_all(connection).await
}

/// Marks these states as announced, if they have not changed since.
///
/// # Errors
/// If the statement fails.
pub async fn announced(connection: &mut PgConnection, rows: &[HealthRow]) -> crate::Result<()> {
    let all = |of: fn(&HealthRow) -> &str| rows.iter().map(of).collect::<Vec<_>>();
    sqlx::query(
        "UPDATE watchbook.health AS known SET announced = true
           FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS told (organization_id, entity, entity_id, state)
          WHERE known.organization_id = told.organization_id AND known.entity = told.entity
            AND known.entity_id = told.entity_id AND known.state = told.state",
    )
    .bind(all(|row| &row.organization_id))
    .bind(all(|row| &row.entity))
    .bind(all(|row| &row.entity_id))
    .bind(all(|row| &row.state))
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes entities that were last seen before `before`. Returns how many.
///
/// # Errors
/// If the statement fails.
pub async fn forget(connection: &mut PgConnection, before: DateTime<Utc>) -> crate::Result<u64> {
    let forgotten =
        sqlx::query("DELETE FROM watchbook.health WHERE last_seen_at < $1").bind(before).execute(connection).await?;
    Ok(forgotten.rows_affected())
}
