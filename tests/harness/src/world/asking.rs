//! Queries against Postgres.

use sqlx::FromRow;
use sqlx::postgres::PgRow;

use super::World;

impl World {
    /// Returns the single row of a query.
    ///
    /// # Errors
    /// If the query fails.
    pub async fn try_ask<T>(&self, question: &str) -> Result<T, String>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let asked = sqlx::query_as(question).fetch_one(&self.database).await;
        asked.map_err(|error| error.to_string())
    }

    /// Returns the single row of a query.
    pub async fn ask<T>(&self, question: &str) -> T
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        self.try_ask(question).await.unwrap_or_else(|error| panic!("{question}: {error}"))
    }

    /// Returns all rows of a query.
    pub async fn ask_all<T>(&self, question: &str) -> Vec<T>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let asked = sqlx::query_as(question).fetch_all(&self.database).await;
        asked.unwrap_or_else(|error| panic!("{question}: {error}"))
    }

    /// Returns the single number of a query.
    pub async fn count(&self, question: &str) -> i64 {
        self.ask::<(i64,)>(question).await.0
    }

    /// Executes a statement and returns the number of affected rows.
    pub async fn execute(&self, statement: &str) -> u64 {
        let done = sqlx::raw_sql(statement).execute(&self.database).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}")).rows_affected()
    }
}
