//! Where a replay may go.

use records::Kind;
use records::subject::{self, NO_ORGANIZATION};

/// A subject at the most. NATS has no bound of its own below that of a protocol line, which is 4 KiB.
const SUBJECT_BYTES: usize = 1024;
/// What Watchbook itself says, behind the prefix: nobody else may say it.
const OWN_WORDS: [&str; 4] = ["alerts", "health", "signals", "status"];

/// A subject that one message can be published on.
///
/// # Errors
/// Why it is none.
pub(super) fn subject(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > SUBJECT_BYTES {
        return Err(format!("a subject is 1 to {SUBJECT_BYTES} bytes"));
    }
    if text.contains(['*', '>']) {
        return Err("a message goes to one subject: `*` and `>` are for those who listen".to_owned());
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("a subject holds no spaces".to_owned());
    }
    if text.split('.').any(str::is_empty) {
        return Err("a subject holds no empty token: no dot at its beginning or end, nor two in a row".to_owned());
    }
    if text.starts_with('$') || text.starts_with("_INBOX.") {
        return Err("subjects that begin with `$` or `_INBOX.` are the server's own".to_owned());
    }
    Ok(text.to_owned())
}

/// Whose records the subject takes where it is one of Watchbook's own for events: an organization's, or `_` for those of
/// nobody. `None` for a subject of somebody else's.
///
/// # Errors
/// Where it is one of Watchbook's own, and not for events.
pub(super) fn organization<'s>(subject: &'s str, prefix: &str) -> anyhow::Result<Option<&'s str>> {
    let Some(rest) = subject.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')) else { return Ok(None) };
    let first = rest.split('.').next().unwrap_or_default();
    anyhow::ensure!(
        !OWN_WORDS.contains(&first),
        "{subject}: what Watchbook itself says stands on {prefix}.{first}, and nothing else may"
    );
    match first.parse::<Kind>() {
        Ok(Kind::Events) => match subject::organization(subject, prefix, Kind::Events) {
            Ok(organization) => Ok(Some(organization.unwrap_or(NO_ORGANIZATION))),
            Err(reject) => anyhow::bail!("{subject} takes no event: {reject}"),
        },
        Ok(kind) => anyhow::bail!("{subject} is for {kind}: an event would be a dead letter there"),
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
