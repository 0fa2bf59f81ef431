//! Checks that `deploy/watchbook.toml`, the reference of the settings, shows every key at its default.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

use std::path::PathBuf;

use runtime::Config;
use runtime::config::Sources;

const SHIPPED: &str = include_str!("../../../deploy/watchbook.toml");

/// Every table of the file. The first is the document itself.
const SECTIONS: &[&str] = &[
    "",
    "[nats]",
    "[postgres]",
    "[http]",
    "[gateway]",
    "[streams]",
    "[streams.logs]",
    "[writer]",
    "[log]",
    "[retention]",
    "[retention.keep]",
    "[retention.exact]",
    "[alerts]",
    "[health]",
    "[[rules]]",
    "[[receivers]]",
    "[[routes]]",
];

/// The types of receivers. Each is a table of its own in `[[receivers]]`.
const WAYS: &[&str] = &["webhook", "alertmanager", "slack", "pagerduty", "email", "nats", "heartbeat"];

#[test]
fn the_shipped_file_is_the_defaults() {
    let sources =
        Sources { file: Some((PathBuf::from("watchbook.toml"), SHIPPED.to_owned())), environment: Vec::new() };
    let shipped = sources.load().unwrap();
    assert_eq!(shipped.to_toml().unwrap(), Config::default().to_toml().unwrap());
}

#[test]
fn what_it_shows_commented_out_is_accepted() {
    let everything = toml::from_str::<Config>(&uncommented());
    assert_eq!(everything.map(drop).map_err(|error| error.message().to_owned()), Ok(()));
}

#[test]
fn it_shows_every_key() {
    let shown: toml::Table = toml::from_str(&uncommented()).unwrap();
    for section in SECTIONS {
        let keys = keys_of(section);
        assert!(!keys.is_empty(), "{section} names no keys");
        for key in keys {
            assert!(shows(&shown, section, &key), "deploy/watchbook.toml does not show `{key}` of `{section}`");
        }
    }
}

#[test]
fn it_shows_every_key_of_every_way_to_reach_a_receiver() {
    let shown: toml::Table = toml::from_str(&uncommented()).unwrap();
    for way in WAYS {
        let keys = keys_of(&format!("[[receivers]]\nname = \"x\"\n[receivers.{way}]"));
        assert!(!keys.is_empty(), "{way} names no keys");
        // The file explains once that `url_env` replaces `url`, not for every receiver.
        for key in keys.iter().filter(|key| !matches!(key.as_str(), "url" | "url_env")) {
            let section = format!("[[receivers.{way}]]");
            assert!(shows(&shown, &section, key), "deploy/watchbook.toml does not show `{key}` of `{way}`");
        }
    }
}

/// Returns the file with every commented-out setting enabled. Prose has a space after its `#`.
fn uncommented() -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => format!("{setting}\n"),
        _ => format!("{line}\n"),
    };
    SHIPPED.lines().map(line).collect()
}

/// Returns the keys of a section, as listed by the error about an unknown key.
fn keys_of(section: &str) -> Vec<String> {
    let wrong: Result<Config, _> = toml::from_str(&format!("{section}\nno_such_key = 0\n"));
    let message = wrong.unwrap_err().message().to_owned();
    let Some((_, expected)) = message.split_once("expected ") else { return Vec::new() };
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn shows(shown: &toml::Table, section: &str, key: &str) -> bool {
    let path: Vec<_> = section.trim_matches(['[', ']']).split('.').filter(|part| !part.is_empty()).collect();
    let mut places = vec![shown];
    for part in path {
        places = places
            .into_iter()
            .filter_map(|table| table.get(part))
            .flat_map(|value| match value {
                toml::Value::Table(table) => vec![table],
                toml::Value::Array(tables) => tables.iter().filter_map(toml::Value::as_table).collect(),
                _ => Vec::new(),
            })
            .collect();
    }
    places.iter().any(|table| table.contains_key(key))
}
