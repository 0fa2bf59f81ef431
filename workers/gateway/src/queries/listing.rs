//! What all queries share: how far back they look, the reading, and where a list goes on.

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

/// A page at the most, whatever its limit: a thousand usual records have one or two of these, and a thousand of the
/// largest would have five hundred. What is left out comes with the next page.
const PAGE_BYTES: usize = 8 << 20;

/// How far back a query looks unless asked, and how far it may where no index leads to what is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeLimits {
    /// Unless asked.
    pub(crate) default: TimeDelta,
    /// At the most; `None` where an index leads there, and only the bound of every page counts.
    pub(crate) longest: Option<TimeDelta>,
}

impl TimeLimits {
    /// As long as the kind is kept unless configured, or as `longest` allows.
    pub(crate) fn of(kind: Kind, longest: Option<TimeDelta>) -> Self {
        let kept = kind.spec().keep_days.map_or(LONGEST_RANGE, |days| TimeDelta::days(days.into()));
        Self { default: longest.map_or(kept, |longest| longest.min(kept)), longest }
    }

    /// The range that is asked for.
    ///
    /// # Errors
    /// 400 for one that cannot be, or is too long.
    pub(crate) fn span(self, params: &Range) -> Result<Span, Problem> {
        let (from, to) = params.range(self.default)?;
        match self.longest.filter(|longest| to - from > *longest) {
            None => Ok(Span { from, to }),
            Some(longest) => {
                let reason = format!(
                    "more than {} days before `to`, or before now: so much cannot be searched through like this",
                    longest.num_days()
                );
                Err(Problem::parameters(vec![Fault::of("from", reason)]))
            }
        }
    }
}

/// Where a list goes on: behind which item, and in the time of its first page, or an item that comes meanwhile would move
/// what is asked for from under the reader.
#[derive(Debug, Serialize, Deserialize)]
struct ListPosition {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    after: Key,
}

/// A page of a list that can be asked for: what the caller said of it is checked, and nothing is read yet.
#[derive(Debug)]
pub(crate) struct CheckedPage {
    /// Whose records.
    pub(crate) scope: Scope,
    /// Which of them.
    pub(crate) page: queries::Page,
    binding: Binding,
}

impl CheckedPage {
    /// Checks what a caller says of a page. `route` is the template of the path, to which a cursor is bound.
    ///
    /// # Errors
    /// 400 for a range or a cursor that cannot be.
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

    /// Asks for it.
    ///
    /// # Errors
    /// 503 where the database does not answer.
    pub(crate) async fn answer<T: Listed + Serialize>(
        self,
        app: &App,
        query: impl AsyncFnOnce(&mut ReadTransaction, &queries::Page) -> store::Result<Vec<T>>,
    ) -> Result<Json<List<T>>, Problem> {
        // One more than is wanted tells whether there is a next page.
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

/// Answers one page of a list. `route` is the template of the path, to which a cursor is bound.
///
/// # Errors
/// 400 for a range or a cursor that cannot be, 503 where the database does not answer.
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

/// Asks on behalf of somebody.
///
/// # Errors
/// 503 where the database does not answer, or not in time.
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
