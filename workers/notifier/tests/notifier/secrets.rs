//! Contract of all receivers: no secret appears in any error or log.

use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use alerting::notification::Status;
use alerting::receiver::{Channel, Email, Receiver};
use notifier::Outcome;
use notifier::receivers::Sender;
use runtime::config::Secret;
use tokio::net::TcpListener;

use crate::email::Smtp;
use crate::stub::{Answer, Stub};
use crate::table::{PATIENCE, alert, all, delivery, notification, receiver};

/// Captures everything that this process and its libraries log, at every level.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn of_the_process() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        let start = || {
            let log = Self::default();
            let writer = log.clone();
            tracing_subscriber::fmt()
                .with_ansi(false)
                .with_max_level(tracing::Level::TRACE)
                .with_writer(move || writer.clone())
                .init();
            log
        };
        LOG.get_or_init(start).clone()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    fn holds_no(&self, secret: &str) {
        let text = self.text();
        // The tests' own mail server logs its input, so its lines are skipped.
        let told: Vec<_> = text.lines().filter(|line| line.contains(secret) && !line.contains("mailin::")).collect();
        assert!(told.is_empty(), "a secret is in the log: {told:#?}");
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends to a failing receiver, checks that the problem does not contain the secret, and returns the problem.
async fn fails_discreetly(what: &str, receiver: &Receiver, secret: &str, timeout: Duration) -> String {
    let told = notification(vec![alert(Status::Firing, "a")]);
    let outcome = Sender::new(None, timeout, "").send(receiver, delivery(&told)).await;
    let (Outcome::Retry { problem, .. } | Outcome::GiveUp { problem }) = outcome else {
        panic!("{what}: delivered");
    };
    assert!(!problem.contains(secret), "{what}: {problem}");
    problem
}

#[tokio::test]
async fn http_receivers_keep_their_secrets() {
    let log = Log::of_the_process();
    tracing::info!("the log is kept");
    let secret = "q7Zs3cret";
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let echo = [Stub::always(Answer::Echo(400)).await, Stub::always(Answer::Echo(503)).await];
    let long = Stub::start(|_, requests| {
        Answer::Status(500, vec![], requests.path.repeat(4 * 1024 / requests.path.len() + 1))
    })
    .await;
    let redirecting = Stub::start(|_, requests| {
        Answer::Status(302, vec![("location", format!("/elsewhere{}", requests.path))], requests.path.clone())
    })
    .await;
    let silent = Stub::always(Answer::Never).await;
    for stub in echo.iter().chain([&long, &redirecting]) {
        for (name, receiver) in all(&format!("127.0.0.1:{}", stub.port), secret) {
            let problem = fails_discreetly(name, &receiver, secret, PATIENCE).await;
            assert!(problem.chars().count() < 400, "{name} repeats the whole response: {problem}");
        }
    }
    for (name, receiver) in all(&closed.to_string(), secret) {
        let problem = fails_discreetly(name, &receiver, secret, PATIENCE).await;
        assert!(problem.to_lowercase().contains("refused"), "{name} does not give the reason: {problem}");
    }
    for (name, receiver) in all(&format!("127.0.0.1:{}", silent.port), secret) {
        let problem = fails_discreetly(name, &receiver, secret, Duration::from_millis(200)).await;
        assert!(problem.contains("no answer"), "{name} does not give the reason: {problem}");
    }
    for host in ["no-such-host.invalid", "not a host", ""] {
        for (name, receiver) in all(host, secret) {
            fails_discreetly(name, &receiver, secret, PATIENCE).await;
        }
    }
    assert!(log.text().contains("the log is kept"), "nothing was logged, so the check has no value");
    log.holds_no(secret);
}

#[tokio::test]
async fn mail_keeps_its_password() {
    let log = Log::of_the_process();
    let secret = "m8Pa55word";
    let email = |server: String| {
        receiver(Channel::Email(Email {
            server,
            user: Some("watchbook".to_owned()),
            password: Some(Secret::new(secret)),
            from: "watchbook@example.com".to_owned(),
            to: vec!["ops@example.com".to_owned()],
        }))
    };
    let refusing = Smtp::start(|smtp| smtp.repeat_sign_in = true).await;
    let problem = fails_discreetly("mail", &email(refusing.url()), secret, PATIENCE).await;
    assert!(problem.contains("535"), "{problem}");
    for sign_in in ["m8Pa55word", "bThQYTU1d29yZA=="] {
        assert!(!problem.contains(sign_in), "{problem}");
    }
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    fails_discreetly("mail", &email(format!("smtp://{closed}")), secret, PATIENCE).await;
    fails_discreetly(
        "mail",
        &email(format!("smtps://{}", refusing.url().trim_start_matches("smtp://"))),
        secret,
        PATIENCE,
    )
    .await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}", silent.local_addr().unwrap());
    fails_discreetly("mail", &email(url), secret, Duration::from_millis(200)).await;
    fails_discreetly("mail", &email(format!("http://user:{secret}@example.com")), secret, PATIENCE).await;
    log.holds_no(secret);
}
