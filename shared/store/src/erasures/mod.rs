//! Erasures: removing or blanking the records of a user or a strategy.

mod personal;

use chrono::{DateTime, Utc};
use records::Kind;
use serde::Serialize;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use self::personal::personal;
pub use self::personal::{blank, blank_entity, blanked_kinds, held_of};
use crate::Dataset;
use crate::holds::{HeldColumns, HeldRange, is_held};
use crate::partition_removal::DayPartition;

/// The kind of entity that can be erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Erasable {
    /// A user.
    User,
    /// A strategy.
    Strategy,
}

impl Erasable {
    /// Returns the name in the directory and in commands.
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Strategy => "strategy",
        }
    }

    /// Returns the column of executions with the entity's id.
    const fn column(self) -> &'static str {
        match self {
            Self::User => "user_id",
            Self::Strategy => "strategy_id",
        }
    }
}

impl TryFrom<String> for Erasable {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        [Self::User, Self::Strategy]
            .into_iter()
            .find(|entity| entity.name() == name)
            .ok_or_else(|| format!("`{name}` cannot be erased"))
    }
}

impl Serialize for Erasable {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A requested erasure.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize)]
pub struct Erasure {
    /// Id.
    pub id: Uuid,
    /// Kind of the entity.
    #[sqlx(try_from = "String")]
    pub entity: Erasable,
    /// Id of the entity.
    pub entity_id: String,
    /// Organization whose records are erased; `None` for all.
    pub organization_id: Option<String>,
    /// Upper bound of `created_at`; later records stay.
    pub up_to: DateTime<Utc>,
    /// Who requested it; `system` for a deletion in the directory.
    pub requested_by: String,
    /// When it was requested.
    pub requested_at: DateTime<Utc>,
    /// `pending`, `held` (the rest waits for the release of a hold) or `done`.
    pub state: String,
    /// Number of executions removed.
    pub executions: i64,
    /// Number of events and errors whose personal fields were blanked.
    pub blanked: i64,
    /// When it ended as `done` or `held`.
    pub ended_at: Option<DateTime<Utc>>,
}

/// Inserts an erasure request.
///
/// # Errors
/// If the statement fails.
pub async fn request(connection: &mut PgConnection, erasure: &Erasure) -> crate::Result<()> {
    sqlx::query(
        "INSERT INTO watchbook.erasures
                (id, entity, entity_id, organization_id, up_to, requested_by, requested_at, state)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'pending')",
    )
    .bind(erasure.id)
    .bind(erasure.entity.name())
    .bind(&erasure.entity_id)
    .bind(&erasure.organization_id)
    .bind(erasure.up_to)
    .bind(&erasure.requested_by)
    .bind(erasure.requested_at)
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns pending erasures, oldest first, at most `limit`.
///
/// # Errors
/// If the query fails.
pub async fn pending(connection: &mut PgConnection, limit: u32) -> crate::Result<Vec<Erasure>> {
    sqlx::query_as("SELECT * FROM watchbook.erasures WHERE state = 'pending' ORDER BY requested_at LIMIT $1")
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await
}

/// Returns one erasure.
///
/// # Errors
/// If the query fails.
pub async fn find(connection: &mut PgConnection, id: Uuid) -> crate::Result<Option<Erasure>> {
    sqlx::query_as("SELECT * FROM watchbook.erasures WHERE id = $1").bind(id).fetch_optional(connection).await
}

/// How long after an erasure late executions are searched: those that waited in a stream or were replayed. Longer than
/// a replay window.
const LATE_FOR: &str = "interval '1 day'";
/// Maximum erasures to check for late executions, newest first. Each costs an index look-up in every partition.
const LATE_AT_ONCE: u32 = 1_000;

/// Sets erasures back to `pending` if late executions arrived or a hold expired. Returns how many.
///
/// # Errors
/// If the statement fails.
pub async fn reopen(connection: &mut PgConnection) -> crate::Result<u64> {
    let table = Kind::Executions.spec().table;
    let late = |column: &str| {
        format!(
            "EXISTS (SELECT FROM {table} WHERE {column} = erasure.entity_id AND created_at <= erasure.up_to
                 AND (erasure.organization_id IS NULL OR organization_id = erasure.organization_id))"
        )
    };
    let reopened = sqlx::query(&format!(
        "UPDATE watchbook.erasures AS erasure SET state = 'pending'
          WHERE id = ANY (ARRAY(SELECT id FROM watchbook.erasures
                                 WHERE state = 'done' AND ended_at > now() - {LATE_FOR} ORDER BY ended_at DESC LIMIT {LATE_AT_ONCE}))
            AND CASE entity WHEN 'user' THEN {} ELSE {} END
             OR state = 'held' AND EXISTS (SELECT FROM watchbook.holds
                                            WHERE released_at IS NULL AND expires_at BETWEEN erasure.ended_at AND now())",
        late("user_id"),
        late("strategy_id")
    ))
    .execute(connection)
    .await?;
    Ok(reopened.rows_affected())
}

