//! Lists: which part of one is wanted, and how it is answered.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use store::scoped_read::Scope;
use utoipa::{IntoParams, ToSchema};

use crate::auth::Caller;
use crate::cursor::Binding;
use crate::problem::{Fault, Problem};
use crate::query::{CURSOR_BYTES, FromQuery, Parameters};

/// Items of a page at the most, as the contract says.
pub const MAX_ITEMS: u32 = 1000;
/// Items of a page unless asked for.
const USUAL_ITEMS: u32 = 100;
/// A range at the most: as long as the records that are kept longest unless configured, audit apart.
pub const LONGEST_RANGE: TimeDelta = TimeDelta::days(400);
/// No record is dated further ahead: a day ahead of its stream's clock, which may be ahead of ours.
const AHEAD: TimeDelta = TimeDelta::days(2);

/// Which part of a list is wanted.
#[derive(Debug, Clone, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Items at the most. Of large ones there are fewer: whether there are more says `next_cursor` alone.
    #[param(minimum = 1, maximum = 1000, default = 100, value_type = Option<u32>)]
    pub limit: u32,
    /// Where to go on: `next_cursor` of the page before, with the same filters. It keeps the time of the first page, so
    /// that relative times mean the same on each.
    #[param(max_length = 1024)]
    pub cursor: Option<String>,
    /// From then on: a time of RFC 3339, a date such as `2026-06-15` for its midnight in UTC, or a time before now such
    /// as `-30m`, `-24h` or `-7d`.
    #[param(value_type = Option<String>, pattern = "^(-[0-9]{1,9}[smhd]|[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt].+)?)$")]
    pub from: Option<DateTime<Utc>>,
    /// Up to then, in the same forms; now unless said.
    #[param(value_type = Option<String>, pattern = "^(-[0-9]{1,9}[smhd]|[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt].+)?)$")]
    pub to: Option<DateTime<Utc>>,
    /// Of this organization alone. One that the caller may not see has nothing.
    #[param(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    pub organization_id: Option<String>,
    /// What tells this query from others.
    #[param(ignore)]
    pub filters: String,
    /// A range at the most.
    #[param(ignore)]
    pub longest: TimeDelta,
    /// When it was asked: what `now` is for all of the request.
    #[param(ignore)]
    pub asked_at: DateTime<Utc>,
}

/// Of what time and of whom something is asked that has no pages.
#[derive(Debug, Clone, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Range {
    /// From then on: a time of RFC 3339, a date such as `2026-06-15` for its midnight in UTC, or a time before now such
    /// as `-30m`, `-24h` or `-7d`.
    #[param(value_type = Option<String>, pattern = "^(-[0-9]{1,9}[smhd]|[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt].+)?)$")]
    pub from: Option<DateTime<Utc>>,
    /// Up to then, in the same forms; now unless said.
    #[param(value_type = Option<String>, pattern = "^(-[0-9]{1,9}[smhd]|[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt].+)?)$")]
    pub to: Option<DateTime<Utc>>,
    /// Of this organization alone. One that the caller may not see has nothing.
    #[param(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    pub organization_id: Option<String>,
    /// A range at the most.
    #[param(ignore)]
    pub longest: TimeDelta,
    /// When it was asked: what `now` is for all of the request.
    #[param(ignore)]
    pub asked_at: DateTime<Utc>,
}

impl FromQuery for Range {
    fn from_query(parameters: &mut Parameters) -> Self {
        Self::within(LONGEST_RANGE, parameters)
    }
}

impl Range {
    /// Reads it, for a query that may be about so long a time.
    pub fn within(longest: TimeDelta, parameters: &mut Parameters) -> Self {
        let range = Self::unchecked(longest, parameters);
        if let (Some(from), Some(to)) = (range.from, range.to) {
            if from >= to {
                parameters.refuse("from", "has to be before `to`");
            } else if to - from > longest {
                parameters.refuse("from", format!("more than {} days before `to`", longest.num_days()));
            }
        }
        range
    }

    fn unchecked(longest: TimeDelta, parameters: &mut Parameters) -> Self {
        Self {
            from: parameters.time("from"),
            to: parameters.time("to"),
            organization_id: parameters.text("organization_id"),
            longest,
            asked_at: parameters.now(),
        }
    }

    /// The time that is asked for: up to now unless said, and from `usual` before its end. Where only an end is said
    /// that lies further ahead than any record may, the time ends there instead: it would pass by all that there is.
    ///
    /// # Errors
    /// 400 where it begins after its end, or is too long.
    pub fn range(&self, usual: TimeDelta) -> Result<(DateTime<Utc>, DateTime<Utc>), Problem> {
        let refuse = |reason: &str| Err(Problem::parameters(vec![Fault::of("from", reason)]));
        // One now for all of it: `from=-7d` is seven days before a `to` that is not said, and no microsecond more.
        let now = self.asked_at;
        let to = match (self.to, self.from) {
            (Some(to), None) => to.min(now + AHEAD),
            (to, _) => to.unwrap_or(now),
        };
        let Some(from) = self.from.or_else(|| to.checked_sub_signed(usual)) else {
            return Err(Problem::parameters(vec![Fault::of("to", "is before all time")]));
        };
        match to - from {
            length if length <= TimeDelta::zero() => refuse("has to be before `to`, or before now"),
            length if length > self.longest => refuse("is too long before `to`, or before now"),
            _ => Ok((from, to)),
        }
    }

    /// Whose records are asked for.
    ///
    /// # Errors
    /// 400 for what can be nobody's organization.
    pub fn scope(&self, caller: &Caller) -> Result<Scope, Problem> {
        caller.scope(self.organization_id.as_deref())
    }
}

