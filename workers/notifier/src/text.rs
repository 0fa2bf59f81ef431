//! Text for people, shared by the receivers that format messages.

use alerting::notification::{Alert, Notification, NotificationReason, Status};

/// Maximum number of alerts listed in one message; the rest is counted. A longer list is useless on a phone.
pub(crate) const ALERTS_SHOWN: usize = 20;

/// Returns a headline of one line: the status, the rule and group, and how many alerts.
pub(crate) fn headline(notification: &Notification) -> String {
    let firing = notification.alerts.iter().filter(|alert| alert.status == Status::Firing).count();
    let tag = match (notification.why, notification.status()) {
        (NotificationReason::Test, _) => "TEST",
        (_, Status::Firing) => "FIRING",
        (_, Status::Resolved) => "RESOLVED",
    };
    let total = notification.alerts.len() as u64 + notification.truncated_alerts;
    let subject = match notification.alerts.as_slice() {
        [alert] if total == 1 => name(alert),
        _ if notification.why == NotificationReason::Digest => {
            format!("alert storm: {total} alerts, {firing} of those listed are firing")
        }
        [first, ..] if notification.alerts.iter().all(|alert| alert.rule == first.rule) => {
            format!("{}: {total} alerts, {firing} firing", first.rule)
        }
        _ => format!("{total} alerts, {firing} firing"),
    };
    one_line(&format!("[{tag}] {subject}"))
}

/// Returns the rule and the values of its group.
pub(crate) fn name(alert: &Alert) -> String {
    // The rule's own labels are the same for all of its alerts.
    let group: Vec<&str> = alert
        .labels
        .iter()
        .filter(|(label, value)| !matches!(label.as_str(), "alertname" | "severity") && !value.is_empty())
        .map(|(_, value)| value.as_str())
        .collect();
    if group.is_empty() { alert.rule.clone() } else { format!("{} ({})", alert.rule, group.join(", ")) }
}

/// Returns the highest severity of the firing alerts, or of all alerts if none is firing.
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

pub(crate) fn status(status: Status) -> &'static str {
    match status {
        Status::Firing => "firing",
        Status::Resolved => "resolved",
    }
}

/// Returns how many alerts are not listed after the first `shown`, including those that were already left out.
pub(crate) fn left_out(notification: &Notification, shown: usize) -> u64 {
    notification.alerts.len().saturating_sub(shown) as u64 + notification.truncated_alerts
}

/// Replaces line breaks and other control characters, and collapses white space.
pub(crate) fn one_line(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|w| !w.is_empty()).collect();
    words.join(" ")
}

/// Cuts a text to at most `characters` characters. A cut text ends with `…`.
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
