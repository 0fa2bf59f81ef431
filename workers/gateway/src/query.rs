//! Query parameters, strictly: what is not known, stands twice, is of the wrong type or out of bounds is named.
//!
//! A query lists its parameters once, in a struct that implements [`FromQuery`], and takes them with [`Query`]. All
//! faults are told at once, so reading goes on after the first one.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use chrono::{DateTime, TimeDelta, Utc};
use percent_encoding::percent_decode_str;
use records::audit::Address;
use runtime::when::{self, When};

use crate::problem::{Fault, Problem};

/// Text of a parameter at the most, in bytes: as ids and types of records are bounded.
const TEXT_BYTES: usize = 256;
/// A cursor at the most.
pub(crate) const CURSOR_BYTES: usize = 1024;
/// Parameters of one request at the most: no query knows as many.
const PARAMETERS: usize = 64;

/// What a query may be asked with.
pub trait FromQuery: Sized {
    /// Reads it. Faults are noted in `parameters`; what is returned then is never used.
    fn from_query(parameters: &mut Parameters) -> Self;
}

/// The parameters of a request, not all of which are read yet.
#[derive(Debug, Default)]
pub struct Parameters {
    now: DateTime<Utc>,
    pairs: BTreeMap<String, String>,
    known: BTreeSet<&'static str>,
    faults: Vec<Fault>,
}

impl Parameters {
    /// Reads what stands behind the `?`.
    pub fn of(query: &str) -> Self {
        Self::at(query, Utc::now())
    }

