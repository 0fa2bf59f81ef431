//! `/metrics`, as Prometheus reads it.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use harness::eventually;
use records::Kind;

use crate::world;

/// The gateway runs too if it has a secret.
const SECRET: (&str, &str) = ("WATCHBOOK_JWT_SECRET", "a secret of the tests, at least 32 bytes long");

/// Returns whether `promtool` accepts an exposition, and its output; `None` if it is not installed.
fn promtool(exposition: &str) -> Option<(bool, String)> {
    let mut check = Command::new("promtool");
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = check.spawn().ok()?;
    check.stdin.take().unwrap().write_all(exposition.as_bytes()).unwrap();
    let checked = check.wait_with_output().unwrap();
    Some((checked.status.success(), String::from_utf8_lossy(&checked.stderr).into_owned()))
}

#[tokio::test]
async fn names_and_types_are_as_prometheus_wants_them() {
    let world = world().start().await;
    let receiver = "[[receivers]]\nname = \"ops\"\nnats = {}\n";
    std::fs::write(world.directory().join("watchbook.toml"), receiver).unwrap();
    let worker = world.spawn_with("all", &[SECRET]);
    worker.ready().await;
    world.publish_records(Kind::Executions, 0..20).await;
    world.settled(Kind::Executions).await;
    worker.get("/api/me").await;
    let exposition = eventually("somebody was told", async || {
        let exposition = worker.get("/metrics").await.body;
        if exposition.contains("watchbook_notification_tries_total{") { Ok(exposition) } else { Err(exposition) }
    })
    .await;

    let mut types = BTreeMap::new();
    for line in exposition.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            assert!(types.insert(name, kind).is_none(), "{name} is described twice");
            assert!(exposition.contains(&format!("# HELP {name} ")), "{name} is not explained");
        }
    }
    for line in exposition.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let sample = line.split(['{', ' ']).next().unwrap();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|part| sample.strip_suffix(part)).unwrap_or(sample);
        let kind = types.get(sample).or_else(|| types.get(family)).unwrap_or_else(|| panic!("no type: {line}"));
        assert!(sample.starts_with("watchbook_"), "{line}");
        assert_eq!(
            *kind == "counter",
            sample.ends_with("_total"),
            "a counter, and nothing else, ends with _total: {line}"
        );
    }
    for part in ["messages", "unread", "batch", "writer", "alerts", "notification", "retention", "http"] {
        assert!(types.keys().any(|name| name.starts_with(&format!("watchbook_{part}"))), "nothing of {part}");
    }
    if let Some((is_fine, complaints)) = promtool(&exposition) {
        assert!(is_fine, "promtool: {complaints}");
    }
    world.finish([worker]).await;
}
