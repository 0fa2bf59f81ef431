//! Queries against Postgres.

use sqlx::FromRow;
use sqlx::postgres::PgRow;

use super::World;

impl World {
    /// Returns the single row of a query.
    ///
    /// # Errors
    /// If the query fails.
    pub async fn try_query_one<T>(&self, sql: &str) -> Result<T, String>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let asked = sqlx::query_as(sql).fetch_one(&self.database).await;
        asked.map_err(|error| error.to_string())
    }

    /// Returns the single row of a query.
    pub async fn query_one<T>(&self, sql: &str) -> T
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        self.try_query_one(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Returns all rows of a query.
    pub async fn query_all<T>(&self, sql: &str) -> Vec<T>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let asked = sqlx::query_as(sql).fetch_all(&self.database).await;
        asked.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Returns the single number of a query.
    pub async fn count(&self, sql: &str) -> i64 {
        self.query_one::<(i64,)>(sql).await.0
    }

    /// Executes a statement and returns the number of affected rows.
    pub async fn execute(&self, statement: &str) -> u64 {
        let done = sqlx::raw_sql(statement).execute(&self.database).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}")).rows_affected()
    }
}
