//! Migrations: plain SQL in `migrations/`, embedded in the binary.

use std::collections::HashMap;

use anyhow::Context;
use serde::Serialize;
use sqlx::PgConnection;
use sqlx::migrate::{Migrate, Migrator};

static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");

/// The state of a migration in a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It was applied.
    Applied,
    /// It is not applied yet.
    Pending,
    /// It was applied, but its text in this build differs.
    Changed,
    /// It was applied by a newer build and is unknown to this one.
    Unknown,
}

/// One migration.
#[derive(Debug, Clone, Serialize)]
pub struct Migration {
    /// Version number.
    pub version: i64,
    /// Name.
    pub description: String,
    /// State in the database.
    pub state: State,
}

/// Runs pending migrations. Safe to call from several processes at once, because sqlx takes a lock.
///
/// # Errors
/// If a migration fails or was changed after it was applied.
pub async fn run(connection: &mut PgConnection) -> anyhow::Result<()> {
    MIGRATOR.run(connection).await.context("migrate the database")
}

/// Returns every migration that this build or the database knows, by version.
///
/// # Errors
/// If the query fails.
pub async fn status(connection: &mut PgConnection) -> anyhow::Result<Vec<Migration>> {
    let exists: bool =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(&mut *connection).await?;
    let mut applied: HashMap<i64, Vec<u8>> = HashMap::new();
    if exists {
        let listed = connection.list_applied_migrations().await.context("list applied migrations")?;
        applied.extend(listed.into_iter().map(|migration| (migration.version, migration.checksum.into_owned())));
    }
    let mut migrations: Vec<_> = MIGRATOR
        .iter()
        .map(|migration| Migration {
            version: migration.version,
            description: migration.description.to_string(),
            state: match applied.remove(&migration.version) {
                None => State::Pending,
                Some(checksum) if checksum == *migration.checksum => State::Applied,
                Some(_) => State::Changed,
            },
        })
        .collect();
    migrations.extend(applied.into_keys().map(|version| Migration {
        version,
        description: String::new(),
        state: State::Unknown,
    }));
    migrations.sort_by_key(|migration| migration.version);
    Ok(migrations)
}
