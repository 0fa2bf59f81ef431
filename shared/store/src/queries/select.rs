//! A statement that is put together of the conditions that are asked for and no others: a condition that may be absent
//! (`$1 IS NULL OR …`) is one that no index serves.

use std::ops::ControlFlow;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::{Encode, FromRow, Postgres, QueryBuilder, Type};

use super::{Key, Page, Span};
use crate::scoped_read::ReadTransaction;

/// See the module. Names of columns and tables are ours; values are bound.
pub(super) struct Select<'q> {
    statement: QueryBuilder<'q, Postgres>,
    has_condition: bool,
}

impl<'q> Select<'q> {
    /// Begins with `SELECT … FROM …`.
    pub(super) fn of(selection: &str) -> Self {
        Self { statement: QueryBuilder::new(selection), has_condition: false }
    }

    fn condition(&mut self, condition: &str) -> &mut QueryBuilder<'q, Postgres> {
        self.statement.push(if self.has_condition { " AND " } else { " WHERE " }).push(condition);
        self.has_condition = true;
        &mut self.statement
    }

    /// The value stands behind `condition`, which ends with its operator; nothing is asked where there is none.
    pub(super) fn and_optional<T>(&mut self, condition: &str, value: Option<T>) -> &mut Self
    where
        T: Encode<'q, Postgres> + Type<Postgres> + Send + 'q,
    {
        if let Some(value) = value {
            self.condition(condition).push_bind(value);
        }
        self
    }

    /// A condition without a value.
    pub(super) fn and(&mut self, condition: &str) -> &mut Self {
        self.condition(condition);
        self
    }

    /// Text as it is.
    pub(super) fn push(&mut self, text: &str) -> &mut Self {
        self.statement.push(text);
        self
    }

    /// A value.
    pub(super) fn bind<T>(&mut self, value: T) -> &mut Self
    where
        T: Encode<'q, Postgres> + Type<Postgres> + Send + 'q,
    {
        self.statement.push_bind(value);
        self
    }

    /// Conditions of a subquery follow.
    pub(super) fn begin(&mut self, selection: &str) -> &mut Self {
        self.statement.push(selection);
        self.has_condition = false;
        self
    }

    /// Of the organization that is asked for, within those of the reading. The policies say the same; this is what an
    /// index can serve.
    pub(super) fn organization(
        &mut self,
        column: &str,
        transaction: &ReadTransaction,
        wanted: Option<&str>,
    ) -> &mut Self {
        match transaction.organizations(wanted) {
            None => self,
            Some(names) if names.is_empty() => self.and("false"),
            Some(mut names) if names.len() == 1 => self.and_optional(&format!("{column} = "), names.pop()),
            Some(names) => {
                self.condition(&format!("{column} = ANY (")).push_bind(names).push(")");
                self
            }
        }
    }

    /// Within a stretch of time.
    pub(super) fn within(&mut self, time: &str, span: &Span) -> &mut Self {
        self.and_optional(&format!("{time} >= "), Some(span.from)).and_optional(&format!("{time} <= "), Some(span.to))
    }

    /// The page's stretch of time, behind the item before. The cursor's time stands beside the comparison of rows, which
    /// alone would keep no day from being read.
    pub(super) fn on(&mut self, time: &str, page: &Page) -> &mut Self {
        let to = page.after.map_or(page.to, |(at, _)| at.min(page.to));
        self.within(time, &Span { from: page.from, to });
        self.behind(&format!("({time}, id)"), page.after)
    }

    /// Behind an item, by the two columns that order the list.
    pub(super) fn behind(&mut self, columns: &str, after: Option<Key>) -> &mut Self {
        if let Some((at, id)) = after {
            self.condition(&format!("{columns} < (")).push_bind(at).push(", ").push_bind(id).push(")");
        }
        self
    }

    /// The page's stretch of time, beyond the item before, for a list that goes on from the oldest one.
    pub(super) fn onward(&mut self, time: &str, page: &Page) -> &mut Self {
        let from = page.after.map_or(page.from, |(at, _)| at.max(page.from));
        self.within(time, &Span { from, to: page.to });
        if let Some((at, id)) = page.after {
            self.condition(&format!("({time}, id) > (")).push_bind(at).push(", ").push_bind(id).push(")");
        }
        self
    }

    /// The oldest first; otherwise as [`Select::newest`].
    pub(super) fn oldest(&mut self, time: &str, limit: u32) -> &mut Self {
        self.push(&format!(" ORDER BY {time}, id LIMIT {limit}"))
    }

    /// The newest first. The number stands in the statement, so that plans are made for it.
    pub(super) fn newest(&mut self, time: &str, limit: u32) -> &mut Self {
        self.push(&format!(" ORDER BY {time} DESC, id DESC LIMIT {limit}"))
    }

    /// All rows of the answer, as far as the reading takes them.
    pub(super) async fn all<R>(&mut self, transaction: &mut ReadTransaction) -> crate::Result<Vec<R>>
    where
        R: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        transaction.rows(self.statement.build()).await
    }

    /// Hands over the rows of the answer as they come, until `take` has enough. What the answer has behind that is read
    /// by whatever uses the connection next, and thrown away.
    pub(super) async fn each<R>(
        &mut self,
        transaction: &mut ReadTransaction,
        mut take: impl FnMut(R) -> crate::Result<ControlFlow<()>> + Send,
    ) -> crate::Result<()>
    where
        R: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let mut rows = self.statement.build_query_as().fetch(transaction.connection());
        while let Some(row) = rows.try_next().await? {
            if take(row)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The only row of the answer.
    pub(super) async fn one<R>(&mut self, transaction: &mut ReadTransaction) -> crate::Result<R>
    where
        R: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        self.statement.build_query_as().fetch_one(transaction.connection()).await
    }
}

/// A join with what the directory knows of an id that a row of `record` has: what the row's own organization says, else
/// what the platform says, and never what another one does.
pub(super) fn known_as(name: &str, entity: &str, id: &str) -> String {
    let of = |organization: &str, place: u8| {
        format!(
            "SELECT name, email, {place} AS place FROM watchbook.entities
              WHERE {organization} AND entity = '{entity}' AND entity_id = {id} AND NOT deleted"
        )
    };
    format!(
        " LEFT JOIN LATERAL (SELECT name, email FROM ({} UNION ALL {}) AS known ORDER BY place LIMIT 1) AS {name} ON true",
        of("organization_id = record.organization_id", 1),
        of("organization_id IS NULL", 2)
    )
}

/// Midnight in UTC, some days before that of `now`.
pub(super) fn midnight(now: DateTime<Utc>, days_before: u32) -> DateTime<Utc> {
    let day = now.date_naive().checked_sub_days(chrono::Days::new(u64::from(days_before)));
    day.unwrap_or_default().and_time(chrono::NaiveTime::MIN).and_utc()
}
