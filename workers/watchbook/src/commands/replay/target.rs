//! Validates the target subject of a replay.

use records::Kind;
use records::subject::{self, NO_ORGANIZATION};

/// Maximum length of a subject. NATS only bounds the protocol line, to 4 KiB.
const SUBJECT_BYTES: usize = 1024;
/// First tokens after the prefix on which only Watchbook itself publishes.
const OWN_WORDS: [&str; 4] = ["alerts", "health", "signals", "status"];

/// Checks that a message can be published on `text`.
///
/// # Errors
/// The reason if it is not a valid subject for publishing.
pub(super) fn subject(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > SUBJECT_BYTES {
        return Err(format!("a subject is 1 to {SUBJECT_BYTES} bytes"));
    }
    if text.contains(['*', '>']) {
        return Err("a message is published on one subject: `*` and `>` are for subscriptions".to_owned());
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("a subject must not contain whitespace or control characters".to_owned());
    }
    if text.split('.').any(str::is_empty) {
        return Err("a subject must not contain an empty token: no dot at its start or end, no two in a row".to_owned());
    }
    if text.starts_with('$') || text.starts_with("_INBOX.") {
        return Err("subjects that start with `$` or `_INBOX.` are reserved by the server".to_owned());
    }
    Ok(text.to_owned())
}

/// Returns the organization of one of Watchbook's own subjects for events, or `_` for events without one. `None` for
/// any other subject.
///
/// # Errors
/// If it is one of Watchbook's own subjects and not for events.
pub(super) fn organization<'s>(subject: &'s str, prefix: &str) -> anyhow::Result<Option<&'s str>> {
    let Some(rest) = subject.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')) else { return Ok(None) };
    let first = rest.split('.').next().unwrap_or_default();
    anyhow::ensure!(
        !OWN_WORDS.contains(&first),
        "{subject}: only Watchbook itself publishes on {prefix}.{first}; choose another subject"
    );
    match first.parse::<Kind>() {
        Ok(Kind::Events) => match subject::organization(subject, prefix, Kind::Events) {
            Ok(organization) => Ok(Some(organization.unwrap_or(NO_ORGANIZATION))),
            Err(reject) => anyhow::bail!("{subject} is not a subject for events: {reject}"),
        },
        Ok(kind) => anyhow::bail!("{subject} is for {kind}: an event would become a dead letter there"),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_one_that_can_be_published_on() {
        for good in ["staging", "staging.events", "watchbook.events.acme.x", "größe.a-b_c"] {
            assert_eq!(subject(good).as_deref(), Ok(good));
        }
        let long = "x".repeat(SUBJECT_BYTES + 1);
        for wrong in [
            "",
            ".",
            "a..b",
            ".a",
            "a.",
            "a.*",
            "a.>",
            "a b",
            "a\tb",
            "$JS.API.STREAM.PURGE.X",
            "_INBOX.x",
            long.as_str(),
        ] {
            assert!(subject(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn watchbooks_own_subjects_take_what_is_theirs() {
        for (subject, organization) in [
            ("staging.events", Some(None)),
            ("watchbook", Some(None)),
            ("watchbook.rebuild", Some(None)),
            ("watchbooks.logs.acme.x", Some(None)),
            ("watchbook.events.acme.x.y", Some(Some("acme"))),
            ("watchbook.events.acme", Some(Some("acme"))),
            ("watchbook.events._.x", Some(Some("_"))),
            ("watchbook.events", None),
            ("watchbook.events.a$b.x", None),
            ("watchbook.logs.acme.x", None),
            ("watchbook.audit.acme.x", None),
            ("watchbook.signals.rollups", None),
            ("watchbook.alerts.acme.x", None),
        ] {
            assert_eq!(super::organization(subject, "watchbook").ok(), organization, "{subject}");
        }
    }
}
