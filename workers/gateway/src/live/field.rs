//! The filter fields of live streams: their query parameters, and their contents in a record as it is stored.

use std::fmt;

use records::audit::Address;
use records::{Kind, row};
use serde_json::json;

use crate::query::Parameters;

/// A filter field of a kind: its name, which is its column's name, and its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// Any text.
    Text(&'static str),
    /// One of these texts.
    OneOf(&'static str, &'static [&'static str]),
    /// True or false.
    Flag(&'static str),
    /// An IP address. The parameter may be a network.
    Address(&'static str),
}

/// The content of a field in a record, or the value of its parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    Text(String),
    Flag(bool),
    Address(Address),
}

/// Returns the filter fields of a kind, the same as those of its list.
pub(super) const fn fields(kind: Kind) -> &'static [Field] {
    use Field::{Address, Flag, OneOf, Text};
    match kind {
        Kind::Events => &[Text("project_id"), Text("run_id"), Text("user_id"), Text("event_type")],
        Kind::Errors => &[
            Text("trace_id"),
            Text("project_id"),
            Text("run_id"),
            Text("error_type"),
            OneOf("severity", &["warning", "error", "critical"]),
            Text("endpoint"),
        ],
        Kind::Metrics => &[Text("container_id")],
        Kind::Logs => &[Text("container_id"), OneOf("stream", &["stdout", "stderr"])],
        Kind::Audit => &[
            Text("actor_id"),
            OneOf("actor_type", &["user", "system", "api_key"]),
            Text("action"),
            Text("target_type"),
            Text("target_id"),
            OneOf("status", &["SUCCESS", "FAILURE"]),
            Address("ip_address"),
        ],
        Kind::Executions => &[
            Text("user_id"),
            Text("strategy_id"),
            OneOf("execution_type", &["VALIDATION", "TERMINAL"]),
            Flag("success"),
        ],
        Kind::Directory => {
            &[OneOf("entity", &["user", "organization", "project", "run", "strategy", "container"]), Text("entity_id")]
        }
    }
}

impl Field {
    /// Returns the name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Text(name) | Self::OneOf(name, _) | Self::Flag(name) | Self::Address(name) => name,
        }
    }

    /// Reads the parameter of the field.
    pub(super) fn read(self, parameters: &mut Parameters) -> Option<Content> {
        match self {
            Self::Text(name) => parameters.text(name).map(Content::Text),
            Self::OneOf(name, texts) => parameters.one_of(name, texts).map(|text| Content::Text(text.to_owned())),
            Self::Flag(name) => parameters.flag(name).map(Content::Flag),
            Self::Address(name) => parameters.address(name).map(Content::Address),
        }
    }

    /// Decodes the content of the field from its column in an encoded row.
    pub(super) fn content(self, value: &[u8]) -> Option<Content> {
        match self {
            Self::Text(_) | Self::OneOf(..) => {
                std::str::from_utf8(value).ok().map(|text| Content::Text(text.to_owned()))
            }
            Self::Flag(_) => Some(Content::Flag(value != [0])),
            Self::Address(_) => row::inet(value).map(|(ip, prefix_bits)| Content::Address(Address { ip, prefix_bits })),
        }
    }

    /// Returns the JSON Schema of the parameter.
    pub(super) fn schema(self) -> serde_json::Value {
        match self {
            Self::Text(_) => json!({ "type": "string", "minLength": 1, "maxLength": 256 }),
            Self::OneOf(_, texts) => json!({ "type": "string", "enum": texts }),
            Self::Flag(_) => json!({ "type": "boolean" }),
            Self::Address(_) => json!({ "type": "string", "minLength": 2, "maxLength": 64 }),
        }
    }
}

impl Content {
    /// Returns whether this parameter value matches the content of a record. A network matches the addresses and
    /// networks in it.
    pub(super) fn admits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Address(network), Self::Address(address)) => network.holds(address),
            _ => self == other,
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Flag(flag) => flag.fmt(f),
            Self::Address(Address { ip, prefix_bits }) => write!(f, "{ip}/{prefix_bits}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_a_column() {
        for kind in Kind::ALL {
            for field in fields(*kind) {
                assert!(kind.columns().any(|column| column == field.name()), "{kind} {field:?}");
            }
        }
    }

    #[test]
    fn a_network_admits_what_lies_in_it() {
        let content = |text: &str| Content::Address(Address::parse(text).unwrap());
        for (asked, has, is_admitted) in [
            ("10.0.0.7", "10.0.0.7", true),
            ("10.0.0.0/8", "10.9.9.9", true),
            ("10.0.0.0/8", "10.1.0.0/16", true),
            ("10.1.0.0/16", "10.0.0.0/8", false),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
        ] {
            assert_eq!(content(asked).admits(&content(has)), is_admitted, "{has} by {asked}");
        }
    }
}
