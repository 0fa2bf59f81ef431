//! The JSON members of a record, taken one by one and checked against their limits.
//!
//! The object is scanned once. The value of a member stays text until a method takes it with the expected type.
//! Members that nothing took become `attributes`.

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::audit::{Address, ClientAddress};
use crate::limits::{ID_BYTES, JSON_BYTES, LIST_ITEMS, TEXT_BYTES};
use crate::{Reason, Reject, body, json, time};

/// The byte order mark, which some encoders write at the start of a body.
pub(crate) const BYTE_ORDER_MARK: char = '\u{feff}';

/// The members of one JSON object.
///
/// Each method takes the member with a name in snake_case, or in camelCase if there is none. It returns `None` if the
/// member is absent, null, or was taken before. Of a name that occurs twice, the last member counts, as in `jsonb`.
///
/// ```
/// use records::fields::Fields;
///
/// let mut fields = Fields::parse(r#"{"runId":"run-7","attempt":3}"#)?;
/// assert_eq!(fields.id("run_id")?.as_deref(), Some("run-7"));
/// assert_eq!(fields.integer("attempt", 1)?, Some(3));
/// assert_eq!(fields.boolean("success")?, None);
/// # Ok::<(), records::Reject>(())
/// ```
#[derive(Debug)]
pub struct Fields<'t> {
    members: Vec<Member<'t>>,
    camel: bool,
}

#[derive(Debug)]
struct Member<'t> {
    key: Cow<'t, str>,
    value: &'t RawValue,
    taken: bool,
}

/// A key that borrows from the text if it has no escapes. A plain `Cow` would always copy.
#[derive(Deserialize)]
struct Key<'t>(#[serde(borrow)] Cow<'t, str>);

