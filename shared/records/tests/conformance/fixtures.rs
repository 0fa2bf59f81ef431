//! The fixtures: each accepted one is stored, and each rejected one is rejected for the reason that it names.

use std::collections::BTreeSet;

use records::Kind;
use serde_json::Value;

use crate::support::{Sent, lines};

#[test]
fn every_accepted_fixture_is_stored() {
    for &kind in Kind::ALL {
        for line in lines(kind.spec().fixtures.accepted) {
            let sent = Sent::body(kind, line);
            sent.stored();
            sent.check();
        }
    }
}

#[test]
fn every_rejected_fixture_is_refused_with_its_reason_and_field() {
    for &kind in Kind::ALL {
        for line in lines(kind.spec().fixtures.rejected) {
            let record: Value = serde_json::from_str(line).unwrap();
            let expected = record["_expect"].as_str().unwrap_or_else(|| panic!("{kind}: no _expect in {line}"));
            let sent = Sent::body(kind, line);
            assert_eq!(sent.refused(), expected, "{kind}: {line}");
            sent.check();
        }
    }
}

#[test]
fn the_accepted_fixtures_fill_every_column() {
    for &kind in Kind::ALL {
        let rows: Vec<_> =
            lines(kind.spec().fixtures.accepted).map(|line| Sent::body(kind, line).stored().row).collect();
        for column in kind.columns() {
            assert!(rows.iter().any(|row| !row.is_null(column)), "{kind}: no accepted fixture has a {column}");
        }
    }
}

#[test]
fn the_rejected_fixtures_refuse_every_field_somewhere() {
    for &kind in Kind::ALL {
        let refused: BTreeSet<_> =
            lines(kind.spec().fixtures.rejected).map(|line| Sent::body(kind, line).refused()).collect();
        let set_by_us = ["received_at", "attributes"];
        for column in kind.fields().filter(|column| !set_by_us.contains(column)) {
            let field = format!(":{column}");
            assert!(refused.iter().any(|refused| refused.ends_with(&field)), "{kind}: nothing refuses a bad {column}");
        }
    }
}

#[test]
fn the_fixtures_of_every_kind_show_camel_case_and_nulls() {
    for &kind in Kind::ALL {
        let accepted = kind.spec().fixtures.accepted;
        let records: Vec<Value> = lines(accepted).map(|line| serde_json::from_str(line).unwrap()).collect();
        let members = || records.iter().filter_map(Value::as_object).flatten();
        let is_camel = |name: &str| name.bytes().any(|b| b.is_ascii_uppercase());
        assert!(members().any(|(name, _)| is_camel(name)), "{kind}: no accepted fixture is in camelCase");
        if kind != Kind::Logs {
            assert!(members().any(|(_, value)| value.is_null()), "{kind}: no accepted fixture has a null");
        }
    }
}
