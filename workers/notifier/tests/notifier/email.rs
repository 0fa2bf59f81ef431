//! Email, against a real SMTP server.

use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use alerting::notification::{Notification, NotificationReason, Status};
use alerting::receiver::{Channel, Email, Receiver};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mailin::response::{AUTH_OK, INTERNAL_ERROR, NO_MAILBOX, OK};
use mailin::{Action, AuthMechanism, Handler, Response, SessionBuilder};
use notifier::Outcome;
use notifier::receivers::Sender;
use runtime::config::Secret;

use crate::table::{PATIENCE, alert, delivery, nasty, notification, receiver, send};

/// A mail as the server received it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mail {
    from: String,
    to: Vec<String>,
    text: String,
}

impl Mail {
    /// Returns a header, unfolded.
    fn header(&self, name: &str) -> String {
        let head = self.text.split("\r\n\r\n").next().unwrap().replace("\r\n ", " ").replace("\r\n\t", " ");
        let lines: Vec<_> = head.split("\r\n").filter_map(|line| line.split_once(": ")).collect();
        let found: Vec<_> = lines.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name)).collect();
        assert!(found.len() <= 1, "{name} comes {} times", found.len());
        found.first().map_or_else(String::new, |(_, value)| (*value).to_owned())
    }

    /// Returns the parts as header and decoded text.
    fn parts(&self) -> Vec<(String, String)> {
        let boundary =
            self.header("content-type").split("boundary=\"").nth(1).unwrap().trim_end_matches('"').to_owned();
        let separator = format!("--{boundary}");
        let parts = self.text.split(&separator).skip(1).filter(|part| !part.starts_with("--"));
        parts
            .map(|part| {
                let (head, body) = part.trim_start().split_once("\r\n\r\n").unwrap();
                let head = head.to_lowercase();
                let body = if head.contains("base64") {
                    String::from_utf8(STANDARD.decode(body.replace("\r\n", "")).unwrap()).unwrap()
                } else if head.contains("quoted-printable") {
                    unquoted(body)
                } else {
                    body.to_owned()
                };
                (head, body)
            })
            .collect()
    }
}

