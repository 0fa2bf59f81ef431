//! Strict query parameters: unknown, repeated, malformed and out-of-range parameters are rejected by name.
//!
//! A query lists its parameters once, in a struct that implements [`FromQuery`], and takes them with [`Query`]. Reading
//! continues after a fault, so that a response names all faults at once.

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

/// Maximum length of a text parameter, in bytes. Ids and types of records have the same limit.
const TEXT_BYTES: usize = 256;
/// Maximum length of a cursor, in bytes.
pub(crate) const CURSOR_BYTES: usize = 1024;
/// Maximum number of parameters in a request. No query has so many.
const PARAMETERS: usize = 64;

/// The parameters of a query.
pub trait FromQuery: Sized {
    /// Reads the parameters. Faults are added to `parameters`; the returned value is then discarded.
    fn from_query(parameters: &mut Parameters) -> Self;
}

/// The parameters of a request while they are being read.
#[derive(Debug, Default)]
pub struct Parameters {
    now: DateTime<Utc>,
    pairs: BTreeMap<String, String>,
    known: BTreeSet<&'static str>,
    faults: Vec<Fault>,
}

impl Parameters {
    /// Parses the query string, without its `?`.
    pub fn of(query: &str) -> Self {
        Self::at(query, Utc::now())
    }

    /// Parses the query string as [`Parameters::of`] does, with `now` as the current time.
    pub fn at(query: &str, now: DateTime<Utc>) -> Self {
        let mut parameters = Self { now, ..Self::default() };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decoded(name), decoded(value)) else {
                parameters.refuse(shown(name), "is not UTF-8, or contains NUL");
                continue;
            };
            if parameters.pairs.len() >= PARAMETERS {
                parameters.refuse(shown(&name), "too many parameters");
                break;
            }
            if parameters.pairs.insert(name.clone(), value).is_some() {
                parameters.refuse(shown(&name), "occurs twice");
            }
        }
        parameters
    }

    /// Adds a fault.
    pub fn refuse(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        self.faults.push(Fault::of(name, reason));
    }

    fn take(&mut self, name: &'static str) -> Option<String> {
        self.known.insert(name);
        self.pairs.get(name).cloned()
    }

    /// Reads text of 1 to 256 bytes.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.bounded_text(name, TEXT_BYTES)
    }

    /// Reads text of 1 to `bytes` bytes.
    pub fn bounded_text(&mut self, name: &'static str, bytes: usize) -> Option<String> {
        let text = self.take(name)?;
        if text.is_empty() || text.len() > bytes {
            self.refuse(name, format!("expected 1 to {bytes} bytes"));
        }
        Some(text)
    }

    /// Reads text as [`Parameters::text`] does. The parameter is required.
    pub fn required_text(&mut self, name: &'static str) -> String {
        let text = self.text(name);
        if text.is_none() {
            self.refuse(name, "is missing");
        }
        text.unwrap_or_default()
    }

    /// Reads a whole number within a range.
    pub fn number(&mut self, name: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let text = self.take(name)?;
        let number = text.parse().ok().filter(|number| range.contains(number) && !text.starts_with('+'));
        if number.is_none() {
            self.refuse(name, format!("expected a whole number from {} to {}", range.start(), range.end()));
        }
        number
    }

    /// Reads `true` or `false`.
    pub fn flag(&mut self, name: &'static str) -> Option<bool> {
        let flag = self.take(name)?.parse().ok();
        if flag.is_none() {
            self.refuse(name, "expected true or false");
        }
        flag
    }

    /// Reads a time in one of the forms of [`When`]. Relative times count from [`Parameters::now`].
    pub fn time(&mut self, name: &'static str) -> Option<DateTime<Utc>> {
        let text = self.take(name)?;
        // In a query `+` means a space. A space in a time is the unescaped `+` of an offset.
        match text.replace(' ', "+").parse::<When>() {
            Ok(when) => Some(when.at(self.now)),
            Err(error) => {
                self.refuse(name, error.to_string());
                None
            }
        }
    }

    /// Returns the time of the request, which is the same for all of its relative times.
    pub fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// Reads one of several words.
    pub fn one_of(&mut self, name: &'static str, words: &[&'static str]) -> Option<&'static str> {
        let text = self.take(name)?;
        let word = words.iter().copied().find(|word| *word == text);
        if word.is_none() {
            self.refuse(name, format!("expected one of {}", words.join(", ")));
        }
        word
    }

    /// Reads an IP address, or a network.
    pub fn address(&mut self, name: &'static str) -> Option<Address> {
        /// The longest IPv6 network takes 43 bytes.
        const MAX_BYTES: usize = 64;
        let text = self.bounded_text(name, MAX_BYTES)?;
        let address = Address::parse(&text);
        if address.is_none() {
            self.refuse(name, "expected an address such as 192.0.2.1, or a network such as 10.0.0.0/8");
        }
        address
    }

    /// Reads a duration such as `60s`, `5m`, `1h` or `7d`.
    pub fn length(&mut self, name: &'static str) -> Option<TimeDelta> {
        let length = when::length(&self.take(name)?);
        if length.is_none() {
            self.refuse(name, "expected a time such as 60s, 5m, 1h or 7d");
        }
        length
    }

    /// Rejects parameters that have no meaning together with another one.
    pub fn refuse_beside(&mut self, other: &str, names: &[&'static str]) {
        for name in names {
            if self.pairs.contains_key(*name) {
                self.refuse(*name, format!("cannot be combined with `{other}`"));
            }
        }
    }

    /// Returns all parameters except `cursor` and `limit`, in a canonical form that distinguishes queries.
    pub fn filters(&self) -> String {
        let kept = self.pairs.iter().filter(|(name, _)| !matches!(name.as_str(), "cursor" | "limit"));
        kept.map(|(name, value)| format!("{}:{name}={}:{value};", name.len(), value.len())).collect()
    }

    /// Returns the parameters of a query.
    ///
    /// # Errors
    /// 400 that names each invalid or unknown parameter.
    pub fn read<T: FromQuery>(self) -> Result<T, Problem> {
        self.read_with(T::from_query)
    }

    /// Reads parameters as [`Parameters::read`] does, with a closure instead of a type.
    ///
    /// # Errors
    /// 400 that names each invalid or unknown parameter.
    pub(crate) fn read_with<T>(mut self, read: impl FnOnce(&mut Self) -> T) -> Result<T, Problem> {
        let read = read(&mut self);
        let known = &self.known;
        let expected = || known.iter().copied().collect::<Vec<_>>().join(", ");
        let unknown = self.pairs.keys().filter(|name| !known.contains(name.as_str()));
        let unknown: Vec<_> =
            unknown.map(|name| Fault::of(shown(name), format!("is unknown: expected {}", expected()))).collect();
        self.faults.extend(unknown);
        if self.faults.is_empty() { Ok(read) } else { Err(Problem::parameters(self.faults)) }
    }
}

