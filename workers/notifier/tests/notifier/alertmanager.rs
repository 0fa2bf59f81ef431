//! Tests against a real Alertmanager: firing alerts appear there, resolved ones disappear.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use alerting::notification::{Notification, Status};
use alerting::receiver::{Alertmanager, Channel, Receiver};
use harness::eventually;
use notifier::Outcome;
use runtime::config::Secret;
use serde_json::Value;
use tempfile::TempDir;

use crate::stub::{Answer, Stub};
use crate::table::{alert, nasty, notification, receiver, send, webhook};

/// The name of the Debian package's binary, then the upstream name.
const NAMES: [&str; 2] = ["prometheus-alertmanager", "alertmanager"];

struct Server {
    process: Child,
    port: u16,
    _directory: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// Starts Alertmanager. Returns `None` and prints a note if it is not installed. If `CI` is set, it must be
    /// installed.
    async fn start() -> Option<Self> {
        let installed = NAMES.into_iter().find(|name| {
            Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
        });
        let Some(name) = installed else {
            assert!(std::env::var_os("CI").is_none(), "CI must install prometheus-alertmanager");
            println!("SKIPPED: prometheus-alertmanager is not installed");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("alertmanager.yml");
        std::fs::write(&config, "route: { receiver: nobody }\nreceivers: [{ name: nobody }]\n").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new(name)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { process, port, _directory: directory };
        eventually("Alertmanager is ready", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", server.port)).await.map_err(|error| error.to_string())
        })
        .await;
        Some(server)
    }

    fn receiver(&self, refresh: Duration) -> Receiver {
        let url = Secret::new(format!("http://127.0.0.1:{}", self.port));
        receiver(Channel::Alertmanager(Alertmanager { url, refresh }))
    }

    /// Returns the alerts that Alertmanager shows as active.
    async fn alerts(&self) -> Vec<Value> {
        let url = format!("http://127.0.0.1:{}/api/v2/alerts", self.port);
        let answer = fetch(&url).await;
        serde_json::from_str(&answer).unwrap()
    }

    async fn tell(&self, told: &Notification, refresh: Duration) {
        let receiver = self.receiver(refresh);
        eventually("Alertmanager takes it", async || match send(&receiver, told).await {
            Outcome::Delivered => Ok(()),
            Outcome::Retry { problem, .. } => Err(problem),
            Outcome::GiveUp { problem } => panic!("{problem}"),
        })
        .await;
    }
}

async fn fetch(url: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (host, path) = url.trim_start_matches("http://").split_once('/').unwrap();
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    let request = format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test]
async fn what_fires_appears_and_what_is_over_disappears() {
    let Some(server) = Server::start().await else { return };
    let (a, b) = (alert(Status::Firing, "a"), alert(Status::Firing, "b"));
    server.tell(&notification(vec![a.clone(), b.clone()]), Duration::from_secs(60)).await;
    let found = eventually("both are there", async || {
        let found = server.alerts().await;
        if found.len() == 2 { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await;
    let of = |strategy: &str| found.iter().find(|found| found["labels"]["strategy"] == strategy).unwrap();
    assert_eq!(of("a")["labels"], serde_json::to_value(&a.labels).unwrap());
    assert_eq!(of("a")["annotations"]["reason"], a.reason);
    assert_eq!(of("a")["generatorURL"], "https://watchbook.example/");
    let ends_at: chrono::DateTime<chrono::Utc> = of("a")["endsAt"].as_str().unwrap().parse().unwrap();
    let starts_at: chrono::DateTime<chrono::Utc> = of("a")["startsAt"].as_str().unwrap().parse().unwrap();
    assert_eq!(starts_at, a.starts_at);
    assert!(ends_at > chrono::Utc::now() + chrono::TimeDelta::seconds(60), "the alert must outlive a late refresh");

    // Check with `amtool` as well, if it is installed.
    if let Ok(output) = Command::new("amtool")
        .args(["alert", "query", "--output=json", &format!("--alertmanager.url=http://127.0.0.1:{}", server.port)])
        .output()
    {
        let seen: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(seen.len(), 2, "{}", String::from_utf8_lossy(&output.stderr));
    }

    // The webhook receiver computes the same fingerprint as Alertmanager.
    let stub = Stub::always(Answer::status(200)).await;
    send(&webhook(&stub.url(), None), &notification(vec![a])).await;
    assert_eq!(stub.requests()[0].json()["alerts"][0]["fingerprint"], of("a")["fingerprint"]);

    let mut over = b;
    (over.status, over.ends_at) = (Status::Resolved, Some(chrono::Utc::now()));
    server.tell(&notification(vec![over]), Duration::from_secs(60)).await;
    eventually("only the other one is left", async || {
        let found = server.alerts().await;
        if found.len() == 1 && found[0]["labels"]["strategy"] == "a" { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

#[tokio::test]
async fn it_takes_labels_of_every_kind() {
    let Some(server) = Server::start().await else { return };
    server.tell(&nasty(), Duration::from_secs(60)).await;
    eventually("all are there", async || {
        let found = server.alerts().await;
        if found.len() == 71 { Ok(()) } else { Err(format!("{}", found.len())) }
    })
    .await;
}