fn unquoted(text: &str) -> String {
    let text = text.replace("=\r\n", "");
    let mut pieces = text.split('=');
    let mut bytes = pieces.next().unwrap().as_bytes().to_vec();
    for piece in pieces {
        bytes.push(u8::from_str_radix(&piece[..2], 16).unwrap());
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

/// The behaviour of the server, and the mails it received.
#[derive(Debug, Clone, Default)]
pub(crate) struct Behaviour {
    /// Rejects every AUTH and echoes it.
    pub(crate) repeat_sign_in: bool,
    /// Rejects this recipient permanently.
    unknown: Option<String>,
    /// Rejects every mail temporarily.
    busy: bool,
    /// Requires AUTH.
    signed_in_only: bool,
    signed_in: Arc<Mutex<Vec<(String, String)>>>,
    mails: Arc<Mutex<Vec<Mail>>>,
    current: Mail,
}

impl Handler for Behaviour {
    fn helo(&mut self, _: IpAddr, _: &str) -> Response {
        OK
    }

    fn mail(&mut self, _: IpAddr, _: &str, from: &str) -> Response {
        self.current = Mail { from: from.to_owned(), ..Mail::default() };
        if self.busy { INTERNAL_ERROR } else { OK }
    }

    fn rcpt(&mut self, to: &str) -> Response {
        if self.unknown.as_deref() == Some(to) {
            return NO_MAILBOX;
        }
        self.current.to.push(to.to_owned());
        OK
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.current.text.push_str(std::str::from_utf8(bytes).unwrap());
        Ok(())
    }

    fn data_end(&mut self) -> Response {
        self.mails.lock().unwrap().push(std::mem::take(&mut self.current));
        OK
    }

    fn auth_plain(&mut self, _: &str, user: &str, password: &str) -> Response {
        self.signed_in.lock().unwrap().push((user.to_owned(), password.to_owned()));
        if self.repeat_sign_in {
            let line = STANDARD.encode(format!("\0{user}\0{password}"));
            return Response::custom(535, format!("who are {user} and {password} of {line}?"));
        }
        AUTH_OK
    }
}

/// The SMTP server. Its threads run until the process ends.
pub(crate) struct Smtp {
    port: u16,
    signed_in: Arc<Mutex<Vec<(String, String)>>>,
    mails: Arc<Mutex<Vec<Mail>>>,
}

impl Smtp {
    pub(crate) async fn start(change: impl FnOnce(&mut Behaviour)) -> Self {
        let mut behaviour = Behaviour::default();
        change(&mut behaviour);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (signed_in, mails) = (behaviour.signed_in.clone(), behaviour.mails.clone());
        let mut builder = SessionBuilder::new("tests");
        if behaviour.repeat_sign_in || behaviour.signed_in_only {
            builder.enable_auth(AuthMechanism::Plain).insecure_enable_plaintext_auth();
        }
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (builder, behaviour) = (builder.clone(), behaviour.clone());
                // The result is ignored: a client may close the connection at any time.
                std::thread::spawn(move || talk(&stream.unwrap(), &builder, behaviour));
            }
        });
        Self { port, signed_in, mails }
    }

    pub(crate) fn url(&self) -> String {
        format!("smtp://127.0.0.1:{}", self.port)
    }

    fn mails(&self) -> Vec<Mail> {
        self.mails.lock().unwrap().clone()
    }

    fn receiver(&self, password: Option<&str>) -> Receiver {
        receiver(Channel::Email(Email {
            server: self.url(),
            user: password.map(|_| "watchbook".to_owned()),
            password: password.map(Secret::new),
            from: "Watchbook <watchbook@example.com>".to_owned(),
            to: vec!["ops@example.com".to_owned(), "On Call <oncall@example.org>".to_owned()],
        }))
    }
}

