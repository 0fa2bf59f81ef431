//! The documents agree with the code, and their links lead somewhere.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic in a test is its report")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use records::{Kind, subject};
use runtime::Config;
use runtime::config::Sources;

/// Clients and drivers that only the crates of the table may depend on.
const GUARDED: &[&str] = &["async-nats", "object_store", "sqlx"];

/// Names in the code that begin like a metric and are none.
const NOT_METRICS: &[&str] = &["watchbook_omitted", "watchbook_reader", "watchbook_session"];
/// The folder of the guide's pages.
const GUIDE: &str = "deploy/guide/src";

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

/// The texts in backticks.
fn names(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The dependencies of each crate: crates of the workspace, and guarded ones.
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
fn the_architecture_lists_the_dependencies_of_every_crate() {
    let architecture = read("ARCHITECTURE.md");
    let (_, rest) = architecture.split_once("<!-- arrows: a test reads from here -->").unwrap();
    let (table, _) = rest.split_once("<!-- arrows: to here -->").unwrap();
    let drawn: BTreeMap<_, _> =
        rows(table).map(|cells| (names(cells[0]).pop_first().unwrap(), (names(cells[1]), names(cells[2])))).collect();
    let manifests = arrows_of_the_manifests();
    assert!(drawn.keys().eq(manifests.keys()), "ARCHITECTURE.md lists other crates than the workspace has");
    for (name, arrows) in manifests {
        assert_eq!(drawn.get(&name), Some(&arrows), "{name}: ARCHITECTURE.md differs from its manifest");
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
fn the_guide_lists_every_kind_as_it_is() {
    let page = read("deploy/guide/src/subjects.md");
    for &kind in Kind::ALL {
        let row = rows(&page)
            .find(|cells| cells.len() == 4 && cells[0] == format!("`{kind}`"))
            .unwrap_or_else(|| panic!("subjects.md has no row for {kind}"));
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

/// The names of all metrics in the sources below `folder`.
fn metrics_below(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            metrics_below(&entry, names);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let source = std::fs::read_to_string(entry).unwrap();
            let is_name = |text: &&str| {
                text.starts_with("watchbook_") && text.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase())
            };
            names.extend(source.split('"').filter(is_name).map(str::to_owned));
        }
    }
}

#[test]
fn the_guide_lists_exactly_the_metrics_of_the_code() {
    let mut in_code = BTreeSet::new();
    for folder in ["shared", "workers"] {
        for package in std::fs::read_dir(root().join(folder)).unwrap() {
            metrics_below(&package.unwrap().path().join("src"), &mut in_code);
        }
    }
    in_code.retain(|name| !NOT_METRICS.contains(&name.as_str()));
    let page = read("deploy/guide/src/monitoring.md");
    let in_guide: BTreeSet<_> =
        rows(&page).flat_map(|cells| names(cells[0])).filter(|name| name.starts_with("watchbook_")).collect();
    assert_eq!(in_guide, in_code, "monitoring.md and the code name different metrics");
}

/// The guide's pages, without its table of contents.
fn pages() -> BTreeSet<String> {
    let names = std::fs::read_dir(root().join(GUIDE)).unwrap().map(|entry| entry.unwrap().file_name());
    let pages = names.map(|name| name.into_string().unwrap()).filter(|name| name.ends_with(".md"));
    pages.filter(|name| name != "SUMMARY.md").collect()
}

/// A document without its blocks of code.
fn prose(text: &str) -> String {
    let mut is_code = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    assert!(!is_code, "a block of code has no end");
    prose
}

/// The targets of all links.
fn links(prose: &str) -> impl Iterator<Item = &str> {
    prose.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
}

/// The anchors of all headings, as GitHub and mdBook form them.
fn anchors(prose: &str) -> BTreeSet<String> {
    let headings = prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_matches('#').trim());
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    headings.map(|heading| heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

#[test]
fn the_table_of_contents_lists_every_page_of_the_guide() {
    let summary = read(&format!("{GUIDE}/SUMMARY.md"));
    let listed: Vec<_> = links(&summary).map(str::to_owned).collect();
    assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), pages());
    assert_eq!(listed.len(), pages().len(), "SUMMARY.md lists a page twice");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let guide = pages().into_iter().map(|page| format!("{GUIDE}/{page}"));
    let others = ["README.md", "ARCHITECTURE.md", "deploy/README.md"].map(str::to_owned);
    for document in others.into_iter().chain(guide) {
        let path = root().join(&document);
        let text = read(&document);
        for target in links(&prose(&text)).filter(|target| !target.contains("://")) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(file.exists(), "{document} links to {target}");
            if !anchor.is_empty() {
                let anchors = anchors(&prose(&std::fs::read_to_string(file).unwrap()));
                assert!(anchors.contains(anchor), "{document} links to {target}; there are {anchors:?}");
            }
            // mdBook copies nothing from outside of the guide.
            let leaves = document.starts_with(GUIDE) && target.contains('/');
            assert!(!leaves, "{document} links to {target}, which the built guide does not contain");
        }
        for included in text.split("{{#include ").skip(1).filter_map(|rest| rest.split_once("}}")).map(|(file, _)| file)
        {
            assert!(path.parent().unwrap().join(included).exists(), "{document} includes {included}");
        }
    }
}

#[test]
fn the_first_documents_stay_short() {
    for (document, most) in [("README.md", 150), ("ARCHITECTURE.md", 200)] {
        let lines = read(document).lines().count();
        assert!(lines < most, "{document} has {lines} lines, expected fewer than {most}");
    }
}
