//! The labels and levels of roll-ups: what rules can group by, filter on and measure.

use records::Kind;
use records::rollup::{Column, ORGANIZATION};

/// The alert label that holds the rule's name, as in Alertmanager.
pub const ALERTNAME: &str = "alertname";
/// The alert label that holds the severity.
pub const SEVERITY: &str = "severity";
/// The suffix of a label that may be omitted in the configuration.
const ID: &str = "_id";

/// Returns the kinds that rules can watch.
pub fn watched_kinds() -> impl Iterator<Item = Kind> {
    // Directory records only map ids to names, which is no reason for an alert.
    Kind::ALL.iter().copied().filter(|kind| *kind != Kind::Directory)
}

/// Returns the labels in the roll-ups of a kind, the organization first.
pub fn labels_of(kind: Kind) -> impl Iterator<Item = &'static str> {
    std::iter::once(ORGANIZATION).chain(kind.spec().labels.iter().map(|column| column.name()))
}

/// Returns the levels measured in the roll-ups of a kind.
pub fn levels_of(kind: Kind) -> impl Iterator<Item = &'static str> {
    kind.spec().levels.iter().map(|column| column.name())
}

/// Resolves a name, with or without `_id`, to the label of a kind.
pub fn canonical(kind: Kind, name: &str) -> Option<&'static str> {
    labels_of(kind).find(|label| is_named(label, name))
}

/// Checks whether a name refers to a label: it is the label's name, with or without `_id`.
pub fn is_named(label: &str, name: &str) -> bool {
    label == name || label.strip_suffix(ID) == Some(name)
}

/// Checks whether a label has only the values `true` and `false`.
pub fn is_boolean(kind: Kind, label: &str) -> bool {
    kind.spec().labels.iter().any(|column| matches!(column, Column::Boolean(name) if *name == label))
}

/// Checks whether receivers accept the text as a label name: `[a-zA-Z_][a-zA-Z0-9_]*`, as in Prometheus.
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
