//! Slack's incoming webhooks.
//!
//! Reference: <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>. Escaping:
//! <https://docs.slack.dev/messaging/formatting-message-text#escaping>. Limits of blocks:
//! <https://docs.slack.dev/reference/block-kit/blocks>.

use alerting::notification::{Alert, Notification, NotificationReason, Status};
use alerting::receiver::Slack;
use serde::Serialize;

use crate::http::Call;
use crate::outcome::Outcome;
use crate::receivers::{Delivery, json};
use crate::text;

/// Slack's limit on the text of a section, in characters after escaping.
const SECTION_CHARACTERS: usize = 3000;
/// Slack's limit on the text of a header, in characters.
const HEADER_CHARACTERS: usize = 150;
/// Maximum length of a label name or value. The page shows the rest.
const VALUE_CHARACTERS: usize = 200;
/// Maximum length of a summary or a reason, so that both always fit into one section.
const SENTENCE_CHARACTERS: usize = 500;

#[derive(Serialize)]
struct Message {
    /// Shown in phone notifications, which do not render blocks.
    text: String,
    attachments: [Attachment; 1],
}

#[derive(Serialize)]
struct Attachment {
    color: &'static str,
    blocks: Vec<Block>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Header { text: Text },
    Section { text: Text },
    Context { elements: [Text; 1] },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Text {
    PlainText { text: String },
    Mrkdwn { text: String },
}

pub(super) fn call(settings: &Slack, delivery: Delivery<'_>, external_url: &str) -> Result<Call, Outcome> {
    Call::post(settings.url.reveal(), json(&message(delivery.notification, external_url))?)
}

fn message(notification: &Notification, external_url: &str) -> Message {
    let headline = text::headline(notification);
    // Plain text is shown verbatim, so it must not be escaped.
    let mut blocks = vec![Block::Header { text: Text::PlainText { text: text::clip(&headline, HEADER_CHARACTERS) } }];
    // Far below Slack's limit of 50 blocks, because a longer list is not read.
    blocks.extend(notification.alerts.iter().take(text::ALERTS_SHOWN).map(section));
    let left_out = text::left_out(notification, text::ALERTS_SHOWN);
    let mut footer = Vec::new();
    if left_out > 0 {
        footer.push(format!("{left_out} more are not listed"));
    }
    if !external_url.is_empty() {
        footer.push(format!("<{}|Watchbook>", escape(external_url, SENTENCE_CHARACTERS)));
    }
    if !footer.is_empty() {
        blocks.push(Block::Context { elements: [Text::Mrkdwn { text: footer.join(" · ") }] });
    }
    Message {
        text: escape(&headline, SECTION_CHARACTERS),
        attachments: [Attachment { color: color(notification), blocks }],
    }
}

fn section(alert: &Alert) -> Block {
    let state = match alert.status {
        Status::Firing => ":red_circle: firing",
        Status::Resolved => ":large_green_circle: resolved",
    };
    let test = if alert.test { " (this is a test; nothing is wrong)" } else { "" };
    let mut lines = vec![format!("*{}* {state}{test}", escape(&text::name(alert), SENTENCE_CHARACTERS))];
    for sentence in [alert.annotations.get("summary"), Some(&alert.reason)].into_iter().flatten() {
        lines.push(escape(sentence, SENTENCE_CHARACTERS));
    }
    lines.push(format!(
        "since <!date^{0}^{{date_short_pretty}} {{time_secs}}|{1}>",
        alert.starts_at.timestamp(),
        alert.starts_at.format("%Y-%m-%d %H:%M:%S UTC")
    ));
    for (name, value) in alert.labels.iter().filter(|(name, _)| name.as_str() != "alertname") {
        let line = format!("• {}: {}", escape(name, VALUE_CHARACTERS), escape(value, VALUE_CHARACTERS));
        let length: usize = lines.iter().map(|line| line.chars().count() + 1).sum();
        if length + line.chars().count() > SECTION_CHARACTERS {
            break;
        }
        lines.push(line);
    }
    Block::Section { text: Text::Mrkdwn { text: lines.join("\n") } }
}

/// Escapes `&`, `<` and `>`, so that a label cannot mention a channel or hide a link. The limit counts escaped
/// characters, and an entity is never cut.
fn escape(text: &str, characters: usize) -> String {
    let mut escaped = String::new();
    let mut length = 0;
    for c in text.chars() {
        let entity = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            _ => "",
        };
        length += entity.len().max(1);
        if length >= characters {
            escaped.push('…');
            break;
        }
        if entity.is_empty() { escaped.push(c) } else { escaped.push_str(entity) }
    }
    escaped
}

fn color(notification: &Notification) -> &'static str {
    match (notification.why, notification.status(), text::severity(notification)) {
        (NotificationReason::Test, ..) => "#808080",
        (_, Status::Resolved, _) => "#2eb886",
        (_, Status::Firing, "critical") => "#a30200",
        (_, Status::Firing, "error" | "warning") => "#daa038",
        (_, Status::Firing, _) => "#439fe0",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_are_whole_and_the_bound_holds() {
        assert_eq!(escape("<!channel> a&b", 100), "&lt;!channel&gt; a&amp;b");
        for bound in 1..40 {
            let escaped = escape("&&&&&&&&&&", bound);
            assert!(escaped.chars().count() <= bound, "{escaped} is longer than {bound}");
            assert_eq!(escaped.matches('&').count(), escaped.matches(';').count(), "{escaped}");
        }
    }
}
