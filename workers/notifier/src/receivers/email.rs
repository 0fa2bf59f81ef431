//! Email by SMTP, as plain text and HTML.

use std::net::IpAddr;
use std::str::FromStr;

use alerting::notification::{Alert, Notification, Status};
use alerting::receiver::Email;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use reqwest::Url;
use sha2::{Digest, Sha256};

use crate::outcome::Outcome;
use crate::receivers::Delivery;
use crate::secrets::Secrets;
use crate::text::{self, clip, one_line};

/// Maximum length of a subject, more than mail clients show in a list.
const SUBJECT_CHARACTERS: usize = 200;
/// Maximum length of a server reply in an error message.
const SHOWN_CHARACTERS: usize = 200;
/// Port of mail submission, RFC 6409.
const SUBMISSION: u16 = 587;
/// Port of mail submission over implicit TLS, RFC 8314.
const SUBMISSIONS: u16 = 465;

/// Suppresses automatic replies such as out-of-office mails: RFC 3834, section 5.
#[derive(Debug, Clone, Copy)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

pub(super) async fn send(settings: &Email, delivery: Delivery<'_>, external_url: &str) -> Outcome {
    let message = match compose(settings, delivery, external_url) {
        Ok(message) => message,
        Err(problem) => return Outcome::give_up(problem),
    };
    let transport = match transport(settings) {
        Ok(transport) => transport,
        Err(problem) => return Outcome::give_up(problem),
    };
    match transport.send(message).await {
        Ok(_) => Outcome::Delivered,
        Err(error) => {
            // A server may echo a rejected AUTH line.
            let said = one_line(&secrets(settings).hide(&error.to_string()));
            let problem = format!("{}: {}", shown(&settings.server), clip(&said, SHOWN_CHARACTERS));
            if error.is_permanent() { Outcome::GiveUp { problem } } else { Outcome::retry(problem) }
        }
    }
}

fn secrets(settings: &Email) -> Secrets {
    let mut secrets = Secrets::default();
    if let Some(password) = settings.password.as_ref().map(|password| password.reveal()) {
        let user = settings.user.as_deref().unwrap_or_default();
        secrets.add(password);
        // The forms used by AUTH LOGIN and AUTH PLAIN (RFC 4616).
        secrets.add(&STANDARD.encode(password));
        secrets.add(&STANDARD.encode(format!("\0{user}\0{password}")));
    }
    secrets
}

fn shown(server: &str) -> String {
    Url::parse(server).map_or_else(|_| "the mail server".to_owned(), |url| crate::secrets::shown(&url))
}

fn transport(settings: &Email) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
    let url = Url::parse(&settings.server).map_err(|error| format!("the mail server's URL is invalid: {error}"))?;
    let host = url.host_str().ok_or("the mail server's URL has no host")?.trim_matches(['[', ']']);
    let parameters = || TlsParameters::new(host.to_owned()).map_err(|error| format!("cannot set up TLS: {error}"));
    let (tls, port) = match url.scheme() {
        "smtps" => (Tls::Wrapper(parameters()?), SUBMISSIONS),
        // Loopback traffic cannot be intercepted on the network, and a local relay often has no certificate.
        "smtp" if is_loopback(host) => (Tls::Opportunistic(parameters()?), SUBMISSION),
        "smtp" => (Tls::Required(parameters()?), SUBMISSION),
        _ => return Err("the mail server's URL must begin with smtp:// or smtps://".to_owned()),
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(url.port().unwrap_or(port))
        .tls(tls)
        // The time limit covers the whole attempt.
        .timeout(None);
    if let (Some(user), Some(password)) = (&settings.user, &settings.password) {
        builder = builder.credentials(Credentials::new(user.clone(), password.reveal().to_owned()));
    }
    Ok(builder.build())
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || IpAddr::from_str(host).is_ok_and(|address| address.is_loopback())
}

