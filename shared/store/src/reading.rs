//! Reading on behalf of somebody: in a transaction that can only read, under a role that the policies of the tables
//! bind, with the organizations of whoever asks.
//!
//! So a question that forgets whom it is asked for answers with nothing of others. The questions ask for the
//! organizations themselves too, because an index can serve such a condition and no policy.

use std::time::Duration;

use futures::TryStreamExt;
use records::subject::{NO_ORGANIZATION, is_organization};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{FromRow, PgConnection, PgPool, Postgres, Row, Transaction};

/// The role under which questions are asked. It cannot log in; `migrations/0014_reading.sql` says what it may.
pub const ROLE: &str = "watchbook_reader";
/// A question that takes longer is given up: whoever asked has to ask for less, and others want the connection.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// How questions are planned.
const SETTINGS: &[(&str, &str)] = &[
    // For the times that are asked for: a plan for any would lock each day that there is, and look at it.
    ("plan_cache_mode", "force_custom_plan"),
    // By index even where reading all of a day looks cheaper: the newest come first then, and it ends with the page,
    // however wrong the statistics are of a day that is being written.
    ("enable_seqscan", "off"),
    // Compiling a plan of sixty days takes longer than any question should.
    ("jit", "off"),
];

/// And where they are about one organization or all. Strategies, runs and traces each belong to one, so that the planner
/// takes those of an organization for fewer than they are, and would rather collect and sort all than walk back in time
/// until there are enough. Several organizations cannot be walked through in one order.
const IN_ORDER: &[(&str, &str)] = &[("enable_bitmapscan", "off"), ("enable_sort", "off")];

/// Whose records somebody may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's, and those of nobody.
    All,
    /// Those of these organizations.
    Organizations(Vec<String>),
}

impl Scope {
    /// The organizations, `None` for all. What is no name of one is left out: `_`, which stands for none, and `*`.
    pub(crate) fn organizations(&self) -> Option<Vec<String>> {
        match self {
            Self::All => None,
            Self::Organizations(names) => {
                let is_name = |name: &&String| is_organization(name) && *name != NO_ORGANIZATION;
                Some(names.iter().filter(is_name).cloned().collect())
            }
        }
    }

    /// What the policies find in their setting.
    fn setting(&self) -> String {
        self.organizations().map_or_else(|| "*".to_owned(), |names| names.join(","))
    }
}

/// Nobody can be let read: the role is missing, or we may not take it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("questions are asked under the role {ROLE}, which this user may not take; a superuser has to run: {statement}")]
pub struct NoReader {
    /// The one statement that mends it.
    pub statement: String,
}

impl NoReader {
    /// What an error of [`Reader::prepare`] or [`Reader::begin`] says, where it is this one.
    pub fn of(error: &crate::Error) -> Option<&Self> {
        match error {
            sqlx::Error::Configuration(error) => error.downcast_ref(),
            _ => None,
        }
    }
}

/// Begins readings.
#[derive(Debug, Clone)]
pub struct Reader {
    pool: PgPool,
}

impl Reader {
    /// Reads through a pool, whose user owns the tables or is a member of [`ROLE`].
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Makes sure that questions can be asked, as far as this user may. For a start.
    ///
    /// # Errors
    /// [`NoReader`], as a configuration error of the driver, where a superuser has to help; or where the database
    /// cannot be asked.
    pub async fn prepare(&self) -> crate::Result<()> {
        let missing: Option<String> =
            sqlx::query_scalar("SELECT watchbook.allow_reading()").fetch_one(&self.pool).await?;
        match missing {
            None => Ok(()),
            Some(statement) => Err(sqlx::Error::Configuration(Box::new(NoReader { statement }))),
        }
    }

    /// What a superuser has to run before questions can be asked; `None` where nobody has to. Changes nothing: what this
    /// user may mend by itself is tried and taken back. For the doctor.
    ///
    /// # Errors
    /// Where the database cannot be asked.
    pub async fn missing(&self) -> crate::Result<Option<String>> {
        let mut transaction = self.pool.begin().await?;
        let missing = sqlx::query_scalar("SELECT watchbook.allow_reading()").fetch_one(&mut *transaction).await?;
        transaction.rollback().await?;
        Ok(missing)
    }

    /// Begins a reading on behalf of somebody. All of it sees the same state of the tables.
    ///
    /// # Errors
    /// As [`Reader::prepare`].
    pub async fn begin(&self, scope: &Scope) -> crate::Result<Reading> {
        match self.try_begin(scope).await {
            // The role may have been made, or granted, since the migration asked for it.
            Err(error) if is_of_the_role(&error) => {
                self.prepare().await?;
                self.try_begin(scope).await
            }
            begun => begun,
        }
    }

    async fn try_begin(&self, scope: &Scope) -> crate::Result<Reading> {
        let mut transaction = self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        // The role first, so that the last one is asked of it.
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
        Ok(Reading { transaction, scope: scope.clone(), most_bytes: None, was_cut: false })
    }
}

/// The role is there and may read nothing yet.
#[derive(Debug, thiserror::Error)]
#[error("the role {ROLE} may not read")]
struct NotGranted;

/// A question took longer than [`STATEMENT_TIMEOUT`]: whoever asked has to ask for less.
pub fn took_too_long(error: &sqlx::Error) -> bool {
    // "canceling statement due to statement timeout"; nobody else cancels questions.
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

/// A transaction on behalf of somebody, for the functions of [`crate::questions`]. Dropped, it is rolled back, which is
/// the same to a reading.
#[derive(Debug)]
pub struct Reading {
    transaction: Transaction<'static, Postgres>,
    scope: Scope,
    most_bytes: Option<usize>,
    was_cut: bool,
}

impl Reading {
    /// The connection, bound by the policies: for functions of `store` that read what has policies.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    /// Whose records are read.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// From now on a list ends before the row with which it would have more than so many bytes, but not before its first.
    pub fn at_most(&mut self, bytes: usize) {
        self.most_bytes = Some(bytes);
    }

    /// Whether a list ended because of [`Reading::at_most`], and has more.
    pub fn was_cut(&self) -> bool {
        self.was_cut
    }

    /// All rows of a statement, or as many as may be.
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

    /// The organizations that a question is about which names one, or none; `None` for all of them. Where it names one that
    /// may not be seen there are none, and nothing is read: how long that took would tell how much there is.
    pub(crate) fn organizations(&self, wanted: Option<&str>) -> Option<Vec<String>> {
        match (self.scope.organizations(), wanted) {
            (None, wanted) => wanted.map(|wanted| vec![wanted.to_owned()]),
            (Some(names), None) => Some(names),
            (Some(names), Some(wanted)) => Some(names.into_iter().filter(|name| name == wanted).collect()),
        }
    }

    /// Ends it, and hands the connection back at once; where a list was cut, once the server has sent the rest of it,
    /// for which nobody waits.
    ///
    /// # Errors
    /// Where the server is away.
    pub async fn end(self) -> crate::Result<()> {
        if self.was_cut {
            return Ok(());
        }
        self.transaction.rollback().await
    }
}

/// A statement with its values.
pub(crate) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// What the values of a row take.
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