    /// As [`Parameters::of`], where it is `now`.
    pub fn at(query: &str, now: DateTime<Utc>) -> Self {
        let mut parameters = Self { now, ..Self::default() };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decoded(name), decoded(value)) else {
                parameters.refuse(shown(name), "is not UTF-8, or has NUL in it");
                continue;
            };
            if parameters.pairs.len() >= PARAMETERS {
                parameters.refuse(shown(&name), "too many parameters");
                break;
            }
            if parameters.pairs.insert(name.clone(), value).is_some() {
                parameters.refuse(shown(&name), "stands twice");
            }
        }
        parameters
    }

    /// Notes a fault.
    pub fn refuse(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        self.faults.push(Fault::of(name, reason));
    }

    fn take(&mut self, name: &'static str) -> Option<String> {
        self.known.insert(name);
        self.pairs.get(name).cloned()
    }

    /// Text of at most 256 bytes that is not empty.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.bounded_text(name, TEXT_BYTES)
    }

    /// Text of at most so many bytes that is not empty.
    pub fn bounded_text(&mut self, name: &'static str, bytes: usize) -> Option<String> {
        let text = self.take(name)?;
        if text.is_empty() || text.len() > bytes {
            self.refuse(name, format!("expected 1 to {bytes} bytes"));
        }
        Some(text)
    }

    /// As [`Parameters::text`], and it has to be there.
    pub fn required_text(&mut self, name: &'static str) -> String {
        let text = self.text(name);
        if text.is_none() {
            self.refuse(name, "is missing");
        }
        text.unwrap_or_default()
    }

    /// A whole number within a range.
    pub fn number(&mut self, name: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let text = self.take(name)?;
        let number = text.parse().ok().filter(|number| range.contains(number) && !text.starts_with('+'));
        if number.is_none() {
            self.refuse(name, format!("expected a whole number from {} to {}", range.start(), range.end()));
        }
        number
    }

    /// `true` or `false`.
    pub fn flag(&mut self, name: &'static str) -> Option<bool> {
        let flag = self.take(name)?.parse().ok();
        if flag.is_none() {
            self.refuse(name, "expected true or false");
        }
        flag
    }

    /// A time as [`When`] reads one. Relative times count from [`Parameters::now`].
    pub fn time(&mut self, name: &'static str) -> Option<DateTime<Utc>> {
        let text = self.take(name)?;
        // In a query `+` is a space; who forgot to escape the one of an offset means it.
        match text.replace(' ', "+").parse::<When>() {
            Ok(when) => Some(when.at(self.now)),
            Err(error) => {
                self.refuse(name, error.to_string());
                None
            }
        }
    }

    /// When the request was read: the same moment for every relative time in it.
    pub fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// One of several words.
    pub fn one_of(&mut self, name: &'static str, words: &[&'static str]) -> Option<&'static str> {
        let text = self.take(name)?;
        let word = words.iter().copied().find(|word| *word == text);
        if word.is_none() {
            self.refuse(name, format!("expected one of {}", words.join(", ")));
        }
        word
    }

    /// An address, or a network.
    pub fn address(&mut self, name: &'static str) -> Option<Address> {
        /// The longest there is takes 43.
        const MAX_BYTES: usize = 64;
        let text = self.bounded_text(name, MAX_BYTES)?;
        let address = Address::parse(&text);
        if address.is_none() {
            self.refuse(name, "expected an address such as 192.0.2.1, or a network such as 10.0.0.0/8");
        }
        address
    }

    /// How long something is: `60s`, `5m`, `1h` or `7d`.
    pub fn length(&mut self, name: &'static str) -> Option<TimeDelta> {
        let length = when::length(&self.take(name)?);
        if length.is_none() {
            self.refuse(name, "expected a time such as 60s, 5m, 1h or 7d");
        }
        length
    }

    /// Refuses parameters that mean nothing beside another one.
    pub fn refuse_beside(&mut self, other: &str, names: &[&'static str]) {
        for name in names {
            if self.pairs.contains_key(*name) {
                self.refuse(*name, format!("means nothing beside `{other}`"));
            }
        }
    }

    /// What tells this query from others: every parameter but those that only say which part of it is wanted.
    pub fn filters(&self) -> String {
        let kept = self.pairs.iter().filter(|(name, _)| !matches!(name.as_str(), "cursor" | "limit"));
        kept.map(|(name, value)| format!("{}:{name}={}:{value};", name.len(), value.len())).collect()
    }

    /// What a query is asked with, or all that is wrong with it.
    ///
    /// # Errors
    /// 400 with each parameter that is at fault.
    pub fn read<T: FromQuery>(self) -> Result<T, Problem> {
        self.read_with(T::from_query)
    }

    /// As [`Parameters::read`], where what is asked for depends on more than a type.
    ///
    /// # Errors
    /// 400 with each parameter that is at fault.
    pub(crate) fn read_with<T>(mut self, read: impl FnOnce(&mut Self) -> T) -> Result<T, Problem> {
        let read = read(&mut self);
        let known = &self.known;
        let expected = || known.iter().copied().collect::<Vec<_>>().join(", ");
        let unknown = self.pairs.keys().filter(|name| !known.contains(name.as_str()));
        let unknown: Vec<_> =
            unknown.map(|name| Fault::of(shown(name), format!("is not known here: expected {}", expected()))).collect();
        self.faults.extend(unknown);
        if self.faults.is_empty() { Ok(read) } else { Err(Problem::parameters(self.faults)) }
    }
}

/// The names that a query reads, to be compared with those that its description lists.
pub fn names_of<T: FromQuery>() -> BTreeSet<&'static str> {
    let mut parameters = Parameters::default();
    T::from_query(&mut parameters);
    parameters.known
}

/// What a query is asked with, as an argument of its handler.
#[derive(Debug, Clone)]
pub struct Query<T>(pub T);

impl<T: FromQuery, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Parameters::of(parts.uri.query().unwrap_or_default()).read().map(Self)
    }
}

/// For routes that take no parameters.
#[derive(Debug, Clone, Copy)]
pub struct NoParams;

impl FromQuery for NoParams {
    fn from_query(_: &mut Parameters) -> Self {
        Self
    }
}

