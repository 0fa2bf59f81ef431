//! What all queries share: time ranges, the read transaction, and cursors.

use axum::Json;
use chrono::{DateTime, TimeDelta, Utc};
use records::Kind;
use serde::{Deserialize, Serialize};
use store::queries::{self, Key, Listed, Span};
use store::scoped_read::{ReadTransaction, Scope};

use crate::app::App;
use crate::auth::Caller;
use crate::cursor::Binding;
use crate::page::{LONGEST_RANGE, List, Page, Range};
use crate::problem::{Fault, Problem};

/// The maximum size of a page in bytes, whatever its limit. A thousand usual records take one or two MiB, a thousand of
/// the largest take 500 MiB. Records that do not fit come with the next page.
const PAGE_BYTES: usize = 8 << 20;

/// The default range of a query, and the longest one if no index leads to the records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeLimits {
    /// The default range.
    pub(crate) default: TimeDelta,
    /// The longest range; `None` if an index leads to the records, and only the bound of every page applies.
    pub(crate) longest: Option<TimeDelta>,
}

impl TimeLimits {
    /// Returns the limits of a kind. The default is the kind's default retention time, or `longest` if that is
    /// shorter.
    pub(crate) fn of(kind: Kind, longest: Option<TimeDelta>) -> Self {
        let kept = kind.spec().keep_days.map_or(LONGEST_RANGE, |days| TimeDelta::days(days.into()));
        Self { default: longest.map_or(kept, |longest| longest.min(kept)), longest }
    }

    /// Returns the requested range.
    ///
    /// # Errors
    /// 400 if the range is invalid or too long.
    pub(crate) fn span(self, params: &Range) -> Result<Span, Problem> {
        let (from, to) = params.range(self.default)?;
        match self.longest.filter(|longest| to - from > *longest) {
            None => Ok(Span { from, to }),
            Some(longest) => {
                let reason = format!(
                    "more than {} days before `to`, or before now: too long for a search without an index",
                    longest.num_days()
                );
                Err(Problem::parameters(vec![Fault::of("from", reason)]))
            }
        }
    }
}

/// The position in a list: the last item, and the range of the first page. Without that range, items that arrive in
/// the meantime would shift a range that is relative to now.
#[derive(Debug, Serialize, Deserialize)]
struct ListPosition {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    after: Key,
}

/// A page whose parameters are checked, and of which nothing is read yet.
#[derive(Debug)]
pub(crate) struct CheckedPage {
    /// The organizations whose records may be read.
    pub(crate) scope: Scope,
    /// The requested page.
    pub(crate) page: queries::Page,
    binding: Binding,
}

impl CheckedPage {
    /// Checks the parameters of a page. `route` is the template of the path, to which a cursor is bound.
    ///
    /// # Errors
    /// 400 if the range or the cursor is invalid.
    pub(crate) fn of(
        app: &App,
        caller: &Caller,
        route: &'static str,
        page: &Page,
        limits: TimeLimits,
    ) -> Result<Self, Problem> {
        let scope = page.scope(caller)?;
        let binding = page.binding(route, caller);
        let (Span { from, to }, after) = match &page.cursor {
            None => (limits.span(&page.of())?, None),
            Some(cursor) => {
                let ListPosition { from, to, after } = app.cursors.open(&binding, cursor)?;
                (Span { from, to }, Some(after))
            }
        };
        Ok(Self { scope, page: queries::Page { from, to, after, limit: page.limit }, binding })
    }

    /// Runs the query, and returns the page.
    ///
    /// # Errors
    /// 503 if the database is unavailable.
    pub(crate) async fn answer<T: Listed + Serialize>(
        self,
        app: &App,
        query: impl AsyncFnOnce(&mut ReadTransaction, &queries::Page) -> store::Result<Vec<T>>,
    ) -> Result<Json<List<T>>, Problem> {
        // One item more than requested shows whether there is a next page.
        let params = queries::Page { limit: self.page.limit.saturating_add(1), ..self.page };
        let query = async |transaction: &mut ReadTransaction| {
            transaction.at_most(PAGE_BYTES);
            let items = query(transaction, &params).await?;
            Ok((items, transaction.was_cut()))
        };
        let (mut items, was_cut) = run_query(app, &self.scope, query).await?;
        let limit = usize::try_from(self.page.limit).unwrap_or(usize::MAX);
        let has_more = was_cut || items.len() > limit;
        items.truncate(limit);
        let queries::Page { from, to, .. } = self.page;
        let next = items.last().filter(|_| has_more).map(|last| ListPosition { from, to, after: last.key() });
        let next_cursor = next.map(|next| app.cursors.sign(&self.binding, &next)).transpose()?;
        Ok(Json(List { items, next_cursor }))
    }
}

/// Returns one page of a list. `route` is the template of the path, to which a cursor is bound.
///
/// # Errors
/// 400 if the range or the cursor is invalid, 503 if the database is unavailable.
pub(crate) async fn list<T: Listed + Serialize>(
    app: &App,
    caller: &Caller,
    route: &'static str,
    page: &Page,
    limits: TimeLimits,
    query: impl AsyncFnOnce(&mut ReadTransaction, &queries::Page) -> store::Result<Vec<T>>,
) -> Result<Json<List<T>>, Problem> {
    CheckedPage::of(app, caller, route, page, limits)?.answer(app, query).await
}

/// Runs a query in a read transaction of a scope.
///
/// # Errors
/// 503 if the database is unavailable or the query times out.
pub(crate) async fn run_query<T>(
    app: &App,
    scope: &Scope,
    query: impl AsyncFnOnce(&mut ReadTransaction) -> store::Result<T>,
) -> Result<T, Problem> {
    let answer = async {
        let mut transaction = app.reader.begin(scope).await?;
        let answer = query(&mut transaction).await?;
        transaction.end().await?;
        Ok(answer)
    };
    answer.await.map_err(|error: store::Error| Problem::of_database(&error))
}
