//! Pages of lists: their query parameters and their response.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use store::scoped_read::Scope;
use utoipa::{IntoParams, ToSchema};

use crate::auth::Caller;
use crate::cursor::Binding;
use crate::problem::{Fault, Problem};
use crate::query::{CURSOR_BYTES, FromQuery, Parameters};

/// Maximum value of `limit`. It is part of the public API.
pub const MAX_ITEMS: u32 = 1000;
/// Default value of `limit`.
const USUAL_ITEMS: u32 = 100;
/// Maximum time range: covers the longest default retention period (except for audit, which is kept for ever).
pub const LONGEST_RANGE: TimeDelta = TimeDelta::days(400);
/// Upper bound for how far ahead records are dated: one day ahead of their stream's clock, which may itself be ahead of
/// the gateway's clock.
const AHEAD: TimeDelta = TimeDelta::days(2);

/// The query parameters of a list.
#[derive(Debug, Clone, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Maximum number of items. A page of large items has fewer: only `next_cursor` tells whether there are more.
    #[param(minimum = 1, maximum = 1000, default = 100, value_type = Option<u32>)]
    pub limit: u32,
    /// Continues a list: `next_cursor` of the previous page, with the same filters. All pages use the time range of the
    /// first page, also if `from` and `to` are relative.
    #[param(max_length = 1024)]
    pub cursor: Option<String>,
    /// Start of the time range: an RFC 3339 time, a date such as `2026-06-15` (midnight UTC), or a time
    /// relative to now, such as `-30m`, `-24h` or `-7d`.
    #[param(value_type = Option<String>, pattern = "^(-[0-9]{1,9}[smhd]|[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt].+)?)$")]
    pub from: Option<DateTime<Utc>>,
    /// End of the time range, in the same forms as `from`. Defaults to now.
    #[param(value_type = Option<String>, pattern = "^(-[0-9]{1,9}[smhd]|[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt].+)?)$")]
    pub to: Option<DateTime<Utc>>,
    /// Returns only records of this organization. One that the caller may not see has no records.
    #[param(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    pub organization_id: Option<String>,
    /// The filters of the query, to which cursors are bound.
    #[param(ignore)]
    pub filters: String,
    /// Maximum time range.
    #[param(ignore)]
    pub longest: TimeDelta,
    /// The time of the request, used as `now` for the whole request.
    #[param(ignore)]
    pub asked_at: DateTime<Utc>,
}

/// The time range and the organization of a query without pages.
#[derive(Debug, Clone, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Range {
    /// Start of the time range: an RFC 3339 time, a date such as `2026-06-15` (midnight UTC), or a time
    /// relative to now, such as `-30m`, `-24h` or `-7d`.
    #[param(value_type = Option<String>, pattern = "^(-[0-9]{1,9}[smhd]|[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt].+)?)$")]
    pub from: Option<DateTime<Utc>>,
    /// End of the time range, in the same forms as `from`. Defaults to now.
    #[param(value_type = Option<String>, pattern = "^(-[0-9]{1,9}[smhd]|[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt].+)?)$")]
    pub to: Option<DateTime<Utc>>,
    /// Returns only records of this organization. One that the caller may not see has no records.
    #[param(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    pub organization_id: Option<String>,
    /// Maximum time range.
    #[param(ignore)]
    pub longest: TimeDelta,
    /// The time of the request, used as `now` for the whole request.
    #[param(ignore)]
    pub asked_at: DateTime<Utc>,
}

impl FromQuery for Range {
    fn from_query(parameters: &mut Parameters) -> Self {
        Self::within(LONGEST_RANGE, parameters)
    }
}

impl Range {
    /// Reads the parameters of a query whose time range may be at most `longest`.
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

    /// Returns the time range. `to` defaults to now, and `from` to `usual` before `to`. If `to` is given without `from`
    /// and lies further ahead than records can be dated, the range ends at that bound: otherwise the default range
    /// would lie after all records.
    ///
    /// # Errors
    /// 400 if the range is empty or negative, or longer than the maximum.
    pub fn range(&self, usual: TimeDelta) -> Result<(DateTime<Utc>, DateTime<Utc>), Problem> {
        let refuse = |reason: &str| Err(Problem::parameters(vec![Fault::of("from", reason)]));
        // The same now as for relative times: with `from=-7d` and the default `to`, the range is exactly seven days.
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

    /// Returns the organizations whose records the query covers.
    ///
    /// # Errors
    /// 400 for an invalid organization name.
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
    /// Reads the parameters of a list whose time range may be at most `longest`.
    pub fn within(longest: TimeDelta, parameters: &mut Parameters) -> Self {
        let cursor = parameters.bounded_text("cursor", CURSOR_BYTES);
        // The cursor contains the time range of the first page. Relative times have moved since then, and `from` may
        // now be later than `to`, so do not check them.
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

    /// Returns the time range and the organization.
    pub fn of(&self) -> Range {
        Range {
            from: self.from,
            to: self.to,
            organization_id: self.organization_id.clone(),
            longest: self.longest,
            asked_at: self.asked_at,
        }
    }

    /// Returns the time range: see [`Range::range`].
    ///
    /// # Errors
    /// See [`Range::range`].
    pub fn range(&self, usual: TimeDelta) -> Result<(DateTime<Utc>, DateTime<Utc>), Problem> {
        self.of().range(usual)
    }

    /// Returns the organizations whose records the query covers.
    ///
    /// # Errors
    /// 400 for an invalid organization name.
    pub fn scope(&self, caller: &Caller) -> Result<Scope, Problem> {
        caller.scope(self.organization_id.as_deref())
    }

    /// Adds a path parameter to the filters to which cursors are bound.
    #[must_use]
    pub fn about(mut self, name: &str, text: &str) -> Self {
        self.filters.push_str(&format!("{}:{name}={}:{text};", name.len(), text.len()));
        self
    }

    /// Returns the binding for cursors of this list.
    pub fn binding(&self, route: &'static str, caller: &Caller) -> Binding {
        Binding::new(route, &self.filters, caller)
    }
}

/// A page of a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct List<T> {
    /// The items, newest first.
    pub items: Vec<T>,
    /// The `cursor` of the next page; null on the last page.
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
        assert_eq!(ahead.1.to_rfc3339(), "2027-01-01T00:00:00+00:00", "an explicit range is not changed");
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
        // Exactly the longest range.
        assert_eq!(range("from=-400d"), (now - LONGEST_RANGE, now));
        // Later pages use the time range of the cursor, so relative times are not compared.
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
