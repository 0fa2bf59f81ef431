//! Statements that store the rows of a batch.

use std::sync::OnceLock;

use chrono::{DateTime, Utc};
use records::{Conflict, Kind, row};
use sqlx::PgConnection;
use uuid::Uuid;

/// Bytes of COPY data sent at once: large enough to keep the socket busy, and small enough that the driver's copy of
/// it does not matter.
const COPY_CHUNK: usize = 128 * 1024;

/// The primary key of a record: `created_at` and `id`.
pub type RecordKey = (DateTime<Utc>, Uuid);

/// Copies rows directly into the kind's table. The fast path, which fails as a whole.
///
/// # Errors
/// If any row is a duplicate or invalid, or the server is not reachable.
pub async fn copy(connection: &mut PgConnection, kind: Kind, rows: &[u8]) -> crate::Result<()> {
    copy_into(connection, &statements(kind).copy, rows).await
}

/// Merges rows into the kind's table through a temporary table. The slow path, which skips duplicates. Returns the keys
/// of rows that are new (or newer, for a directory).
///
/// # Errors
/// If any row is invalid, or the server is not reachable.
pub async fn merge(connection: &mut PgConnection, kind: Kind, rows: &[u8]) -> crate::Result<Vec<RecordKey>> {
    let statements = statements(kind);
    for statement in &statements.prepare_incoming {
        sqlx::query(statement.as_str()).execute(&mut *connection).await?;
    }
    copy_into(connection, &statements.copy_incoming, rows).await?;
    if let Some(ask) = &statements.ask_for_erasures {
        sqlx::query(ask.as_str()).execute(&mut *connection).await?;
    }
    sqlx::query_as(statements.merge_incoming.as_str()).fetch_all(connection).await
}

/// Returns whether a record is stored.
///
/// # Errors
/// If the query fails.
pub async fn is_stored(
    connection: &mut PgConnection,
    kind: Kind,
    created_at: DateTime<Utc>,
    id: Uuid,
) -> crate::Result<bool> {
    let statement = format!("SELECT EXISTS (SELECT FROM {} WHERE created_at = $1 AND id = $2)", kind.spec().table);
    sqlx::query_scalar(&statement).bind(created_at).bind(id).fetch_one(connection).await
}

async fn copy_into(connection: &mut PgConnection, statement: &str, rows: &[u8]) -> crate::Result<()> {
    let mut copy = connection.copy_in_raw(statement).await?;
    copy.send(row::HEADER).await?;
    for chunk in rows.chunks(COPY_CHUNK) {
        copy.send(chunk).await?;
    }
    copy.send(row::TRAILER).await?;
    copy.finish().await?;
    Ok(())
}

/// The statements of a kind. They contain only names from the kind's [`records::Spec`], no external input.
#[derive(Debug)]
struct Statements {
    copy: String,
    prepare_incoming: [String; 2],
    copy_incoming: String,
    /// Requests erasures for deleted entities, also for those that a newer snapshot in the batch replaces.
    ask_for_erasures: Option<String>,
    merge_incoming: String,
}

fn statements(kind: Kind) -> &'static Statements {
    static STATEMENTS: OnceLock<Vec<Statements>> = OnceLock::new();
    let all = STATEMENTS.get_or_init(|| Kind::ALL.iter().map(|kind| Statements::of(*kind)).collect());
    // `Kind::ALL` lists the variants in the order of their discriminants.
    &all[kind as usize]
}

impl Statements {
    fn of(kind: Kind) -> Self {
        let table = kind.spec().table;
        let columns = kind.columns().collect::<Vec<_>>().join(", ");
        let incoming = format!("incoming_{}", kind.table_name());
        let merge_incoming = match kind.spec().conflict {
            // Of equal keys within the batch the first is kept, as if inserted one by one.
            Conflict::KeepFirst => format!(
                "INSERT INTO {table} ({columns})
                 SELECT DISTINCT ON (created_at, id) {columns} FROM pg_temp.{incoming} ORDER BY created_at, id, ctid
                     ON CONFLICT (created_at, id) DO NOTHING
                     RETURNING created_at, id"
            ),
            Conflict::KeepNewest { key } => {
                let key_columns = key.join(", ");
                let updates: Vec<_> = kind
                    .columns()
                    .filter(|column| !key.contains(column))
                    .map(|column| format!("{column} = excluded.{column}"))
                    .collect();
                format!(
                    "INSERT INTO {table} AS known ({columns})
                     SELECT DISTINCT ON ({key_columns}) {columns} FROM pg_temp.{incoming} ORDER BY {key_columns}, created_at DESC, id DESC
                         ON CONFLICT ({key_columns}) DO UPDATE SET {}
                      WHERE (excluded.created_at, excluded.id) > (known.created_at, known.id)
                     RETURNING created_at, id",
                    updates.join(", ")
                )
            }
        };
        let has_entities = matches!(kind.spec().conflict, Conflict::KeepNewest { .. });
        let ask = || {
            format!(
                "SELECT watchbook.ask_for_erasure(entity, entity_id, organization_id, created_at, received_at)
                   FROM pg_temp.{incoming} WHERE deleted AND entity IN ('user', 'strategy')"
            )
        };
        Self {
            ask_for_erasures: has_entities.then(ask),
            copy: format!("COPY {table} ({columns}) FROM STDIN (FORMAT binary)"),
            prepare_incoming: [
                format!(
                    "CREATE TEMPORARY TABLE IF NOT EXISTS {incoming} (LIKE {table} INCLUDING DEFAULTS) ON COMMIT DELETE ROWS"
                ),
                // While bad rows are isolated, a batch is merged several times in one transaction.
                format!("TRUNCATE pg_temp.{incoming}"),
            ],
            copy_incoming: format!("COPY pg_temp.{incoming} ({columns}) FROM STDIN (FORMAT binary)"),
            merge_incoming,
        }
    }
}
