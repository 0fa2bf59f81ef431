//! Keys that all gateways of a database share.

use sqlx::PgConnection;

/// The key of this name: the one that is there, or else `candidate`, which all others get from then on.
///
/// # Errors
/// Where the statements fail.
pub async fn shared_key(connection: &mut PgConnection, name: &str, candidate: &[u8]) -> crate::Result<Vec<u8>> {
    sqlx::query("INSERT INTO watchbook.gateway_keys (name, key) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
        .bind(name)
        .bind(candidate)
        .execute(&mut *connection)
        .await?;
    sqlx::query_scalar("SELECT key FROM watchbook.gateway_keys WHERE name = $1").bind(name).fetch_one(connection).await
}

/// Whether the database answers.
///
/// # Errors
/// Where it does not.
pub async fn answers(pool: &sqlx::PgPool) -> crate::Result<()> {
    sqlx::query("SELECT 1").execute(pool).await.map(drop)
}