/// Returns the names of the parameters that a query reads. Tests compare them with the OpenAPI document.
pub fn names_of<T: FromQuery>() -> BTreeSet<&'static str> {
    let mut parameters = Parameters::default();
    T::from_query(&mut parameters);
    parameters.known
}

/// Extracts the parameters of a query in a handler.
#[derive(Debug, Clone)]
pub struct Query<T>(pub T);

impl<T: FromQuery, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Parameters::of(parts.uri.query().unwrap_or_default()).read().map(Self)
    }
}

/// The parameters of routes that have none.
#[derive(Debug, Clone, Copy)]
pub struct NoParams;

impl FromQuery for NoParams {
    fn from_query(_: &mut Parameters) -> Self {
        Self
    }
}

/// Returns a decoded path parameter, with the limits of [`Parameters::text`]. `name` is its name in the template.
///
/// # Errors
/// 400 if it is not UTF-8, contains NUL, is empty, or is longer than 256 bytes.
pub fn path_text(name: &'static str, text: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    let refuse = |reason: String| Err(Problem::parameters(vec![Fault::of(name, reason)]));
    match text {
        Err(_) => refuse("is not UTF-8".to_owned()),
        Ok(Path(text)) if text.contains('\0') => refuse("contains NUL".to_owned()),
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

/// Truncates a caller's parameter name for an error message.
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