impl FromQuery for Page {
    fn from_query(parameters: &mut Parameters) -> Self {
        Self::within(LONGEST_RANGE, parameters)
    }
}

impl Page {
    /// Reads it, for a list that may be asked for so long a time.
    pub fn within(longest: TimeDelta, parameters: &mut Parameters) -> Self {
        let cursor = parameters.bounded_text("cursor", CURSOR_BYTES);
        // With a cursor the time is that of the first page. What a relative time means by now says nothing about it, and
        // may have passed the other end meanwhile.
        let range = match cursor {
            Some(_) => Range::unchecked(longest, parameters),
            None => Range::within(longest, parameters),
        };
        let Range { from, to, organization_id, longest, asked_at } = range;
        Self {
            limit: parameters.number("limit", 1..=MAX_ITEMS).unwrap_or(USUAL_ITEMS),
            cursor,
            from,
            to,
            organization_id,
            filters: parameters.filters(),
            longest,
            asked_at,
        }
    }

    /// Of what time and of whom it is asked.
    pub fn of(&self) -> Range {
        Range {
            from: self.from,
            to: self.to,
            organization_id: self.organization_id.clone(),
            longest: self.longest,
            asked_at: self.asked_at,
        }
    }

    /// As [`Range::range`].
    ///
    /// # Errors
    /// As there.
    pub fn range(&self, usual: TimeDelta) -> Result<(DateTime<Utc>, DateTime<Utc>), Problem> {
        self.of().range(usual)
    }

    /// Whose records are asked for.
    ///
    /// # Errors
    /// 400 for what can be nobody's organization.
    pub fn scope(&self, caller: &Caller) -> Result<Scope, Problem> {
        caller.scope(self.organization_id.as_deref())
    }

    /// Makes the text of a path a part of what tells this query from others.
    #[must_use]
    pub fn about(mut self, name: &str, text: &str) -> Self {
        self.filters.push_str(&format!("{}:{name}={}:{text};", name.len(), text.len()));
        self
    }

    /// What a cursor of this page is good for.
    pub fn binding(&self, route: &'static str, caller: &Caller) -> Binding {
        Binding::new(route, &self.filters, caller)
    }
}

/// A part of a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct List<T> {
    /// The items, newest first.
    pub items: Vec<T>,
    /// Where the next part begins; null at the end.
    pub next_cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::names_of;

    fn read(query: &str) -> Result<Page, Problem> {
        let now: DateTime<Utc> = "2026-06-15T12:00:00Z".parse().unwrap();
        Parameters::at(query, now).read::<Page>()
    }

    #[test]
    fn pages_are_bounded() {
        assert_eq!(read("").unwrap().limit, USUAL_ITEMS);
        assert_eq!(read("limit=1000").unwrap().limit, MAX_ITEMS);
        for wrong in [
            "limit=0",
            "limit=1001",
            "from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z",
            "from=2026-02-01T00:00:00Z&to=2026-02-01T00:00:00Z",
            "from=2020-02-01T00:00:00Z&to=2026-02-01T00:00:00Z",
            "from=2026-02-02&to=2026-02-01",
            "from=-1h&to=-2h",
            "from=-401d&to=-0s",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let now = read("").unwrap().asked_at;
        let day = TimeDelta::days(1);
        assert_eq!(read("").unwrap().range(day).unwrap(), (now - day, now));
        let week = TimeDelta::days(7);
        for (to, end) in [("2026-06-16T12:00:00Z", now + day), ("2099-01-01T00:00:00Z", now + AHEAD)] {
            assert_eq!(read(&format!("to={to}")).unwrap().range(week).unwrap(), (end - week, end), "{to}");
        }
        let ahead = read("from=2026-06-15T11:00:00Z&to=2027-01-01T00:00:00Z").unwrap().range(week).unwrap();
        assert_eq!(ahead.1.to_rfc3339(), "2027-01-01T00:00:00+00:00", "what is said is asked");
        assert!(read("from=2026-06-15T12:00:00Z").unwrap().range(day).is_err());
        assert!(read("from=2000-06-15T12:00:00Z").unwrap().range(day).is_err());
        assert!(read("to=-262143-01-01T00:00:00Z").is_err());
    }

    #[test]
    fn dates_and_relative_times_are_times() {
        let (day, week) = (TimeDelta::days(1), TimeDelta::days(7));
        let range = |query: &str| read(query).unwrap().range(week).unwrap();
        let now = read("").unwrap().asked_at;
        assert_eq!(range("from=-24h"), (now - day, now));
        assert_eq!(range("from=-7d&to=-24h"), (now - week, now - day));
        let midnight: DateTime<Utc> = "2026-06-14T00:00:00Z".parse().unwrap();
        assert_eq!(range("from=2026-06-14"), (midnight, now));
        assert_eq!(range("from=2026-06-13&to=2026-06-14"), (midnight - day, midnight));
        // The longest range there is, to the microsecond.
        assert_eq!(range("from=-400d"), (now - LONGEST_RANGE, now));
        // On a later page the time is that of the cursor, wherever relative times have come to since.
        assert!(read("from=-1h&to=2026-06-15T10:00:00Z").is_err());
        assert!(read("from=-1h&to=2026-06-15T10:00:00Z&cursor=x").is_ok());
        assert!(read("from=yesterday&cursor=x").is_err());
    }

    #[test]
    fn what_is_described_is_what_is_read() {
        fn is_described<T: IntoParams + FromQuery>() {
            let described = T::into_params(|| None);
            let described: std::collections::BTreeSet<_> = described.iter().map(|param| param.name.as_str()).collect();
            assert_eq!(described, names_of::<T>());
        }
        is_described::<Page>();
        is_described::<Range>();
    }
}
