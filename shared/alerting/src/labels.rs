//! What roll-ups carry, and so what rules may group by, ask for and measure.

use records::Kind;
use records::rollup::{Column, ORGANIZATION};

/// An alert's label with the rule's name, as Alertmanager calls it.
pub const ALERTNAME: &str = "alertname";
/// An alert's label with its severity.
pub const SEVERITY: &str = "severity";
/// What the end of a label may be left out in the configuration.
const ID: &str = "_id";

/// Kinds that rules may watch.
pub fn watched_kinds() -> impl Iterator<Item = Kind> {
    // What ids mean is no news to anybody on call.
    Kind::ALL.iter().copied().filter(|kind| *kind != Kind::Directory)
}

/// The labels that the roll-ups of a kind carry, the organization first.
pub fn labels_of(kind: Kind) -> impl Iterator<Item = &'static str> {
    std::iter::once(ORGANIZATION).chain(kind.spec().labels.iter().map(|column| column.name()))
}

/// The levels that the roll-ups of a kind measure.
pub fn levels_of(kind: Kind) -> impl Iterator<Item = &'static str> {
    kind.spec().levels.iter().map(|column| column.name())
}

/// The label of a kind that a name means: its own, or that without `_id`.
pub fn canonical(kind: Kind, name: &str) -> Option<&'static str> {
    labels_of(kind).find(|label| is_named(label, name))
}

/// Whether a name means a label: it is its name, with or without `_id`.
pub fn is_named(label: &str, name: &str) -> bool {
    label == name || label.strip_suffix(ID) == Some(name)
}

/// Whether a label is `true` or `false` and nothing else.
pub fn is_boolean(kind: Kind, label: &str) -> bool {
    kind.spec().labels.iter().any(|column| matches!(column, Column::Boolean(name) if *name == label))
}

/// Whether receivers take text as the name of a label: `[a-zA-Z_][a-zA-Z0-9_]*`.
pub fn is_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_a_label_with_or_without_id() {
        for (kind, name, label) in [
            (Kind::Executions, "organization", Some("organization_id")),
            (Kind::Executions, "strategy_id", Some("strategy_id")),
            (Kind::Executions, "strategy", Some("strategy_id")),
            (Kind::Executions, "timed_out", Some("timed_out")),
            (Kind::Executions, "project", None),
            (Kind::Audit, "actor", Some("actor_id")),
            (Kind::Errors, "error_type_id", None),
            (Kind::Errors, "", None),
        ] {
            assert_eq!(canonical(kind, name), label, "{kind} {name}");
        }
        assert!(is_boolean(Kind::Executions, "timed_out") && !is_boolean(Kind::Executions, "user_id"));
    }

    #[test]
    fn label_names_are_what_prometheus_takes() {
        for (name, good) in [("a", true), ("_a9", true), ("9a", false), ("", false), ("a-b", false), ("ä", false)] {
            assert_eq!(is_label_name(name), good, "{name}");
        }
    }
}