/// Returns how many executions an erasure matches, and how many of them are held.
///
/// # Errors
/// If the query fails.
pub async fn count_executions(
    connection: &mut PgConnection,
    erasure: &Erasure,
    holds: &[HeldRange],
) -> crate::Result<(u64, u64)> {
    let dataset = Dataset::Records(Kind::Executions);
    let (table, column, held) = (dataset.table(), erasure.entity.column(), is_held(dataset, 4));
    let columns = HeldColumns::of(holds);
    let (rows, held): (i64, i64) = sqlx::query_as(&format!(
        "SELECT count(*), count(*) FILTER (WHERE {held}) FROM {table}
          WHERE {column} = $1 AND created_at <= $2 AND ($3::text IS NULL OR organization_id = $3)"
    ))
    .bind(&erasure.entity_id)
    .bind(erasure.up_to)
    .bind(&erasure.organization_id)
    .bind(columns.organizations)
    .bind(columns.from)
    .bind(columns.until)
    .fetch_one(connection)
    .await?;
    Ok((unsigned(rows), unsigned(held)))
}

/// Removes executions of a partition that are not held, from a time on, oldest first, at most `limit`. Returns how
/// many, and the time to continue from; `None` once the partition is done.
///
/// # Errors
/// If a statement fails.
pub async fn remove_executions(
    transaction: &mut PgConnection,
    erasure: &Erasure,
    day: &DayPartition,
    holds: &[HeldRange],
    from: Option<DateTime<Utc>>,
    limit: u32,
) -> crate::Result<(u64, Option<DateTime<Utc>>)> {
    let (name, column, held) = (&day.name, erasure.entity.column(), is_held(day.dataset, 6));
    let columns = HeldColumns::of(holds);
    let (removed, last): (i64, Option<DateTime<Utc>>) = sqlx::query_as(&format!(
        "WITH gone AS (
             DELETE FROM {name} WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM {name}
                  WHERE {column} = $1 AND created_at >= $2 AND created_at <= $3 AND ($4::text IS NULL OR organization_id = $4)
                    AND NOT {held} ORDER BY created_at LIMIT $5))
             RETURNING created_at
         ) SELECT count(*), max(created_at) FROM gone"
    ))
    .bind(&erasure.entity_id)
    .bind(from.unwrap_or(day.starts_at))
    .bind(erasure.up_to)
    .bind(&erasure.organization_id)
    .bind(i64::from(limit))
    .bind(columns.organizations)
    .bind(columns.from)
    .bind(columns.until)
    .fetch_one(&mut *transaction)
    .await?;
    let removed = unsigned(removed);
    if removed > 0 {
        add(transaction, erasure.id, removed, 0).await?;
    }
    Ok((removed, last.filter(|_| removed == u64::from(limit))))
}

/// Erases restored records again if they were erased since they were archived, except held ones. `holds` must not
/// include the hold of the restore itself.
///
/// # Errors
/// If a statement fails.
pub async fn erase_restored(
    transaction: &mut PgConnection,
    day: &DayPartition,
    holds: &[HeldRange],
) -> crate::Result<()> {
    let Dataset::Records(kind) = day.dataset else { return Ok(()) };
    let name = &day.name;
    if kind == Kind::Executions {
        for entity in [Erasable::User, Erasable::Strategy] {
            let (column, held) = (entity.column(), is_held(day.dataset, 2));
            let columns = HeldColumns::of(holds);
            sqlx::query(&format!(
                "DELETE FROM {name} WHERE ctid = ANY (ARRAY(
                     SELECT execution.ctid FROM {name} AS execution JOIN watchbook.erasures AS erasure
                         ON erasure.entity_id = execution.{column} AND erasure.entity = $1 AND erasure.ended_at IS NOT NULL
                        AND execution.created_at <= erasure.up_to
                        AND (erasure.organization_id IS NULL OR execution.organization_id = erasure.organization_id)))
                    AND NOT {held}"
            ))
            .bind(entity.name())
            .bind(columns.organizations)
            .bind(columns.from)
            .bind(columns.until)
            .execute(&mut *transaction)
            .await?;
        }
    }
    if personal(kind).is_none() {
        return Ok(());
    }
    let erased: Vec<Erasure> = sqlx::query_as(
        "SELECT * FROM watchbook.erasures WHERE entity = 'user' AND ended_at IS NOT NULL AND up_to >= $1
          ORDER BY organization_id NULLS FIRST, requested_at",
    )
    .bind(day.starts_at)
    .fetch_all(&mut *transaction)
    .await?;
    for of_one in erased.chunk_by(|a, b| a.organization_id == b.organization_id) {
        blank(transaction, of_one, day, holds, None, u32::MAX).await?;
    }
    Ok(())
}

async fn add(transaction: &mut PgConnection, id: Uuid, executions: u64, blanked: u64) -> crate::Result<()> {
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    sqlx::query("UPDATE watchbook.erasures SET executions = executions + $2, blanked = blanked + $3 WHERE id = $1")
        .bind(id)
        .bind(count(executions))
        .bind(count(blanked))
        .execute(transaction)
        .await?;
    Ok(())
}

/// Marks an erasure as `done`, or as `held` if the rest waits for a hold.
///
/// # Errors
/// If the statement fails.
pub async fn end(transaction: &mut PgConnection, id: Uuid, is_held: bool) -> crate::Result<Erasure> {
    sqlx::query_as("UPDATE watchbook.erasures SET state = $2, ended_at = clock_timestamp() WHERE id = $1 RETURNING *")
        .bind(id)
        .bind(if is_held { "held" } else { "done" })
        .fetch_one(transaction)
        .await
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
