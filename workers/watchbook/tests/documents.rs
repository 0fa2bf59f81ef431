//! What the documents say and the code could leave behind.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic in a test is its report")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use records::{Kind, subject};
use runtime::Config;
use runtime::config::Sources;

/// Clients and drivers that only the crates of the table may name.
const GUARDED: &[&str] = &["async-nats", "object_store", "sqlx"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(document: &str) -> String {
    std::fs::read_to_string(root().join(document)).unwrap()
}

/// The cells of a table's rows, without the lines around them.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let row = |line: &'_ str| line.starts_with("| `");
    text.lines().filter(move |line| row(line)).map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
}

/// What stands in backticks.
fn names(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// What each crate lists under `[dependencies]`, of our crates and of the guarded ones.
fn arrows_of_the_manifests() -> BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap().to_owned();
    let ours: BTreeSet<_> = packages.iter().map(name).collect();
    let listed = |package: &serde_json::Value| {
        let normal =
            package["dependencies"].as_array().unwrap().iter().filter(|dependency| dependency["kind"].is_null());
        let (mut of_ours, mut guarded) = (BTreeSet::new(), BTreeSet::new());
        for dependency in normal.map(name) {
            if ours.contains(&dependency) {
                of_ours.insert(dependency);
            } else if GUARDED.contains(&dependency.as_str()) {
                guarded.insert(dependency);
            }
        }
        (of_ours, guarded)
    };
    packages.iter().map(|package| (name(package), listed(package))).collect()
}

#[test]
fn the_arrows_between_crates_are_those_of_the_map() {
    let map = read("ARCHITECTURE.md");
    let (_, rest) = map.split_once("<!-- arrows: a test reads from here -->").unwrap();
    let (table, _) = rest.split_once("<!-- arrows: to here -->").unwrap();
    let drawn: BTreeMap<_, _> =
        rows(table).map(|cells| (names(cells[0]).pop_first().unwrap(), (names(cells[1]), names(cells[2])))).collect();
    let manifests = arrows_of_the_manifests();
    assert!(drawn.keys().eq(manifests.keys()), "ARCHITECTURE.md lists other crates than the workspace has");
    for (name, arrows) in manifests {
        assert_eq!(drawn.get(&name), Some(&arrows), "{name}: what ARCHITECTURE.md draws, and what its manifest lists");
    }
}

#[test]
fn a_producer_links_no_database_and_the_contract_nothing() {
    let manifests = arrows_of_the_manifests();
    for (start, may_name) in [("publisher", &["async-nats"][..]), ("records", &[])] {
        let mut reached = vec![start.to_owned()];
        while let Some(name) = reached.pop() {
            let (ours, guarded) = &manifests[&name];
            for named in guarded {
                assert!(may_name.contains(&named.as_str()), "{start} reaches {named} by {name}");
            }
            reached.extend(ours.iter().cloned());
        }
    }
}

#[test]
fn the_readme_lists_every_kind_as_it_is() {
    let readme = read("README.md");
    for &kind in Kind::ALL {
        let row = rows(&readme)
            .find(|cells| cells.len() == 4 && cells[0] == format!("`{kind}`"))
            .unwrap_or_else(|| panic!("README.md has no row for {kind}"));
        assert_eq!(row[2], format!("`{}`", subject::stream_name("watchbook", kind)));
        assert_eq!(row[3], format!("`{}`", kind.spec().table));
    }
}

#[test]
fn the_settings_keep_each_kind_as_long_as_its_folder_says() {
    let keep = Config::default().retention.keep;
    for &kind in Kind::ALL {
        let days = keep.of(kind.name()).duration().map(|keep| keep.as_secs() / (24 * 60 * 60));
        assert_eq!(days, kind.spec().keep_days.map(u64::from), "{kind}");
    }
}

#[test]
fn the_stream_of_each_kind_may_have_a_size_of_its_own() {
    for &kind in Kind::ALL {
        let environment = vec![(format!("WATCHBOOK_STREAMS__{kind}__MAX_BYTES").to_uppercase(), "3GiB".to_owned())];
        let streams = Sources { file: None, environment }.load().unwrap().streams;
        for &other in Kind::ALL {
            let gib = if other == kind { 3 } else { 1 };
            assert_eq!(streams.max_bytes(other.name()).as_u64(), gib << 30, "{other} where {kind} is set");
        }
    }
}

#[test]
fn the_readme_names_every_metric() {
    let readme = read("README.md");
    for worker in ["writer", "alerts", "notifier", "retention", "gateway"] {
        let source = read(&format!("workers/{worker}/src/metrics.rs"));
        assert!(source.contains("watchbook_"), "{worker} has metrics");
        for name in source.split('"').filter(|text| text.starts_with("watchbook_")) {
            assert!(readme.contains(&format!("| `{name}` |")), "README.md does not name {name}");
        }
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for document in ["README.md", "ARCHITECTURE.md", "deploy/README.md"] {
        let (path, text) = (root().join(document), read(document));
        for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target)) {
            let target = target.split('#').next().unwrap();
            let elsewhere = target.contains("://") || target.is_empty();
            assert!(elsewhere || path.parent().unwrap().join(target).exists(), "{document} links to {target}");
        }
    }
}
