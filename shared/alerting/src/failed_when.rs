//! The `failed_when` expression: which records count as failures.
//!
//! An expression is one or more terms such as `success == false`, joined by `and`. Roll-ups count records and failed
//! records by label. So one term may test the outcome, and any number may test labels; nothing else can be tested
//! without reading the records.

use std::fmt;

use records::Kind;

use crate::labels;

/// A parsed `failed_when` expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedWhen {
    text: String,
    outcome: Outcome,
    labels: Vec<Term>,
}

/// The records of a matching group that count as failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All of them: only the labels decide.
    All,
    /// Records that failed.
    Failed,
    /// Records that did not fail.
    Succeeded,
}

/// `label == "value"`, or `!=`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    label: &'static str,
    equal: bool,
    value: String,
}

/// A token of the expression.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Equal,
    NotEqual,
    And,
}

impl FailedWhen {
    /// Parses an expression over records of a kind.
    ///
    /// # Errors
    /// Returns a description of the first problem, with the valid choices.
    pub fn parse(kind: Kind, text: &str) -> Result<Self, String> {
        let mut tokens = tokens(text)?.into_iter();
        let mut found = Self { text: text.trim().to_owned(), outcome: Outcome::All, labels: Vec::new() };
        loop {
            let field = match tokens.next() {
                Some(Token::Word(field)) => field,
                Some(other) => return Err(format!("expected a field, found {other}")),
                None => return Err(format!("ends where a field is expected, such as `{}`", example(kind))),
            };
            let equal = match tokens.next() {
                Some(Token::Equal) => true,
                Some(Token::NotEqual) => false,
                Some(other) => return Err(format!("expected `==` or `!=` after `{field}`, found {other}")),
                None => return Err(format!("expected `==` or `!=` after `{field}`")),
            };
            let value = match tokens.next() {
                Some(value @ (Token::Word(_) | Token::Text(_))) => value,
                Some(other) => return Err(format!("expected a value for `{field}`, found {other}")),
                None => return Err(format!("expected a value for `{field}`")),
            };
            found.add(kind, &field, equal, value)?;
            match tokens.next() {
                None => return Ok(found),
                Some(Token::And) => {}
                Some(other) => return Err(format!("expected `and` between two terms, found {other}")),
            }
        }
    }

    fn add(&mut self, kind: Kind, field: &str, equal: bool, value: Token) -> Result<(), String> {
        if let Some(failed) = outcome(kind, field, &value)? {
            if self.outcome != Outcome::All {
                return Err(format!("`{field}` is asked for twice"));
            }
            self.outcome = if failed == equal { Outcome::Failed } else { Outcome::Succeeded };
            return Ok(());
        }
        let Some(label) = labels::canonical(kind, field) else {
            let outcome = outcome_field(kind).map(|field| format!("`{field}`, ")).unwrap_or_default();
            let labels: Vec<_> = labels::labels_of(kind).map(|label| format!("`{label}`")).collect();
            return Err(format!("{kind} have no field `{field}` here; there is {outcome}{}", labels.join(", ")));
        };
        let value = match value {
            Token::Text(value) => value,
            Token::Word(value) if labels::is_boolean(kind, label) => value,
            Token::Word(value) => return Err(format!("the value of `{field}` needs quotes: `\"{value}\"`")),
            other => return Err(format!("expected a value for `{field}`, found {other}")),
        };
        if labels::is_boolean(kind, label) && !matches!(value.as_str(), "true" | "false") {
            return Err(format!("`{field}` is true or false, never `{value}`"));
        }
        self.labels.push(Term { label, equal, value });
        Ok(())
    }

    /// Returns which records count as failures in a group whose labels match.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Checks whether a group's labels match. An absent label equals the empty string.
    pub fn matches<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        self.labels.iter().all(|term| (label(term.label).unwrap_or_default() == term.value) == term.equal)
    }
}

impl fmt::Display for FailedWhen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Returns the field that holds the outcome of a record of this kind.
fn outcome_field(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Executions => Some("success"),
        Kind::Audit => Some("status"),
        _ => None,
    }
}

/// Returns whether a value of the outcome field means failure; `None` if it is another field.
fn outcome(kind: Kind, field: &str, value: &Token) -> Result<Option<bool>, String> {
    if outcome_field(kind) != Some(field) {
        return Ok(None);
    }
    match (kind, value) {
        (Kind::Executions, Token::Word(value)) if value == "false" => Ok(Some(true)),
        (Kind::Executions, Token::Word(value)) if value == "true" => Ok(Some(false)),
        (Kind::Executions, other) => Err(format!("`{field}` is true or false, without quotes; found {other}")),
        (_, Token::Text(value)) if value == "FAILURE" => Ok(Some(true)),
        (_, Token::Text(value)) if value == "SUCCESS" => Ok(Some(false)),
        (_, other) => Err(format!("`{field}` is \"SUCCESS\" or \"FAILURE\"; found {other}")),
    }
}

