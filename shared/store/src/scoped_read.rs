//! Queries on behalf of a caller: in a read-only transaction, under a role that is subject to row-level security, with
//! the organizations of the caller.
//!
//! So a query without an organization filter cannot return rows of other organizations. The queries filter by
//! organization as well, because an index can serve such a condition but not a policy.

use std::time::Duration;

use futures::TryStreamExt;
use records::subject::{NO_ORGANIZATION, is_organization};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{FromRow, PgConnection, PgPool, Postgres, Row, Transaction};

/// The role under which queries run. It cannot log in; `migrations/0014_reading.sql` grants its privileges.
pub const ROLE: &str = "watchbook_reader";
/// Time-out of a query. The caller has to narrow the query; other callers need the connection.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Planner settings of queries.
const SETTINGS: &[(&str, &str)] = &[
    // Plan for the actual time range: a generic plan would lock and visit every partition.
    ("plan_cache_mode", "force_custom_plan"),
    // Use an index even if a scan of a partition looks cheaper: rows then come newest first and the scan ends with the
    // page, however wrong the statistics of the partition in use are.
    ("enable_seqscan", "off"),
    // Compiling a plan over sixty partitions takes longer than the query should.
    ("jit", "off"),
];

/// Further planner settings for queries of one organization or of all. Strategies, runs and traces belong to one
/// organization each, a correlation that makes the planner underestimate their rows and collect and sort all instead of
/// walking back in time until the page is full. Not for several organizations, which no index returns in one order.
const IN_ORDER: &[(&str, &str)] = &[("enable_bitmapscan", "off"), ("enable_sort", "off")];

/// The organizations whose records a caller may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All organizations, and records without one.
    All,
    /// These organizations.
    Organizations(Vec<String>),
}

impl Scope {
    /// Returns the organizations; `None` for all. Omits invalid names, `_` and `*`.
    pub(crate) fn organizations(&self) -> Option<Vec<String>> {
        match self {
            Self::All => None,
            Self::Organizations(names) => {
                let is_name = |name: &&String| is_organization(name) && *name != NO_ORGANIZATION;
                Some(names.iter().filter(is_name).cloned().collect())
            }
        }
    }

    /// Returns the value of the setting that the policies read.
    fn setting(&self) -> String {
        self.organizations().map_or_else(|| "*".to_owned(), |names| names.join(","))
    }
}

/// Queries are not possible: the role is missing, or this user may not use it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("queries need the role {ROLE}, which this user may not use; run as a superuser: {statement}")]
pub struct NoReader {
    /// The statement that fixes it.
    pub statement: String,
}

impl NoReader {
    /// Returns the [`NoReader`] inside an error of [`Reader::prepare`] or [`Reader::begin`], if it is one.
    pub fn of(error: &crate::Error) -> Option<&Self> {
        match error {
            sqlx::Error::Configuration(error) => error.downcast_ref(),
            _ => None,
        }
    }
}

/// Starts queries on behalf of callers.
#[derive(Debug, Clone)]
pub struct Reader {
    pool: PgPool,
}

impl Reader {
    /// Creates a reader on a pool, whose user must own the tables or be a member of [`ROLE`].
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Creates and grants the role as far as this user may. Call it at start.
    ///
    /// # Errors
    /// [`NoReader`], as a configuration error of the driver, if a superuser has to help; or if the query fails.
    pub async fn prepare(&self) -> crate::Result<()> {
        let missing: Option<String> =
            sqlx::query_scalar("SELECT watchbook.allow_reading()").fetch_one(&self.pool).await?;
        match missing {
            None => Ok(()),
            Some(statement) => Err(sqlx::Error::Configuration(Box::new(NoReader { statement }))),
        }
    }

    /// Returns the statement that a superuser has to run before queries are possible; `None` if none is needed. Changes
    /// nothing: fixes that this user may make are tried and rolled back. For `watchbook doctor`.
    ///
    /// # Errors
    /// If the query fails.
    pub async fn missing(&self) -> crate::Result<Option<String>> {
        let mut transaction = self.pool.begin().await?;
        let missing = sqlx::query_scalar("SELECT watchbook.allow_reading()").fetch_one(&mut *transaction).await?;
        transaction.rollback().await?;
        Ok(missing)
    }

    /// Starts a transaction for queries of a caller. All of its queries see the same snapshot.
    ///
    /// # Errors
    /// As [`Reader::prepare`].
    pub async fn begin(&self, scope: &Scope) -> crate::Result<ReadTransaction> {
        match self.try_begin(scope).await {
            // The role may have been created or granted since the migration ran.
            Err(error) if is_of_the_role(&error) => {
                self.prepare().await?;
                self.try_begin(scope).await
            }
            begun => begun,
        }
    }

