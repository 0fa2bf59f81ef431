//! How entities are.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgConnection};

/// Entities that are written or told at once.
const AT_ONCE: usize = 1_000;

/// An entity's health.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct HealthRow {
    /// `_` for none.
    pub organization_id: String,
    /// `strategy`, `project`, `container` or `organization`.
    pub entity: String,
    /// Its id.
    pub entity_id: String,
    /// `healthy`, `degraded`, `failing` or `silent`.
    pub state: String,
    /// Why, in words.
    pub reason: String,
    /// The figures behind it.
    pub figures: Value,
    /// Since when it is so.
    pub since: DateTime<Utc>,
    /// When the figures were taken.
    pub updated_at: DateTime<Utc>,
    /// When anything was heard of it last.
    pub last_seen_at: DateTime<Utc>,
}

const COLUMNS: &str = "organization_id, entity, entity_id, state, reason, figures, since, updated_at, last_seen_at";

/// The health of every entity.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn all(connection: &mut PgConnection) -> crate::Result<Vec<HealthRow>> {
    let statement = format!("SELECT {COLUMNS} FROM watchbook.health ORDER BY organization_id, entity, entity_id");
    sqlx::query_as(&statement).fetch_all(connection).await
}

/// Writes the health of entities. Those whose state is another than before have to be announced.
///
/// # Errors
/// Where a statement fails.
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

/// Entities whose state nobody was told yet, the oldest first, up to a bound.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn unannounced(connection: &mut PgConnection) -> crate::Result<Vec<HealthRow>> {
    let statement =
        format!("SELECT {COLUMNS} FROM watchbook.health WHERE NOT announced ORDER BY updated_at LIMIT {AT_ONCE}");
    sqlx::query_as(&statement).fetch_all(connection).await
}

/// Notes that these states were told, where they are still the same.
///
/// # Errors
/// Where the statement fails.
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

/// Forgets entities of which nothing was heard since `before`.
///
/// # Errors
/// Where the statement fails.
pub async fn forget(connection: &mut PgConnection, before: DateTime<Utc>) -> crate::Result<u64> {
    let forgotten =
        sqlx::query("DELETE FROM watchbook.health WHERE last_seen_at < $1").bind(before).execute(connection).await?;
    Ok(forgotten.rows_affected())
}