fn example(kind: Kind) -> &'static str {
    match kind {
        Kind::Executions => "success == false",
        Kind::Audit => "status == \"FAILURE\"",
        Kind::Errors => "severity == \"critical\"",
        _ => "organization_id == \"acme\"",
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '"' | '\'' => {
                let inner = rest.get(1..).unwrap_or_default();
                let end = inner.find(first).ok_or_else(|| format!("the quote {first} is not closed"))?;
                (Token::Text(inner.get(..end).unwrap_or_default().to_owned()), end + 2)
            }
            '=' if rest.starts_with("==") => (Token::Equal, 2),
            '!' if rest.starts_with("!=") => (Token::NotEqual, 2),
            '&' if rest.starts_with("&&") => (Token::And, 2),
            '=' => return Err("write `==` for equal".to_owned()),
            '|' => return Err("there is no `or`: write a second rule".to_owned()),
            '(' | ')' => return Err("there are no parentheses: terms are joined by `and`".to_owned()),
            '<' | '>' => return Err(format!("there is no `{first}`: terms are `==` or `!=`")),
            c if c.is_alphanumeric() || c == '_' || c == '-' || c == '.' => {
                let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
                let word: String = rest.chars().take_while(|c| is_part(*c)).collect();
                let length = word.len();
                match word.as_str() {
                    "and" | "AND" => (Token::And, length),
                    "or" | "OR" => return Err("there is no `or`: write a second rule".to_owned()),
                    _ => (Token::Word(word), length),
                }
            }
            c => return Err(format!("`{c}` is unknown here")),
        };
        found.push(token);
        rest = rest.get(length..).unwrap_or_default().trim_start();
    }
    Ok(found)
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(f, "`{word}`"),
            Self::Text(text) => write!(f, "\"{text}\""),
            Self::Equal => f.write_str("`==`"),
            Self::NotEqual => f.write_str("`!=`"),
            Self::And => f.write_str("`and`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_and_labels() {
        let labels = [("severity", "critical"), ("error_type", "x"), ("strategy_id", "s"), ("timed_out", "true")];
        let label = |name: &str| labels.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        for (kind, text, outcome, matches) in [
            (Kind::Executions, "success == false", Outcome::Failed, true),
            (Kind::Executions, "success != true", Outcome::Failed, true),
            (Kind::Executions, " success==true ", Outcome::Succeeded, true),
            (Kind::Executions, "success == false and strategy == 's'", Outcome::Failed, true),
            (Kind::Executions, "strategy_id == \"t\" && success == false", Outcome::Failed, false),
            (Kind::Executions, "timed_out == true", Outcome::All, true),
            (Kind::Executions, "timed_out != true", Outcome::All, false),
            (Kind::Executions, "user_id == ''", Outcome::All, true),
            (Kind::Executions, "user_id != 'u'", Outcome::All, true),
            (Kind::Audit, "status == \"FAILURE\"", Outcome::Failed, true),
            (Kind::Audit, "status != 'FAILURE' and action != 'login'", Outcome::Succeeded, true),
            (Kind::Errors, "severity == 'critical' && error_type != \"y\"", Outcome::All, true),
            (Kind::Errors, "severity == 'critical' and error_type != \"x\"", Outcome::All, false),
        ] {
            let when = FailedWhen::parse(kind, text).unwrap();
            assert_eq!((when.outcome(), when.matches(label)), (outcome, matches), "{text}");
            assert_eq!(when.to_string(), text.trim());
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (kind, text, problem) in [
            (Kind::Executions, "", "ends where a field is expected, such as `success == false`"),
            (Kind::Executions, "success", "expected `==` or `!=` after `success`"),
            (Kind::Executions, "success = false", "write `==`"),
            (Kind::Executions, "success == ", "expected a value for `success`"),
            (Kind::Executions, "success == \"false\"", "without quotes; found \"false\""),
            (Kind::Executions, "sucess == false", "have no field `sucess` here; there is `success`, `organization_id`"),
            (
                Kind::Errors,
                "success == false",
                "errors have no field `success` here; there is `organization_id`, `error",
            ),
            (Kind::Executions, "success == false or timed_out == true", "no `or`"),
            (Kind::Executions, "success == false || timed_out == true", "no `or`"),
            (Kind::Executions, "(success == false)", "no parentheses"),
            (Kind::Executions, "execution_time_ms > 5", "no `>`"),
            (Kind::Executions, "success == false success == false", "expected `and`"),
            (Kind::Executions, "success == false and success == false", "asked for twice"),
            (Kind::Executions, "success == false and", "ends where a field is expected"),
            (Kind::Executions, "strategy == abc", "needs quotes: `\"abc\"`"),
            (Kind::Executions, "strategy == 'abc", "is not closed"),
            (Kind::Executions, "timed_out == 'yes'", "never `yes`"),
            (Kind::Executions, "== false", "expected a field"),
            (Kind::Executions, "success == == ", "expected a value for `success`, found `==`"),
            (Kind::Executions, "success # false", "`#` is unknown"),
            (Kind::Audit, "status == 'FAILED'", "\"SUCCESS\" or \"FAILURE\"; found \"FAILED\""),
        ] {
            let error = FailedWhen::parse(kind, text).expect_err(text);
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