/// The text that stands in a path, decoded, as [`Parameters::text`] has it. `name` is the one in the template.
///
/// # Errors
/// 400 where it is none, or too long.
pub fn path_text(name: &'static str, text: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    let refuse = |reason: String| Err(Problem::parameters(vec![Fault::of(name, reason)]));
    match text {
        Err(_) => refuse("is not UTF-8".to_owned()),
        Ok(Path(text)) if text.contains('\0') => refuse("has NUL in it".to_owned()),
        Ok(Path(text)) if text.is_empty() || text.len() > TEXT_BYTES => {
            refuse(format!("expected 1 to {TEXT_BYTES} bytes"))
        }
        Ok(Path(text)) => Ok(text),
    }
}

fn decoded(text: &str) -> Option<String> {
    let text = text.replace('+', " ");
    let decoded = percent_decode_str(&text).decode_utf8().ok()?;
    (!decoded.contains('\0')).then(|| Cow::into_owned(decoded))
}

/// A name that a caller made up, short enough to be told back.
fn shown(name: &str) -> &str {
    &name[..name.floor_char_boundary(64)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct TestParams {
        user: Option<String>,
        days: Option<u32>,
        success: Option<bool>,
        at: Option<DateTime<Utc>>,
        format: Option<&'static str>,
    }

    impl FromQuery for TestParams {
        fn from_query(parameters: &mut Parameters) -> Self {
            Self {
                user: parameters.text("user"),
                days: parameters.number("days", 1..=30),
                success: parameters.flag("success"),
                at: parameters.time("at"),
                format: parameters.one_of("format", &["csv", "ndjson"]),
            }
        }
    }

    fn refused(query: &str) -> Vec<String> {
        match Parameters::of(query).read::<TestParams>() {
            Ok(asked) => panic!("{query}: {asked:?}"),
            Err(problem) => {
                let fields = format!("{problem:?}");
                fields.split("field: \"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
            }
        }
    }

    #[test]
    fn parameters_are_read() {
        let asked: TestParams =
            Parameters::of("user=a%20b+c&days=7&success=true&at=2026-06-15T12:00:00%2B02:00&format=csv")
                .read()
                .unwrap();
        assert_eq!(asked.user.as_deref(), Some("a b c"));
        assert_eq!((asked.days, asked.success, asked.format), (Some(7), Some(true), Some("csv")));
        assert_eq!(asked.at.unwrap().to_rfc3339(), "2026-06-15T10:00:00+00:00");
        let same: TestParams = Parameters::of("at=2026-06-15T12:00:00+02:00").read().unwrap();
        assert_eq!(same.at, asked.at);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, fields) in [
            ("users=x", vec!["users"]),
            ("user=a&user=a", vec!["user"]),
            ("user=", vec!["user"]),
            ("user=%00", vec!["user"]),
            ("user=%ff", vec!["user"]),
            ("days=0", vec!["days"]),
            ("days=31", vec!["days"]),
            ("days=-1", vec!["days"]),
            ("days=1e1", vec!["days"]),
            ("days=99999999999999999999", vec!["days"]),
            ("success=yes", vec!["success"]),
            ("at=yesterday", vec!["at"]),
            ("at=2026-06-15T12:00:00", vec!["at"]),
            ("format=xml", vec!["format"]),
            ("days=x&success=y&z=1", vec!["days", "success", "z"]),
        ] {
            assert_eq!(refused(query), fields, "{query}");
        }
        assert_eq!(refused(&format!("user={}", "x".repeat(257))), ["user"]);
    }

    #[test]
    fn filters_tell_questions_apart_and_pages_do_not() {
        let filters = |query| Parameters::of(query).filters();
        assert_eq!(filters("a=1&b=2&limit=5&cursor=x"), filters("b=2&a=1"));
        assert_ne!(filters("a=1&b=2"), filters("a=1;b=2"));
        assert_ne!(filters("a=1"), filters("a=2"));
        assert_eq!(names_of::<TestParams>().len(), 5);
    }
}
