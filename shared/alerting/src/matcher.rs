//! Matchers: `severity=critical`, `team!=runtime`, `alertname=~"execution-.*"`, `user_id!~"bot-.*"`.

use std::fmt;
use std::str::FromStr;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::labels;
use crate::notification::Labels;

/// Bytes that a compiled expression may take: a silence is anybody's text.
const REGEX_BYTES: usize = 1 << 20;
/// Bytes of a value at the most.
const VALUE_BYTES: usize = 1_000;

/// A condition on one label, with the semantics of Prometheus: an absent label has the empty string as its value, an
/// expression has to match the whole value, `.` matches line breaks too, and `!~` is the negation of `=~`. A label's name
/// may come without `_id`.
#[derive(Debug, Clone)]
pub struct Matcher {
    name: String,
    operation: Operation,
    value: String,
    regex: Option<Regex>,
}

/// How a matcher compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`: the expression matches the whole value.
    Matches,
    /// `!~`
    MatchesNot,
}

/// The text is no matcher, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MatcherError(String);

impl Matcher {
    /// A matcher.
    ///
    /// # Errors
    /// Where the name is none of a label, the value is too long, or an expression cannot be read or would be too large.
    pub fn new(name: impl Into<String>, operation: Operation, value: impl Into<String>) -> Result<Self, MatcherError> {
        let (name, value) = (name.into(), value.into());
        if !labels::is_label_name(&name) {
            return Err(MatcherError(format!("`{name}` is no name of a label: letters, digits and `_`")));
        }
        if value.len() > VALUE_BYTES {
            return Err(MatcherError(format!("the value of `{name}` is longer than {VALUE_BYTES} bytes")));
        }
        let regex = match operation {
            Operation::Equal | Operation::NotEqual => None,
            Operation::Matches | Operation::MatchesNot => Some(whole(&value)?),
        };
        Ok(Self { name, operation, value, regex })
    }

    /// The label's name, as it was written.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it compares.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// What it compares with.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether labels match.
    pub fn matches(&self, labels: &Labels) -> bool {
        let found = labels
            .get(&self.name)
            .or_else(|| labels.iter().find(|(label, _)| labels::is_named(label, &self.name)).map(|(_, value)| value));
        self.accepts(found.map_or("", String::as_str))
    }

    /// Whether it matches where the label is absent.
    pub fn matches_absence(&self) -> bool {
        self.accepts("")
    }

    fn accepts(&self, value: &str) -> bool {
        let by_expression = || self.regex.as_ref().is_some_and(|regex| regex.is_match(value));
        match self.operation {
            Operation::Equal => value == self.value,
            Operation::NotEqual => value != self.value,
            Operation::Matches => by_expression(),
            Operation::MatchesNot => !by_expression(),
        }
    }
}

/// An expression that has to match from beginning to end. Values may have several lines, such as a message that was
/// sent as `error_type`, so `.` matches a line break as well: Prometheus compiles `^(?s:…)$`.
fn whole(expression: &str) -> Result<Regex, MatcherError> {
    // By itself first: `a)|(b` is no expression, and must not become one by what is put around it.
    let compile = |text: &str| RegexBuilder::new(text).dot_matches_new_line(true).size_limit(REGEX_BYTES).build();
    compile(expression).and_then(|_| compile(&format!(r"\A(?:{expression})\z"))).map_err(|error| {
        let message = match error {
            regex::Error::CompiledTooBig(_) => "it would take too much memory".to_owned(),
            error => error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        };
        MatcherError(format!("`{expression}` is no regular expression: {message}"))
    })
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.operation, &self.value) == (&other.name, other.operation, &other.value)
    }
}

impl Eq for Matcher {}

impl Operation {
    const fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Matches => "=~",
            Self::MatchesNot => "!~",
        }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, self.operation.sign())?;
        let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '\\' | ',' | '=' | '~');
        if !self.value.is_empty() && self.value.chars().all(is_plain) {
            return f.write_str(&self.value);
        }
        f.write_str("\"")?;
        for c in self.value.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

impl FromStr for Matcher {
    type Err = MatcherError;

    fn from_str(text: &str) -> Result<Self, MatcherError> {
        let wrong = || MatcherError(format!("expected `label=value`, `!=`, `=~` or `!~`; found `{text}`"));
        let at = text.find(['=', '!']).ok_or_else(wrong)?;
        let (name, rest) = text.split_at(at);
        // The longer signs first: `=` is the beginning of `=~`.
        let (operation, value) = [Operation::Matches, Operation::MatchesNot, Operation::NotEqual, Operation::Equal]
            .into_iter()
            .find_map(|operation| Some((operation, rest.strip_prefix(operation.sign())?)))
            .ok_or_else(wrong)?;
        let value = value.trim();
        if operation == Operation::Equal && value.starts_with('=') {
            return Err(MatcherError(format!("write one `=` for equal; found `{text}`")));
        }
        let value = match value.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)
                .ok_or_else(|| MatcherError(format!("the quote in `{text}` is not closed, or not at the end")))?,
            None => value.to_owned(),
        };
        Self::new(name.trim(), operation, value)
    }
}