impl<'t> Fields<'t> {
    /// Scans a JSON object.
    ///
    /// # Errors
    /// `invalid_json` if the text is not one JSON object.
    pub fn parse(text: &'t str) -> Result<Self, Reject> {
        // RFC 8259, section 8.1, allows a parser to ignore a byte order mark.
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        // Checked here, because the parser's own message would quote a whole string of the body.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(Reject::message(
                Reason::InvalidJson,
                format!("expected one JSON object, found {}", body::describe(text)),
            ));
        }
        let mut json = serde_json::Deserializer::from_str(text);
        let members = json
            .deserialize_map(Members)
            .and_then(|members| json.end().map(|()| members))
            .map_err(|error| Reject::message(Reason::InvalidJson, format!("expected one JSON object: {error}")))?;
        // Without an early exit, so that the compiler vectorizes it.
        let has_upper = |key: &str| key.bytes().fold(false, |found, b| found | b.is_ascii_uppercase());
        let camel = members.iter().any(|member| has_upper(&member.key));
        Ok(Self { members, camel })
    }

    /// Takes a member by its name in snake_case, or else in camelCase. Null counts as absent.
    fn take(&mut self, name: &str) -> Option<&'t RawValue> {
        match self.take_exactly(name) {
            None if self.camel => self.take_where(|key| is_camel_of(key, name)),
            found => found,
        }
    }

    /// Takes the member of exactly this name. Null counts as absent.
    pub(crate) fn take_exactly(&mut self, name: &str) -> Option<&'t RawValue> {
        // Most names differ in length or first letter. Comparing these costs less than a call of memcmp.
        let first = name.as_bytes().first();
        self.take_where(|key| key.len() == name.len() && key.as_bytes().first() == first && key == name)
    }

    fn take_where(&mut self, is_named: impl Fn(&str) -> bool) -> Option<&'t RawValue> {
        let mut found = None;
        for member in &mut self.members {
            if !member.taken && is_named(&member.key) {
                member.taken = true;
                found = Some(member.value);
            }
        }
        found.filter(|value| value.get() != "null")
    }

    /// Uses `alias` as `name` if `name` itself is absent.
    pub(crate) fn alias(&mut self, alias: &str, name: &'static str) {
        let is_alias = |key: &str| key == alias || is_camel_of(key, alias);
        if !self.members.iter().any(|member| is_alias(&member.key)) {
            return;
        }
        if let Some(value) = self.take(name).or_else(|| self.take(alias)) {
            self.members.push(Member { key: Cow::Borrowed(name), value, taken: false });
        }
    }

    /// Takes a text of at most `limit` bytes.
    ///
    /// # Errors
    /// `invalid_field` if it is not a string, `too_large` above the limit.
    pub fn text(&mut self, name: &'static str, limit: usize) -> Result<Option<Cow<'t, str>>, Reject> {
        let Some(text) = self.unbounded_text(name)? else { return Ok(None) };
        if text.len() > limit {
            return Err(Reject::too_large(name, text.len(), limit));
        }
        Ok(Some(text))
    }

    /// Takes a text without a limit of its own, for text that is cut rather than rejected.
    ///
    /// # Errors
    /// `invalid_field` if it is not a string.
    pub fn unbounded_text(&mut self, name: &'static str) -> Result<Option<Cow<'t, str>>, Reject> {
        Ok(self.raw_text(name)?.map(|(_, text)| text))
    }

    /// Takes a text, and returns it with its JSON.
    fn raw_text(&mut self, name: &'static str) -> Result<Option<(&'t RawValue, Cow<'t, str>)>, Reject> {
        let Some(raw) = self.take(name) else { return Ok(None) };
        match string(raw.get()) {
            Some(text) => Ok(Some((raw, text))),
            None => Err(Reject::invalid(name, format!("expected a string, found {}", found(raw)))),
        }
    }

    /// Puts a value back, so that it is stored in `attributes` as it was sent.
    fn keep(&mut self, name: &'static str, value: &'t RawValue) {
        self.members.push(Member { key: Cow::Borrowed(name), value, taken: false });
    }

    /// Takes an id or a type of at most 256 bytes.
    ///
    /// # Errors
    /// As [`Fields::text`].
    pub fn id(&mut self, name: &'static str) -> Result<Option<Cow<'t, str>>, Reject> {
        self.text(name, ID_BYTES)
    }

    /// Takes an id or a type of 1 to 256 bytes.
    ///
    /// # Errors
    /// As [`Fields::text`]; `missing_field` if it is absent, `invalid_field` if it is empty.
    pub fn required_id(&mut self, name: &'static str) -> Result<Cow<'t, str>, Reject> {
        let id = self.id(name)?.ok_or_else(|| Reject::missing(name))?;
        if id.is_empty() {
            return Err(Reject::invalid(name, "must not be empty"));
        }
        Ok(id)
    }

    /// Takes a JSON object, as text.
    ///
    /// # Errors
    /// `invalid_field` if it is not an object or has a number that Postgres cannot hold. `too_large` above 256 KiB, as
    /// it was sent or with its numbers written out, or if it is nested deeper than 1,000 levels.
    pub fn object(&mut self, name: &'static str) -> Result<Option<Cow<'t, RawValue>>, Reject> {
        let Some(raw) = self.take(name) else { return Ok(None) };
        if !raw.get().starts_with('{') {
            return Err(Reject::invalid(name, format!("expected an object, found {}", found(raw))));
        }
        if raw.get().len() > JSON_BYTES {
            return Err(Reject::too_large(name, raw.get().len(), JSON_BYTES));
        }
        json::check(name, raw.get())?;
        Ok(Some(Cow::Borrowed(raw)))
    }

    /// Takes a 64-bit integer of at least `least`. `3.0` and `1e3` count as integers, as JavaScript prints them.
    ///
    /// # Errors
    /// `invalid_field` if it is not an integer, does not fit, or is less.
    pub fn integer(&mut self, name: &'static str, least: i64) -> Result<Option<i64>, Reject> {
        let Some(raw) = self.take(name) else { return Ok(None) };
        let number = raw.get().parse().ok().or_else(|| integral(raw.get()));
        match number {
            Some(number) if number >= least => Ok(Some(number)),
            Some(number) => Err(Reject::invalid(name, format!("{number} is less than {least}"))),
            None => Err(Reject::invalid(name, format!("expected a 64-bit integer, found {}", found(raw)))),
        }
    }

    /// Takes a finite number of at least `least`.
    ///
    /// # Errors
    /// `invalid_field` if it is not a number, does not fit into a double, or is less.
    pub fn number(&mut self, name: &'static str, least: f64) -> Result<Option<f64>, Reject> {
        let Some(raw) = self.take(name) else { return Ok(None) };
        match double(raw.get()) {
            Some(number) if number >= least => Ok(Some(number)),
            Some(number) => Err(Reject::invalid(name, format!("{number} is less than {least}"))),
            None => Err(Reject::invalid(name, format!("expected a finite number, found {}", found(raw)))),
        }
    }

    /// Takes a boolean.
    ///
    /// # Errors
    /// `invalid_field` if it is not a boolean.
    pub fn boolean(&mut self, name: &'static str) -> Result<Option<bool>, Reject> {
        match self.take(name).map(|raw| (raw, raw.get())) {
            None => Ok(None),
            Some((_, "true")) => Ok(Some(true)),
            Some((_, "false")) => Ok(Some(false)),
            Some((raw, _)) => Err(Reject::invalid(name, format!("expected true or false, found {}", found(raw)))),
        }
    }

    /// Takes one of a few words, in upper or lower case.
    ///
    /// # Errors
    /// `invalid_field` if it is not one of `choices`.
    pub fn choice<T: Copy>(&mut self, name: &'static str, choices: &[(&'static str, T)]) -> Result<Option<T>, Reject> {
        self.choice_or_synonym(name, choices, &[])
    }

    /// As [`Fields::choice`], and also accepts synonyms. A synonym is stored in `attributes` as it was sent.
    ///
    /// # Errors
    /// `invalid_field` if it is neither one of `choices` nor a synonym.
    pub fn choice_or_synonym<T: Copy>(
        &mut self,
        name: &'static str,
        choices: &[(&'static str, T)],
        synonyms: &[(&'static str, T)],
    ) -> Result<Option<T>, Reject> {
        let Some((raw, text)) = self.raw_text(name)? else { return Ok(None) };
        if let Some(choice) = find_word(choices, &text) {
            return Ok(Some(choice));
        }
        if let Some(choice) = find_word(synonyms, &text) {
            self.keep(name, raw);
            return Ok(Some(choice));
        }
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        Err(Reject::invalid(name, format!("expected one of {}, found `{}`", words.join(", "), excerpt(&text))))
    }

    /// Takes the address of a client, as proxies and frameworks write it. If the text is more than an address, it is
    /// also stored in `attributes`.
    ///
    /// # Errors
    /// `invalid_field` if it contains no address, `too_large` above 4 KiB.
    pub(crate) fn client_address(&mut self, name: &'static str) -> Result<Option<Address>, Reject> {
        let Some((raw, text)) = self.raw_text(name)? else { return Ok(None) };
        if text.len() > TEXT_BYTES {
            return Err(Reject::too_large(name, text.len(), TEXT_BYTES));
        }
        match ClientAddress::parse(&text) {
            Some(ClientAddress { address, is_whole }) => {
                if !is_whole {
                    self.keep(name, raw);
                }
                Ok(address)
            }
            None => Err(Reject::invalid(
                name,
                format!(
                    "expected an IPv4 or IPv6 address such as 192.0.2.1 or 2001:db8::1, found {}",
                    excerpt(raw.get())
                ),
            )),
        }
    }

    /// Takes a list of texts, or one text with commas.
    ///
    /// # Errors
    /// `invalid_field` if it is neither, `too_large` above 256 KiB or 4096 items.
    pub fn text_list(&mut self, name: &'static str) -> Result<Option<Vec<String>>, Reject> {
        let Some(raw) = self.take(name) else { return Ok(None) };
        if raw.get().len() > JSON_BYTES {
            return Err(Reject::too_large(name, raw.get().len(), JSON_BYTES));
        }
        let items: Vec<String> = if let Some(text) = string(raw.get()) {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
        } else {
            serde_json::from_str(raw.get()).map_err(|_| {
                Reject::invalid(
                    name,
                    format!("expected a list of strings or one string with commas, found {}", found(raw)),
                )
            })?
        };
        if items.len() > LIST_ITEMS {
            return Err(Reject::field(
                Reason::TooLarge,
                name,
                format!("{} items, the limit is {LIST_ITEMS}", items.len()),
            ));
        }
        Ok(Some(items))
    }

    /// Takes a time with an offset, truncated to microseconds. `reported_as` is the field that the error names.
    ///
    /// # Errors
    /// `invalid_field` if [`time::parse`] does not accept it.
    pub(crate) fn time(
        &mut self,
        name: &'static str,
        reported_as: &'static str,
    ) -> Result<Option<DateTime<Utc>>, Reject> {
        let Some(raw) = self.take(name) else { return Ok(None) };
        match string(raw.get()).as_deref().and_then(time::parse) {
            Some(time) => Ok(Some(time)),
            None => Err(Reject::invalid(
                reported_as,
                format!(
                    "expected an RFC 3339 time with an offset such as 2026-01-31T12:00:00.123456Z, found {}{}",
                    found(raw),
                    time::advice(raw.get())
                ),
            )),
        }
    }

    /// Returns the members that nothing took, as key and JSON text.
    pub(crate) fn left_over(&self) -> impl Iterator<Item = (&str, &'t str)> {
        self.members.iter().filter(|member| !member.taken).map(|member| (&*member.key, member.value.get()))
    }
}

/// Returns the text of a JSON string, borrowed if it has no escapes.
pub(crate) fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(raw).ok().map(Cow::Owned)
}

/// Parses a number such as `3.0` or `1e3` that is an integer below 2^53. From there on, a double no longer identifies
/// one integer.
fn integral(raw: &str) -> Option<i64> {
    const EXACT: f64 = (1_u64 << 53) as f64;
    double(raw).filter(|number| number.fract() == 0.0 && number.abs() < EXACT).map(|number| number as i64)
}

/// Returns the double nearest to a JSON number. serde_json's own parser may return a neighbour of it.
fn double(raw: &str) -> Option<f64> {
    raw.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Returns the value of a word, in upper or lower case.
pub(crate) fn find_word<T: Copy>(words: &[(&'static str, T)], text: &str) -> Option<T> {
    words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, choice)| *choice)
}

/// Returns whether `key` is `name` in camelCase.
fn is_camel_of(key: &str, name: &str) -> bool {
    let mut key = key.bytes();
    let mut upper = false;
    for b in name.bytes() {
        if b == b'_' {
            upper = true;
            continue;
        }
        let expected = if upper { b.to_ascii_uppercase() } else { b };
        upper = false;
        if key.next() != Some(expected) {
            return false;
        }
    }
    key.next().is_none()
}

/// Describes a value for the developer of the producer, with a short excerpt at most.
fn found(raw: &RawValue) -> String {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'{') => "an object".to_owned(),
        Some(b'[') => "a list".to_owned(),
        Some(b'"') => format!("the string {}", excerpt(text)),
        _ => excerpt(text).into_owned(),
    }
}

pub(crate) fn excerpt(text: &str) -> Cow<'_, str> {
    const EXCERPT_BYTES: usize = 40;
    if text.len() <= EXCERPT_BYTES {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{}…", crate::text::cut(text, EXCERPT_BYTES)))
}

struct Members;

impl<'t> Visitor<'t> for Members {
    type Value = Vec<Member<'t>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        // Enough for the fields of every kind, so a usual record costs one allocation.
        let mut members = Vec::with_capacity(20);
        while let Some((Key(key), value)) = map.next_entry()? {
            members.push(Member { key, value, taken: false });
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields<'_> {
        Fields::parse(text).unwrap()
    }

    #[test]
    fn camel_case_is_accepted_for_each_name() {
        for (key, name, is) in [
            ("traceId", "trace_id", true),
            ("networkRxBytes", "network_rx_bytes", true),
            ("traceid", "trace_id", false),
            ("TraceId", "trace_id", false),
            ("traceIdX", "trace_id", false),
            ("trace", "trace_id", false),
        ] {
            assert_eq!(is_camel_of(key, name), is, "{key} {name}");
        }
        assert_eq!(fields(r#"{"traceId":"t"}"#).id("trace_id").unwrap().as_deref(), Some("t"));
    }

    #[test]
    fn snake_case_wins_and_the_other_is_left_over() {
        let mut both = fields(r#"{"traceId":"camel","trace_id":"snake"}"#);
        assert_eq!(both.id("trace_id").unwrap().as_deref(), Some("snake"));
        assert_eq!(both.left_over().collect::<Vec<_>>(), [("traceId", r#""camel""#)]);
    }

    #[test]
    fn a_null_hides_neither_the_other_spelling_nor_an_alias() {
        let mut null = fields(r#"{"trace_id":null,"traceId":"camel"}"#);
        assert_eq!(null.id("trace_id").unwrap().as_deref(), Some("camel"));
        for text in [r#"{"new":null,"old":3}"#, r#"{"old":3,"new":null}"#] {
            let mut aliased = fields(text);
            aliased.alias("old", "new");
            assert_eq!(aliased.integer("new", 0), Ok(Some(3)), "{text}");
            assert_eq!(aliased.left_over().count(), 0);
        }
    }

    #[test]
    fn an_alias_steps_back_behind_the_name_itself() {
        let mut both = fields(r#"{"new":1,"old":2}"#);
        both.alias("old", "new");
        assert_eq!(both.integer("new", 0), Ok(Some(1)));
        assert_eq!(both.left_over().collect::<Vec<_>>(), [("old", "2")]);
    }

    #[test]
    fn the_last_of_equal_names_counts() {
        let mut twice = fields(r#"{"a":"1","a":"2"}"#);
        assert_eq!(twice.id("a").unwrap().as_deref(), Some("2"));
        assert_eq!(twice.left_over().count(), 0);
    }

    #[test]
    fn numbers_are_strict_but_know_javascript() {
        for (raw, integer) in [
            ("0", Some(0)),
            ("3.0", Some(3)),
            ("1e3", Some(1000)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("3.5", None),
            ("-1", None),
            ("\"3\"", None),
            ("true", None),
            ("1e400", None),
            ("-0", Some(0)),
            ("9007199254740991.0", Some((1 << 53) - 1)),
            ("9007199254740993.0", None),
        ] {
            let text = format!(r#"{{"n":{raw}}}"#);
            assert_eq!(fields(&text).integer("n", 0).ok().flatten(), integer, "{raw}");
        }
        assert!(fields(r#"{"n":1e400}"#).number("n", 0.0).is_err());
        assert_eq!(fields(r#"{"n":250.5}"#).number("n", 0.0), Ok(Some(250.5)));
        assert_eq!(fields(r#"{"n":0.30000000000000004}"#).number("n", 0.0), Ok(Some(0.1 + 0.2)));
    }

    #[test]
    fn lists_come_in_two_shapes() {
        for (raw, items) in
            [(r#"["A","B"]"#, vec!["A", "B"]), (r#""A, B,,C""#, vec!["A", "B", "C"]), ("[]", vec![]), (r#""""#, vec![])]
        {
            let text = format!(r#"{{"l":{raw}}}"#);
            assert_eq!(fields(&text).text_list("l").unwrap().unwrap(), items, "{raw}");
        }
        assert!(fields(r#"{"l":[1]}"#).text_list("l").is_err());
    }

    #[test]
    fn only_one_object_is_a_record() {
        for text in
            ["", "[]", "null", "3", "\"x\"", "{", "{}{}", "{} x", r#"{"a":}"#, "{\"a\":1,}", "\u{feff}\u{feff}{}"]
        {
            let reason = Fields::parse(text).err().map(|reject| reject.reason);
            assert_eq!(reason, Some(Reason::InvalidJson), "{text:?}");
        }
    }
}
