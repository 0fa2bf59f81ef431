//! Secret keys shared by all gateways of a database.

use sqlx::PgConnection;

/// Returns the key with this name. Stores `candidate` if there is none yet; all gateways then use that.
///
/// # Errors
/// If a statement fails.
pub async fn shared_key(connection: &mut PgConnection, name: &str, candidate: &[u8]) -> crate::Result<Vec<u8>> {
    sqlx::query("INSERT INTO watchbook.gateway_keys (name, key) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
        .bind(name)
        .bind(candidate)
        .execute(&mut *connection)
        .await?;
    sqlx::query_scalar("SELECT key FROM watchbook.gateway_keys WHERE name = $1").bind(name).fetch_one(connection).await
}

/// Checks that the database answers.
///
/// # Errors
/// If it does not.
pub async fn ping(pool: &sqlx::PgPool) -> crate::Result<()> {
    sqlx::query("SELECT 1").execute(pool).await.map(drop)
}