/// The text before the closing quote, which must be the end.
fn unquoted(quoted: &str) -> Option<String> {
    let mut value = String::new();
    let mut rest = quoted.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => return rest.next().is_none().then_some(value),
            '\\' => match rest.next()? {
                'n' => value.push('\n'),
                c @ ('"' | '\\') => value.push(c),
                // Of an expression, such as `\d`.
                c => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
    None
}

impl Serialize for Matcher {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Matcher {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels() -> Labels {
        [("severity", "critical"), ("strategy_id", "s-17"), ("team", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn labels_match() {
        for (text, matches) in [
            ("severity=critical", true),
            ("severity = \"critical\"", true),
            ("severity=crit", false),
            ("severity!=critical", false),
            ("severity!=info", true),
            ("severity=~crit", false),
            ("severity=~crit.*", true),
            ("severity=~info|critical", true),
            ("severity!~info|critical", false),
            ("strategy_id=~\"s-\\d+\"", true),
            ("strategy=s-17", true),
            ("team=", true),
            ("absent=", true),
            ("absent=\"\"", true),
            ("absent!=x", true),
            ("absent=~.+", false),
            ("absent!~.+", true),
        ] {
            let matcher: Matcher = text.parse().unwrap();
            assert_eq!(matcher.matches(&labels()), matches, "{text}");
        }
    }

    #[test]
    fn expressions_match_values_of_several_lines() {
        let labels = |value: &str| Labels::from([("error_type".to_owned(), value.to_owned())]);
        let lines = "DB error:\nconnection refused\r\n";
        for (expression, value, matches) in [
            ("DB error.*", lines, true),
            (".*", lines, true),
            (".+refused..", lines, true),
            ("DB error:", lines, false),
            ("DB error:$", lines, false),
            ("connection refused", lines, false),
            ("^connection.*", lines, false),
            ("DB error:\\nconnection refused\\r\\n", lines, true),
            ("DB error:[^\\n]*", lines, false),
            ("(?-s)DB error.*", lines, false),
            ("DB error:", "DB error:\n", false),
            ("DB error:.", "DB error:\n", true),
            (".*", "", true),
            (".+", "", false),
            ("", "\n", false),
        ] {
            let of = |operation| Matcher::new("error_type", operation, expression).unwrap();
            let found =
                [Operation::Matches, Operation::MatchesNot].map(|operation| of(operation).matches(&labels(value)));
            assert_eq!(found, [matches, !matches], "{expression:?} {value:?}");
            // As it is written on a command line and stored with a silence.
            let written: Matcher = of(Operation::Matches).to_string().parse().unwrap();
            assert_eq!(written.matches(&labels(value)), matches, "{written}");
        }
    }

    proptest! {
        #[test]
        fn a_negated_expression_is_the_exact_opposite(
            expression in prop::sample::select(vec![".*", ".+", "", "a.b", "a|b", "[^a]*", "a?.?"]),
            value in prop::option::of("[ab\\r\\n]{0,4}"),
        ) {
            let labels = value.iter().map(|value| ("x".to_owned(), value.clone())).collect::<Labels>();
            let matches = |operation, labels: &Labels| {
                let matcher = Matcher::new("x", operation, expression).unwrap();
                let absent = Labels::from([("x".to_owned(), String::new())]);
                assert_eq!(matcher.matches_absence(), matcher.matches(&absent));
                matcher.matches(labels)
            };
            prop_assert_eq!(matches(Operation::Matches, &labels), !matches(Operation::MatchesNot, &labels));
            if value.is_none() {
                let empty = Labels::from([("x".to_owned(), String::new())]);
                prop_assert_eq!(matches(Operation::Matches, &labels), matches(Operation::Matches, &empty));
            }
        }
    }

    #[test]
    fn what_is_no_matcher_is_refused() {
        for (text, problem) in [
            ("severity", "expected `label=value`"),
            ("severity!critical", "expected `label=value`"),
            ("=x", "no name of a label"),
            ("a b=x", "no name of a label"),
            ("a==x", "write one `=`"),
            ("a=\"x", "is not closed"),
            ("a=\"x\"y", "is not closed"),
            ("a=~(", "is no regular expression: unclosed group"),
            ("a=~x)|(y", "is no regular expression"),
            ("a=~(\\w{200}){200}", "too much memory"),
        ] {
            let error = text.parse::<Matcher>().expect_err(text).to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
        assert!(Matcher::new("a", Operation::Equal, "x".repeat(VALUE_BYTES + 1)).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(value in "\\PC{0,20}|[\"\\\\\n ,=~]{0,6}", number in 0_usize..2) {
            let operation = [Operation::Equal, Operation::NotEqual][number];
            let matcher = Matcher::new("label", operation, value).unwrap();
            prop_assert_eq!(&matcher.to_string().parse::<Matcher>().unwrap(), &matcher);
            let json = serde_json::to_string(&matcher).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Matcher>(&json).unwrap(), &matcher);
        }
    }
}
