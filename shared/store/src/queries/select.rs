//! Builds a statement from exactly the requested conditions. No index serves a condition that may be absent
//! (`$1 IS NULL OR …`).

use std::ops::ControlFlow;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::{Encode, FromRow, Postgres, QueryBuilder, Type};

use super::{Key, Page, Span};
use crate::scoped_read::ReadTransaction;

/// A statement under construction. Names of columns and tables come from the code; values are bound.
pub(super) struct Select<'q> {
    statement: QueryBuilder<'q, Postgres>,
    has_condition: bool,
}

impl<'q> Select<'q> {
    /// Starts with `SELECT … FROM …`.
    pub(super) fn of(selection: &str) -> Self {
        Self { statement: QueryBuilder::new(selection), has_condition: false }
    }

    fn condition(&mut self, condition: &str) -> &mut QueryBuilder<'q, Postgres> {
        self.statement.push(if self.has_condition { " AND " } else { " WHERE " }).push(condition);
        self.has_condition = true;
        &mut self.statement
    }

    /// Adds a condition, which ends with its operator, and binds the value behind it. Adds nothing if there is no
    /// value.
    pub(super) fn and_optional<T>(&mut self, condition: &str, value: Option<T>) -> &mut Self
    where
        T: Encode<'q, Postgres> + Type<Postgres> + Send + 'q,
    {
        if let Some(value) = value {
            self.condition(condition).push_bind(value);
        }
        self
    }

    /// Adds a condition without a value.
    pub(super) fn and(&mut self, condition: &str) -> &mut Self {
        self.condition(condition);
        self
    }

    /// Appends text as it is.
    pub(super) fn push(&mut self, text: &str) -> &mut Self {
        self.statement.push(text);
        self
    }

    /// Binds a value.
    pub(super) fn bind<T>(&mut self, value: T) -> &mut Self
    where
        T: Encode<'q, Postgres> + Type<Postgres> + Send + 'q,
    {
        self.statement.push_bind(value);
        self
    }

    /// Starts a subquery with conditions of its own.
    pub(super) fn begin(&mut self, selection: &str) -> &mut Self {
        self.statement.push(selection);
        self.has_condition = false;
        self
    }

    /// Restricts rows to the requested organization, within those of the read transaction. The policies enforce the
    /// same, but only this condition can use an index.
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

    /// Restricts rows to a time range.
    pub(super) fn within(&mut self, time: &str, span: &Span) -> &mut Self {
        self.and_optional(&format!("{time} >= "), Some(span.from)).and_optional(&format!("{time} <= "), Some(span.to))
    }

    /// Restricts rows to the page's range, after the last item of the previous page. The cursor's time is a condition
    /// of its own, because the row comparison does not prune partitions.
    pub(super) fn on(&mut self, time: &str, page: &Page) -> &mut Self {
        let to = page.after.map_or(page.to, |(at, _)| at.min(page.to));
        self.within(time, &Span { from: page.from, to });
        self.behind(&format!("({time}, id)"), page.after)
    }

    /// Restricts rows to those after an item in a descending list, by the two columns that order it.
    pub(super) fn behind(&mut self, columns: &str, after: Option<Key>) -> &mut Self {
        if let Some((at, id)) = after {
            self.condition(&format!("{columns} < (")).push_bind(at).push(", ").push_bind(id).push(")");
        }
        self
    }

    /// Restricts rows to the page's range, after the last item of the previous page, in an ascending list.
    pub(super) fn onward(&mut self, time: &str, page: &Page) -> &mut Self {
        let from = page.after.map_or(page.from, |(at, _)| at.max(page.from));
        self.within(time, &Span { from, to: page.to });
        if let Some((at, id)) = page.after {
            self.condition(&format!("({time}, id) > (")).push_bind(at).push(", ").push_bind(id).push(")");
        }
        self
    }

    /// Orders by time and id, oldest first, with a limit as in [`Select::newest`].
    pub(super) fn oldest(&mut self, time: &str, limit: u32) -> &mut Self {
        self.push(&format!(" ORDER BY {time}, id LIMIT {limit}"))
    }

    /// Orders by time and id, newest first. The limit is a literal, so that the planner knows it.
    pub(super) fn newest(&mut self, time: &str, limit: u32) -> &mut Self {
        self.push(&format!(" ORDER BY {time} DESC, id DESC LIMIT {limit}"))
    }

    /// Returns all rows, up to the size limit of the read transaction.
    pub(super) async fn all<R>(&mut self, transaction: &mut ReadTransaction) -> crate::Result<Vec<R>>
    where
        R: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        transaction.rows(self.statement.build()).await
    }

    /// Passes on rows as they arrive, until `take` has enough. The connection discards the remaining rows before its
    /// next use.
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

    /// Returns the only row.
    pub(super) async fn one<R>(&mut self, transaction: &mut ReadTransaction) -> crate::Result<R>
    where
        R: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        self.statement.build_query_as().fetch_one(transaction.connection()).await
    }
}

/// Returns a join with the directory's entry for an id in `record`. The entry of the row's own organization is
/// preferred over that of the platform; those of other organizations are never used.
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

/// Returns midnight in UTC of the date `days_before` days before that of `now`.
pub(super) fn midnight(now: DateTime<Utc>, days_before: u32) -> DateTime<Utc> {
    let day = now.date_naive().checked_sub_days(chrono::Days::new(u64::from(days_before)));
    day.unwrap_or_default().and_time(chrono::NaiveTime::MIN).and_utc()
}
