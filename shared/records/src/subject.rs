//! Subjects, `<prefix>.<kind>.<organization>.<detail>`, and the names of streams.
//!
//! The subject decides which organization a record belongs to, because NATS permissions can restrict subjects. Nothing
//! authenticates the publisher of a body.

use crate::limits::{ID_BYTES, ORGANIZATION_BYTES};
use crate::{Kind, Reason, Reject};

/// The token for records without an organization.
pub const NO_ORGANIZATION: &str = "_";

/// Returns the subject of a record. [`detail_token`] replaces characters that `detail` must not have.
///
/// `organization` is used as it is: check it with [`is_organization`].
///
/// ```
/// use records::{Kind, subject};
///
/// let subject = subject::for_record("watchbook", Kind::Logs, None, "web 1");
/// assert_eq!(subject, "watchbook.logs._.web_1");
/// ```
pub fn for_record(prefix: &str, kind: Kind, organization: Option<&str>, detail: &str) -> String {
    let organization = organization.unwrap_or(NO_ORGANIZATION);
    format!("{prefix}.{kind}.{organization}.{}", detail_token(detail))
}

/// Returns the wildcard subject of a kind, or of one organization's records of that kind.
pub fn filter(prefix: &str, kind: Kind, organization: Option<&str>) -> String {
    match organization {
        Some(organization) => format!("{prefix}.{kind}.{organization}.>"),
        None => format!("{prefix}.{kind}.>"),
    }
}

/// Returns the name of a kind's stream, such as `WATCHBOOK_EVENTS` for the prefix `watchbook`.
pub fn stream_name(prefix: &str, kind: Kind) -> String {
    let mut name = String::with_capacity(prefix.len() + 12);
    for c in prefix.chars() {
        name.push(if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    }
    name.push('_');
    name.push_str(&kind.name().to_ascii_uppercase());
    name
}

/// Returns whether a text has the form of an organization: `[A-Za-z0-9_-]{1,64}`. That includes [`NO_ORGANIZATION`].
pub fn is_organization(text: &str) -> bool {
    (1..=ORGANIZATION_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Returns the organization in the subject of a message of `kind`; `None` for [`NO_ORGANIZATION`].
///
/// # Errors
/// `unknown_kind` if the subject does not begin with `<prefix>.<kind>`, `invalid_field` if the next token is not an
/// organization.
pub fn organization<'s>(subject: &'s str, prefix: &str, kind: Kind) -> Result<Option<&'s str>, Reject> {
    let rest = subject
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('.'))
        .ok_or_else(|| Reject::message(Reason::UnknownKind, format!("the subject does not begin with `{prefix}.`")))?;
    let mut tokens = rest.split('.');
    let named = tokens.next().unwrap_or_default();
    if named != kind.name() {
        return Err(Reject::message(
            Reason::UnknownKind,
            format!("the subject names `{named}`, and this stream carries `{kind}`"),
        ));
    }
    match tokens.next() {
        Some(NO_ORGANIZATION) => Ok(None),
        Some(token) if is_organization(token) => Ok(Some(token)),
        _ => Err(Reject::invalid(
            "organization_id",
            "the subject's third token is not an organization: expected 1 to 64 of A-Z a-z 0-9 _ -",
        )),
    }
}

/// Returns a text as it may follow the organization in a subject: at most 256 bytes, with `_` instead of white space,
/// control characters and wildcards.
///
/// Dots are kept, so a detail may have several tokens, unless they would make a token empty.
pub fn detail_token(detail: &str) -> String {
    let mut token = String::with_capacity(detail.len().min(ID_BYTES));
    for c in detail.chars() {
        if token.len() + c.len_utf8() > ID_BYTES {
            break;
        }
        let empty_token = c == '.' && (token.is_empty() || token.ends_with('.'));
        let reserved = c.is_whitespace() || c.is_control() || matches!(c, '*' | '>') || empty_token;
        token.push(if reserved { '_' } else { c });
    }
    if token.is_empty() || token.ends_with('.') {
        token.push('_');
    }
    token
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_never_breaks_the_subject() {
        for (detail, token) in [
            ("build.finished", "build.finished"),
            ("", "_"),
            ("a b\tc", "a_b_c"),
            ("*", "_"),
            (">", "_"),
            (".", "_"),
            ("a..b", "a._b"),
            ("a.", "a._"),
            ("größe", "größe"),
        ] {
            assert_eq!(detail_token(detail), token, "{detail:?}");
        }
    }

    #[test]
    fn the_subject_names_kind_and_organization() {
        let of = |subject| organization(subject, "watchbook", Kind::Events);
        assert_eq!(of("watchbook.events.acme.x"), Ok(Some("acme")));
        assert_eq!(of("watchbook.events._.x.y"), Ok(None));
        assert_eq!(of("watchbook.events.acme"), Ok(Some("acme")));
        for (subject, reason) in [
            ("watchbook.errors.acme.x", Reason::UnknownKind),
            ("other.thing", Reason::UnknownKind),
            ("events.acme.x", Reason::UnknownKind),
            ("watchbookevents.acme.x", Reason::UnknownKind),
            ("watchbook.events", Reason::InvalidField),
            ("watchbook.events.a$b.x", Reason::InvalidField),
        ] {
            assert_eq!(of(subject).map_err(|reject| reject.reason), Err(reason), "{subject}");
        }
        let long = format!("watchbook.events.{}.x", "a".repeat(65));
        assert_eq!(of(&long).map_err(|reject| reject.reason), Err(Reason::InvalidField));
    }

    #[test]
    fn streams_are_named_after_the_prefix() {
        assert_eq!(stream_name("watchbook", Kind::Events), "WATCHBOOK_EVENTS");
        assert_eq!(stream_name("eu.prod-1", Kind::Logs), "EU_PROD_1_LOGS");
    }
}