fn talk(stream: &TcpStream, builder: &SessionBuilder, behaviour: Behaviour) -> io::Result<()> {
    let mut session = builder.build(stream.peer_addr()?.ip(), behaviour);
    session.greeting().write_to(&mut &*stream)?;
    for line in BufReader::new(stream).split(b'\n') {
        let mut line = line?;
        line.push(b'\n');
        let response = session.process(&line);
        if !matches!(response.action, Action::NoReply) {
            response.write_to(&mut &*stream)?;
        }
        if matches!(response.action, Action::Close) {
            break;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_mail_arrives_as_text_and_html() {
    let smtp = Smtp::start(|smtp| smtp.signed_in_only = true).await;
    let told = notification(vec![alert(Status::Firing, "a")]);
    let sender = Sender::new(None, PATIENCE, "https://watchbook.example/");
    let delivery = delivery(&told);
    for _ in 0..2 {
        assert_eq!(sender.send(&smtp.receiver(Some("pass word")), delivery).await, Outcome::Delivered);
    }
    assert_eq!(smtp.signed_in.lock().unwrap()[0], ("watchbook".to_owned(), "pass word".to_owned()));
    let mails = smtp.mails();
    let mail = &mails[0];
    assert_eq!(mail.from, "watchbook@example.com");
    assert_eq!(mail.to, ["ops@example.com", "oncall@example.org"]);
    assert_eq!(mail.header("subject"), "[FIRING] execution-failure-rate (acme, a)");
    assert_eq!(mail.header("message-id"), format!("<{}@example.com>", delivery.id));
    assert_eq!(mail.header("message-id"), mails[1].header("message-id"), "a second attempt sends the same mail");
    assert_eq!(mail.header("date"), mails[1].header("date"));
    assert_eq!(mail.header("auto-submitted"), "auto-generated");
    let [(_, text), (_, html)] = &mail.parts()[..] else { panic!("{mail:?}") };
    for part in [text, html] {
        assert!(part.contains("31 of 100 failed, 31.0 %: above 30 %"), "{part}");
        assert!(part.contains("https://watchbook.example/"), "{part}");
    }
    assert!(html.starts_with("<!DOCTYPE html>"), "{html}");
}

#[tokio::test]
async fn the_mails_of_a_group_are_one_thread() {
    let smtp = Smtp::start(|_| {}).await;
    let receiver = smtp.receiver(None);
    let mut other = notification(vec![alert(Status::Firing, "b")]);
    other.group_key = "another".to_owned();
    let over = notification(vec![alert(Status::Resolved, "a")]);
    for told in [notification(vec![alert(Status::Firing, "a")]), over, other] {
        assert_eq!(send(&receiver, &told).await, Outcome::Delivered);
    }
    let [firing, resolved, other] = &smtp.mails()[..] else { panic!() };
    assert_eq!(firing.header("references"), resolved.header("references"));
    assert_eq!(firing.header("in-reply-to"), firing.header("references"));
    assert_ne!(firing.header("references"), other.header("references"));
    assert_ne!(firing.header("message-id"), resolved.header("message-id"));
    assert_eq!(resolved.header("subject"), "[RESOLVED] execution-failure-rate (acme, a)");
}

#[tokio::test]
async fn no_label_becomes_a_header_or_markup() {
    let smtp = Smtp::start(|_| {}).await;
    let mut one = nasty();
    one.alerts.truncate(1);
    one.truncated_alerts = 0;
    let mut digest: Notification = nasty();
    digest.why = NotificationReason::Digest;
    for told in [one, digest] {
        assert_eq!(send(&smtp.receiver(None), &told).await, Outcome::Delivered);
    }
    for mail in smtp.mails() {
        assert_eq!(mail.header("bcc"), "");
        assert_eq!(mail.to.len(), 2);
        assert!(mail.text.split("\r\n").all(|line| line.len() <= 998), "a line is longer than RFC 5322 allows");
        let [(_, _), (_, html)] = &mail.parts()[..] else { panic!("{mail:?}") };
        assert!(!html.contains("<script>") && html.contains("&lt;script&gt;"), "{html}");
    }
}

#[tokio::test]
async fn what_a_mail_server_says_means_now_or_never() {
    let told = notification(vec![alert(Status::Firing, "a")]);
    let busy = Smtp::start(|smtp| smtp.busy = true).await;
    let outcome = send(&busy.receiver(None), &told).await;
    assert!(matches!(&outcome, Outcome::Retry { problem, .. } if problem.contains("451")), "{outcome:?}");
    let unknown = Smtp::start(|smtp| smtp.unknown = Some("ops@example.com".to_owned())).await;
    let outcome = send(&unknown.receiver(None), &told).await;
    assert!(matches!(&outcome, Outcome::GiveUp { problem } if problem.contains("550")), "{outcome:?}");
    let refusing = Smtp::start(|smtp| smtp.repeat_sign_in = true).await;
    let outcome = send(&refusing.receiver(Some("wrong")), &told).await;
    assert!(matches!(&outcome, Outcome::GiveUp { problem } if problem.contains("535")), "{outcome:?}");
    assert_eq!(busy.mails().len() + unknown.mails().len() + refusing.mails().len(), 0);
}

#[tokio::test]
async fn no_password_goes_out_without_tls() {
    let smtp = Smtp::start(|smtp| smtp.signed_in_only = true).await;
    let told = notification(vec![alert(Status::Firing, "a")]);
    let mut receiver = smtp.receiver(Some("pass word"));
    let Channel::Email(settings) = &mut receiver.channel else { panic!() };
    // The same server, under a host name that does not look like loopback.
    settings.server = format!("smtp://127.1:{}", smtp.port);
    let outcome = send(&receiver, &told).await;
    assert!(matches!(&outcome, Outcome::Retry { problem, .. } if problem.contains("STARTTLS")), "{outcome:?}");
    assert!(smtp.signed_in.lock().unwrap().is_empty() && smtp.mails().is_empty());
}
