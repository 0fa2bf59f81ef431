//! Words for people, shared by the receivers that are read by some.

use alerting::notification::{Alert, Notification, Status, Why};

/// Alerts that are spelled out in one message; the rest is counted. More than this nobody reads on a phone.
pub(crate) const ALERTS_SHOWN: usize = 20;

/// A headline of one line: what happened, to what, how many.
pub(crate) fn headline(notification: &Notification) -> String {
    let firing = notification.alerts.iter().filter(|alert| alert.status == Status::Firing).count();
    let tag = match (notification.why, notification.status()) {
        (Why::Test, _) => "TEST",
        (_, Status::Firing) => "FIRING",
        (_, Status::Resolved) => "RESOLVED",
    };
    let total = notification.alerts.len() as u64 + notification.truncated_alerts;
    let subject = match notification.alerts.as_slice() {
        [alert] if total == 1 => name(alert),
        _ if notification.why == Why::Digest => {
            format!("many at once: {total} alerts, {firing} of those listed are firing")
        }
        [first, ..] if notification.alerts.iter().all(|alert| alert.rule == first.rule) => {
            format!("{}: {total} alerts, {firing} firing", first.rule)
        }
        _ => format!("{total} alerts, {firing} firing"),
    };
    one_line(&format!("[{tag}] {subject}"))
}

/// A rule and its group in a few words.
pub(crate) fn name(alert: &Alert) -> String {
    // What the rule says of itself is the same in every alert of it.
    let group: Vec<&str> = alert
        .labels
        .iter()
        .filter(|(label, value)| !matches!(label.as_str(), "alertname" | "severity") && !value.is_empty())
        .map(|(_, value)| value.as_str())
        .collect();
    if group.is_empty() { alert.rule.clone() } else { format!("{} ({})", alert.rule, group.join(", ")) }
}

/// The worst severity of the alerts that fire, or of all where none does.
pub(crate) fn severity(notification: &Notification) -> &str {
    let rank = |alert: &&Alert| match alert.severity.as_str() {
        "critical" => 3,
        "error" => 2,
        "warning" => 1,
        _ => 0,
    };
    let firing = notification.alerts.iter().filter(|alert| alert.status == Status::Firing).max_by_key(rank);
    let worst = firing.or_else(|| notification.alerts.iter().max_by_key(rank));
    worst.map_or("info", |alert| alert.severity.as_str())
}

/// `firing` or `resolved`.
pub(crate) fn status(status: Status) -> &'static str {
    match status {
        Status::Firing => "firing",
        Status::Resolved => "resolved",
    }
}

/// How many alerts stand behind the first `shown`, counting those that were left out before.
pub(crate) fn left_out(notification: &Notification, shown: usize) -> u64 {
    notification.alerts.len().saturating_sub(shown) as u64 + notification.truncated_alerts
}

/// Without line breaks and other control characters, and with single spaces.
pub(crate) fn one_line(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|w| !w.is_empty()).collect();
    words.join(" ")
}

/// At most `characters` characters, the last of which says that something is missing.
pub(crate) fn clip(text: &str, characters: usize) -> String {
    if text.chars().count() <= characters {
        return text.to_owned();
    }
    let kept: String = text.chars().take(characters.saturating_sub(1)).collect();
    kept + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line() {
        assert_eq!(one_line("a\r\nBcc: everybody\u{85}x\u{2028}y\t z "), "a Bcc: everybody x y z");
    }

    #[test]
    fn clipping_counts_characters() {
        assert_eq!(clip("äöü", 3), "äöü");
        assert_eq!(clip("äöüß", 3), "äö…");
        assert_eq!(clip("", 0), "");
    }
}