fn compose(settings: &Email, delivery: Delivery<'_>, external_url: &str) -> Result<Message, String> {
    let notification = delivery.notification;
    let mailbox = |address: &str| {
        Mailbox::from_str(address)
            .map_err(|error| format!("{} is not a valid email address: {error}", one_line(address)))
    };
    let from = mailbox(&settings.from)?;
    let domain = from.email.domain().to_owned();
    // Mail clients group mails that reference the same message id into a thread. No mail with this id is ever sent.
    let thread = format!("<watchbook.{}@{domain}>", thread(&notification.receiver, &notification.group_key));
    let mut builder = Message::builder()
        .from(from)
        .subject(clip(&text::headline(notification), SUBJECT_CHARACTERS))
        .message_id(Some(format!("<{}@{domain}>", delivery.id)))
        .in_reply_to(thread.clone())
        .references(thread)
        .date(delivery.created_at.into())
        .header(AutoSubmitted);
    for recipient in &settings.to {
        builder = builder.to(mailbox(recipient)?);
    }
    builder
        .multipart(MultiPart::alternative_plain_html(
            plain(notification, external_url),
            html(notification, external_url),
        ))
        .map_err(|error| format!("cannot build the mail: {error}"))
}

fn thread(receiver: &str, group_key: &str) -> String {
    let sum = Sha256::digest(format!("{receiver}\n{group_key}").as_bytes());
    sum.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the facts of an alert as names and values, in display order.
fn facts(alert: &Alert) -> Vec<(String, String)> {
    let time = |time: chrono::DateTime<chrono::Utc>| time.format("%Y-%m-%d %H:%M:%S UTC").to_string();
    let mut facts = vec![("why".to_owned(), alert.reason.clone()), ("since".to_owned(), time(alert.starts_at))];
    facts.extend(alert.ends_at.filter(|_| alert.status == Status::Resolved).map(|end| ("until".to_owned(), time(end))));
    facts.extend(alert.annotations.iter().map(|(name, text)| (name.clone(), text.clone())));
    let labels = alert.labels.iter().filter(|(name, _)| name.as_str() != "alertname");
    facts.extend(labels.map(|(name, value)| (name.clone(), value.clone())));
    facts
}

/// Returns the line above an alert's facts.
fn heading(alert: &Alert) -> String {
    let test = if alert.test { " (this is a test; nothing is wrong)" } else { "" };
    format!("{}: {}{test}", text::status(alert.status), text::name(alert))
}

/// Returns the line below all alerts, if some are not listed.
fn footer(notification: &Notification) -> Option<String> {
    let left_out = text::left_out(notification, text::ALERTS_SHOWN);
    (left_out > 0).then(|| format!("{left_out} more are not listed."))
}

fn plain(notification: &Notification, external_url: &str) -> String {
    let mut text = format!("{}\n", text::headline(notification));
    for alert in notification.alerts.iter().take(text::ALERTS_SHOWN) {
        text += &format!("\n{}\n", one_line(&heading(alert)));
        for (name, value) in facts(alert) {
            text += &format!("  {}: {}\n", one_line(&name), one_line(&value));
        }
    }
    for line in footer(notification).into_iter().chain((!external_url.is_empty()).then(|| external_url.to_owned())) {
        text += &format!("\n{line}\n");
    }
    text
}

fn html(notification: &Notification, external_url: &str) -> String {
    let mut html = format!("<!DOCTYPE html><html><body><h2>{}</h2>", escape(&text::headline(notification)));
    for alert in notification.alerts.iter().take(text::ALERTS_SHOWN) {
        html += &format!("<h3>{}</h3><table>", escape(&heading(alert)));
        for (name, value) in facts(alert) {
            html += &format!("<tr><th align=\"left\">{}</th><td>{}</td></tr>", escape(&name), escape(&value));
        }
        html += "</table>";
    }
    if let Some(line) = footer(notification) {
        html += &format!("<p>{}</p>", escape(&line));
    }
    if !external_url.is_empty() {
        html += &format!("<p><a href=\"{0}\">{0}</a></p>", escape(external_url));
    }
    html + "</body></html>"
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_trusted_without_tls() {
        for here in ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "::1"] {
            assert!(is_loopback(here), "{here}");
        }
        for away in ["mail.example", "10.0.0.1", "localhost.example", "0.0.0.0", "::ffff:8.8.8.8"] {
            assert!(!is_loopback(away), "{away}");
        }
    }

    #[test]
    fn html_is_escaped() {
        assert_eq!(escape(r#"<a href="x" title='y'>&"#), "&lt;a href=&quot;x&quot; title=&#39;y&#39;&gt;&amp;");
    }
}
