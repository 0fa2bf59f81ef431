//! The published JSON Schemas: they are current, and accept what the decoder accepts.

use std::path::Path;

use jsonschema::Validator;
use records::Kind;
use serde_json::{Map, Value};

use crate::support::lines;
use crate::support::property::camel_case;

fn validator(kind: Kind) -> Validator {
    let schema = kind.schema();
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap_or_else(|error| panic!("{kind}: {error}"))
}

/// Returns a fixture with its names in snake_case. The schema only describes these, because listing both spellings
/// would make it harder to read.
fn in_snake_case(kind: Kind, line: &str) -> Value {
    let record: Map<String, Value> = serde_json::from_str(line).unwrap();
    let schema = kind.schema();
    let names = schema["properties"].as_object().unwrap();
    let snake = |name: String| names.keys().find(|known| camel_case(known) == name).cloned().unwrap_or(name);
    record.into_iter().map(|(name, value)| (snake(name), value)).collect()
}

#[test]
fn the_committed_schemas_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/schemas");
    for &kind in Kind::ALL {
        let path = folder.join(format!("{kind}.json"));
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        // Compared as values: the order of members depends on features that other crates enable.
        let current = serde_json::from_str::<Value>(&committed).is_ok_and(|committed| committed == kind.schema());
        assert!(current, "{} is not current: cargo run -p records --example schemas", path.display());
    }
}

#[test]
fn the_schemas_are_schemas() {
    for &kind in Kind::ALL {
        jsonschema::meta::validate(&kind.schema()).unwrap_or_else(|error| panic!("{kind}: {error}"));
    }
}

#[test]
fn what_the_decoder_stores_the_schema_accepts() {
    for &kind in Kind::ALL {
        let validator = validator(kind);
        for line in lines(kind.spec().fixtures.accepted) {
            if let Err(error) = validator.validate(&in_snake_case(kind, line)) {
                panic!("{kind}: {error} at {} in {line}", error.instance_path());
            }
        }
    }
}

/// Returns whether a rejection cannot be expressed in JSON Schema.
fn is_beyond_schema(refused: &str, record: &Value) -> bool {
    // The pattern of addresses is an approximation.
    let looks_like_an_address = record["ip_address"].as_str().is_some_and(|text| text.contains(['.', ':']));
    // JSON Schema has no width of numbers, and the validator reads them as doubles.
    let is_number = |name: &str| record[name].is_number();
    match refused {
        "invalid_field:ip_address" => looks_like_an_address,
        "invalid_field:memory_usage_bytes" => is_number("memory_usage_bytes"),
        "invalid_field:network_rx_bytes" => is_number("network_rx_bytes"),
        _ => false,
    }
}

#[test]
fn what_the_decoder_refuses_for_its_shape_the_schema_refuses() {
    for &kind in Kind::ALL {
        let validator = validator(kind);
        for line in lines(kind.spec().fixtures.rejected) {
            let record = in_snake_case(kind, line);
            let expected = record["_expect"].as_str().unwrap();
            let of_shape =
                ["missing_field", "invalid_field", "too_large"].iter().any(|reason| expected.starts_with(reason));
            if of_shape && !is_beyond_schema(expected, &record) {
                assert!(!validator.is_valid(&record), "{kind}: the schema accepts {line}");
            }
        }
    }
}

#[test]
fn the_schema_describes_every_field_of_the_kind() {
    for &kind in Kind::ALL {
        let schema = kind.schema();
        for column in kind.fields().filter(|column| *column != "received_at") {
            let described = schema["properties"][column]["description"].as_str();
            assert!(described.is_some_and(|words| !words.is_empty()), "{kind} {column}");
        }
    }
}
