//! Matchers: `severity=critical`, `team!=runtime`, `alertname=~"execution-.*"`, `user_id!~"bot-.*"`.

use std::fmt;
use std::str::FromStr;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::labels;
use crate::notification::Labels;

/// The maximum size of a compiled expression, in bytes. Silences are user input, so an expression may be hostile.
const REGEX_BYTES: usize = 1 << 20;
/// The maximum length of a value, in bytes.
const VALUE_BYTES: usize = 1_000;

/// A condition on one label, with the semantics of Prometheus: an absent label has the empty string as its value, an
/// expression has to match the whole value, `.` also matches line breaks, and `!~` is the negation of `=~`. The suffix
/// `_id` of a label's name may be omitted.
#[derive(Debug, Clone)]
pub struct Matcher {
    name: String,
    operation: Operation,
    value: String,
    regex: Option<Regex>,
}

/// The comparison operator of a matcher.
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

/// The text is not a valid matcher; holds the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MatcherError(String);

impl Matcher {
    /// Creates a matcher.
    ///
    /// # Errors
    /// Fails if the name is not a valid label name, the value is longer than 1,000 bytes, or the expression is invalid
    /// or its compiled form is larger than 1 MiB.
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

    /// Returns the label's name, as written.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the operator.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Returns the value to compare with.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Checks whether a set of labels matches.
    pub fn matches(&self, labels: &Labels) -> bool {
        let found = labels
            .get(&self.name)
            .or_else(|| labels.iter().find(|(label, _)| labels::is_named(label, &self.name)).map(|(_, value)| value));
        self.accepts(found.map_or("", String::as_str))
    }

    /// Checks whether it matches if the label is absent.
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

/// Compiles an expression that has to match from beginning to end. Values can have several lines, such as a message
/// sent as `error_type`, so `.` also matches line breaks: Prometheus compiles `^(?s:…)$`.
fn whole(expression: &str) -> Result<Regex, MatcherError> {
    // Compile it alone first: `a)|(b` is invalid and must not become valid inside the group.
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
        // Try longer operators first: `=` is a prefix of `=~`.
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

/// Parses a quoted value; `quoted` starts after the opening quote and has to end with the closing one.
fn unquoted(quoted: &str) -> Option<String> {
    let mut value = String::new();
    let mut rest = quoted.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => return rest.next().is_none().then_some(value),
            '\\' => match rest.next()? {
                'n' => value.push('\n'),
                c @ ('"' | '\\') => value.push(c),
                // Keep escapes of regular expressions, such as `\d`.
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
            // The form on a command line, and as stored with a silence.
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
