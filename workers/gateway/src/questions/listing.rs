//! What all questions share: how far back they look, the reading, and where a list goes on.

use axum::Json;
use chrono::{DateTime, TimeDelta, Utc};
use records::Kind;
use serde::{Deserialize, Serialize};
use store::questions::{self, Key, Listed, Span};
use store::reading::{Reading, Scope};

use crate::app::App;
use crate::auth::Caller;
use crate::cursor::Binding;
use crate::page::{LONGEST_RANGE, List, Page, Range};
use crate::problem::{Fault, Problem};

/// A page at the most, whatever its limit: a thousand usual records have one or two of these, and a thousand of the
/// largest would have five hundred. What is left out comes with the next page.
const PAGE_BYTES: usize = 8 << 20;

/// How far back a question looks unless asked, and how far it may where no index leads to what is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    /// Unless asked.
    pub(crate) usual: TimeDelta,
    /// At the most; `None` where an index leads there, and only the bound of every page counts.
    pub(crate) longest: Option<TimeDelta>,
}

impl Reach {
    /// As long as the kind is kept unless configured, or as `longest` allows.
    pub(crate) fn of(kind: Kind, longest: Option<TimeDelta>) -> Self {
        let kept = kind.spec().keep_days.map_or(LONGEST_RANGE, |days| TimeDelta::days(days.into()));
        Self { usual: longest.map_or(kept, |longest| longest.min(kept)), longest }
    }

    /// The range that is asked for.
    ///
    /// # Errors
    /// 400 for one that cannot be, or is too long.
    pub(crate) fn span(self, asked: &Range) -> Result<Span, Problem> {
        let (from, to) = asked.range(self.usual)?;
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
struct Place {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    after: Key,
}

/// A page of a list that can be asked for: what the caller said of it is checked, and nothing is read yet.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Whose records.
    pub(crate) scope: Scope,
    /// Which of them.
    pub(crate) page: questions::Page,
    binding: Binding,
}

impl Checked {
    /// Checks what a caller says of a page. `route` is the template of the path, to which a cursor is bound.
    ///
    /// # Errors
    /// 400 for a range or a cursor that cannot be.
    pub(crate) fn of(
        app: &App,
        caller: &Caller,
        route: &'static str,
        page: &Page,
        reach: Reach,
    ) -> Result<Self, Problem> {
        let scope = page.scope(caller)?;
        let binding = page.binding(route, caller);
        let (Span { from, to }, after) = match &page.cursor {
            None => (reach.span(&page.of())?, None),
            Some(cursor) => {
                let Place { from, to, after } = app.cursors.open(&binding, cursor)?;
                (Span { from, to }, Some(after))
            }
        };
        Ok(Self { scope, page: questions::Page { from, to, after, limit: page.limit }, binding })
    }

    /// Asks for it.
    ///
    /// # Errors
    /// 503 where the database does not answer.
    pub(crate) async fn answer<T: Listed + Serialize>(
        self,
        app: &App,
        question: impl AsyncFnOnce(&mut Reading, &questions::Page) -> store::Result<Vec<T>>,
    ) -> Result<Json<List<T>>, Problem> {
        // One more than is wanted tells whether there is a next page.
        let asked = questions::Page { limit: self.page.limit.saturating_add(1), ..self.page };
        let question = async |reading: &mut Reading| {
            reading.at_most(PAGE_BYTES);
            let items = question(reading, &asked).await?;
            Ok((items, reading.was_cut()))
        };
        let (mut items, was_cut) = ask(app, &self.scope, question).await?;
        let limit = usize::try_from(self.page.limit).unwrap_or(usize::MAX);
        let goes_on = was_cut || items.len() > limit;
        items.truncate(limit);
        let questions::Page { from, to, .. } = self.page;
        let next = items.last().filter(|_| goes_on).map(|last| Place { from, to, after: last.key() });
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
    reach: Reach,
    question: impl AsyncFnOnce(&mut Reading, &questions::Page) -> store::Result<Vec<T>>,
) -> Result<Json<List<T>>, Problem> {
    Checked::of(app, caller, route, page, reach)?.answer(app, question).await
}

/// Asks on behalf of somebody.
///
/// # Errors
/// 503 where the database does not answer, or not in time.
pub(crate) async fn ask<T>(
    app: &App,
    scope: &Scope,
    question: impl AsyncFnOnce(&mut Reading) -> store::Result<T>,
) -> Result<T, Problem> {
    let answer = async {
        let mut reading = app.reader.begin(scope).await?;
        let answer = question(&mut reading).await?;
        reading.end().await?;
        Ok(answer)
    };
    answer.await.map_err(|error: store::Error| Problem::of_database(&error))
}
