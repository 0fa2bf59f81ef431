//! Asking Postgres.

use sqlx::FromRow;
use sqlx::postgres::PgRow;

use super::World;

impl World {
    /// One row of a question, which may end with a parameter or not.
    ///
    /// # Errors
    /// Where Postgres does not answer, in words.
    pub async fn try_ask<T>(&self, question: &str) -> Result<T, String>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let asked = sqlx::query_as(question).fetch_one(&self.database).await;
        asked.map_err(|error| error.to_string())
    }

    /// One row of a question.
    pub async fn ask<T>(&self, question: &str) -> T
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        self.try_ask(question).await.unwrap_or_else(|error| panic!("{question}: {error}"))
    }

    /// All rows of a question.
    pub async fn ask_all<T>(&self, question: &str) -> Vec<T>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let asked = sqlx::query_as(question).fetch_all(&self.database).await;
        asked.unwrap_or_else(|error| panic!("{question}: {error}"))
    }

    /// A number.
    pub async fn count(&self, question: &str) -> i64 {
        self.ask::<(i64,)>(question).await.0
    }

    /// Changes something, and says how many rows.
    pub async fn execute(&self, statement: &str) -> u64 {
        let done = sqlx::raw_sql(statement).execute(&self.database).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}")).rows_affected()
    }
}