    async fn try_begin(&self, scope: &Scope) -> crate::Result<ReadTransaction> {
        let mut transaction = self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        // The role comes first, so that the privilege is checked for it.
        let is_several = scope.organizations().is_some_and(|names| names.len() > 1);
        let in_order = if is_several { &[] } else { IN_ORDER };
        let settings: Vec<_> = SETTINGS
            .iter()
            .chain(in_order)
            .map(|(name, value)| format!("set_config('{name}', '{value}', true) <> ''"))
            .collect();
        let may_read: bool = sqlx::query_scalar(&format!(
            "SELECT set_config('role', $1, true) = $1 AND set_config('watchbook.organizations', $2, true) = $2
                AND set_config('statement_timeout', $3, true) <> '' AND {} AND has_schema_privilege('watchbook', 'USAGE')",
            settings.join(" AND ")
        ))
        .bind(ROLE)
        .bind(scope.setting())
        .bind(format!("{}ms", STATEMENT_TIMEOUT.as_millis()))
        .fetch_one(&mut *transaction)
        .await?;
        if !may_read {
            transaction.rollback().await?;
            return Err(sqlx::Error::Configuration(Box::new(NotGranted)));
        }
        Ok(ReadTransaction { transaction, scope: scope.clone(), most_bytes: None, was_cut: false })
    }
}

/// The role exists but has no privileges yet.
#[derive(Debug, thiserror::Error)]
#[error("the role {ROLE} has no privilege to read")]
struct NotGranted;

/// Returns whether a query exceeded [`STATEMENT_TIMEOUT`]. The caller has to narrow it.
pub fn is_statement_timeout(error: &sqlx::Error) -> bool {
    // "canceling statement due to statement timeout"; queries are not cancelled otherwise.
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("57014"))
}

fn is_of_the_role(error: &sqlx::Error) -> bool {
    match error {
        // "role does not exist" and "permission denied to set role".
        sqlx::Error::Database(error) => matches!(error.code().as_deref(), Some("22023" | "42501")),
        sqlx::Error::Configuration(error) => error.is::<NotGranted>(),
        _ => false,
    }
}

/// A read-only transaction on behalf of a caller, for the functions of [`crate::queries`]. Dropping it rolls it back.
#[derive(Debug)]
pub struct ReadTransaction {
    transaction: Transaction<'static, Postgres>,
    scope: Scope,
    most_bytes: Option<usize>,
    was_cut: bool,
}

impl ReadTransaction {
    /// Returns the connection, which is subject to the policies.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    /// Returns the organizations that the caller may see.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Limits lists from now on to `bytes`. A list always has at least one row.
    pub fn at_most(&mut self, bytes: usize) {
        self.most_bytes = Some(bytes);
    }

    /// Returns whether a list was cut by [`ReadTransaction::at_most`].
    pub fn was_cut(&self) -> bool {
        self.was_cut
    }

    /// Returns the rows of a statement, up to the limit of bytes.
    pub(crate) async fn rows<'q, R>(&mut self, statement: Statement<'q>) -> crate::Result<Vec<R>>
    where
        R: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let (mut rows, mut bytes) = (Vec::new(), 0_usize);
        let mut answer = statement.fetch(&mut *self.transaction);
        while let Some(row) = answer.try_next().await? {
            bytes = bytes.saturating_add(bytes_of(&row));
            if !rows.is_empty() && self.most_bytes.is_some_and(|most| bytes > most) {
                self.was_cut = true;
                break;
            }
            rows.push(R::from_row(&row)?);
        }
        Ok(rows)
    }

    /// Returns the organizations to query for a filter by organization, if any; `None` for all. If the caller may not
    /// see the wanted one, the result is empty and nothing is read: the duration would reveal how much there is.
    pub(crate) fn organizations(&self, wanted: Option<&str>) -> Option<Vec<String>> {
        match (self.scope.organizations(), wanted) {
            (None, wanted) => wanted.map(|wanted| vec![wanted.to_owned()]),
            (Some(names), None) => Some(names),
            (Some(names), Some(wanted)) => Some(names.into_iter().filter(|name| name == wanted).collect()),
        }
    }

    /// Ends the transaction and returns the connection to the pool. If a list was cut, the connection returns later, in
    /// the background, once the server has sent the rest.
    ///
    /// # Errors
    /// If the server is not reachable.
    pub async fn end(self) -> crate::Result<()> {
        if self.was_cut {
            return Ok(());
        }
        self.transaction.rollback().await
    }
}

/// A statement with its values.
pub(crate) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// Returns the bytes of a row's values.
fn bytes_of(row: &PgRow) -> usize {
    let value = |column| row.try_get_raw(column).ok()?.as_bytes().ok().map(<[u8]>::len);
    (0..row.len()).filter_map(value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_organizations_reach_the_policies() {
        let scope = |names: &[&str]| Scope::Organizations(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(Scope::All.setting(), "*");
        for (names, setting) in [
            (&[][..], ""),
            (&["acme"], "acme"),
            (&["acme", "globex-2"], "acme,globex-2"),
            (&["*"], ""),
            (&["_", "acme"], "acme"),
            (&["acme,globex"], ""),
            (&["", "a b", "ac'me"], ""),
        ] {
            assert_eq!(scope(names).setting(), setting, "{names:?}");
        }
    }
}
