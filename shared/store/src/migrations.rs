//! Migrations: plain SQL in `migrations/`, built into the binary.

use std::collections::HashMap;

use anyhow::Context;
use serde::Serialize;
use sqlx::PgConnection;
use sqlx::migrate::{Migrate, Migrator};

static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");

/// How one migration stands in a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It was run.
    Applied,
    /// It is still to be run.
    Pending,
    /// It was run, and is another one in this build: somebody edited history.
    Changed,
    /// It was run, and this build does not know it: a newer build was here.
    Unknown,
}

/// One migration.
#[derive(Debug, Clone, Serialize)]
pub struct Migration {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub description: String,
    /// How it stands.
    pub state: State,
}

/// Runs what is pending. Two processes may call this at once: sqlx takes a lock.
///
/// # Errors
/// Where a migration fails or was changed after it was run.
pub async fn run(connection: &mut PgConnection) -> anyhow::Result<()> {
    MIGRATOR.run(connection).await.context("migrate the database")
}

/// Every migration that this build or the database knows, by number.
///
/// # Errors
/// Where the database cannot be asked.
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
