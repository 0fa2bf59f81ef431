//! The OpenAPI document: the parts that all operations share, and those that no handler describes.

use std::collections::BTreeSet;

use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::{MethodRouter, get};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use records::Kind;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use utoipa::openapi::schema::Type;
use utoipa::openapi::{Object, ObjectBuilder};
use utoipa::{PartialSchema, ToSchema};

use crate::auth::Access;
use crate::problem::{Fault, ProblemBody};

/// Adds the required role of an operation, and the responses that all operations share.
pub(crate) fn with_common_answers(mut operation: Value, access: Access) -> Value {
    let mut add = |status: &str, description: &str| {
        let answers = &mut operation["responses"];
        if answers.get(status).is_none() {
            answers[status] = problem(description);
        }
    };
    add("400", "Parameters, headers or the body are not valid; `errors` names them.");
    add("500", "An error of the server; `request_id` identifies the request in its log.");
    add("503", "Temporarily unavailable; see Retry-After.");
    add("default", "Any other problem, in the same form.");
    if let Access::AtLeast(role) = access {
        add("401", "The token is missing or not valid.");
        add("403", "The token's role is not sufficient, or the request comes from a page of another site.");
        add("429", "Too many requests by this caller, or too many rejected tokens from its address; see Retry-After.");
        operation["security"] = json!([{ "bearer": [] }, { "session": [] }]);
        operation["x-role"] = json!(role.name());
    } else {
        operation["security"] = json!([]);
    }
    operation
}

/// Returns a response with problem details.
pub(crate) fn problem(description: &str) -> Value {
    json!({
        "description": description,
        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
    })
}

/// Assembles the document.
pub(crate) fn document(paths: Map<String, Value>, mut schemas: Map<String, Value>) -> Value {
    require_members_of_answers(&paths, &mut schemas);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Watchbook",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": "Publishes records, and queries stored records, alerts and retention.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
                "session": { "type": "apiKey", "in": "cookie", "name": "watchbook_session" },
            },
        },
    })
}

/// Marks all members of the schemas of successful responses as required, including those that may be null: responses
/// omit none. The derived schemas mark only members that are never null.
fn require_members_of_answers(paths: &Map<String, Value>, schemas: &mut Map<String, Value>) {
    let operations = paths.values().filter_map(Value::as_object).flat_map(Map::values);
    let answers = operations.filter_map(|operation| operation["responses"].as_object()).flatten();
    let mut names = Vec::new();
    for (_, answer) in answers.filter(|(status, _)| status.starts_with('2')) {
        add_references(answer, &mut names);
    }
    let mut seen = BTreeSet::new();
    while let Some(name) = names.pop() {
        // Schemas of records describe what may be published, where members are optional.
        let is_record = Kind::ALL.iter().any(|kind| kind.name() == name);
        let Some(schema) = schemas.get_mut(&name).filter(|_| !is_record && seen.insert(name)) else { continue };
        require_members(schema);
        add_references(schema, &mut names);
    }
}

/// Marks all members of a schema and its nested schemas as required.
fn require_members(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if let Some(properties) = members.get("properties").and_then(Value::as_object) {
                let names = properties.keys().cloned().collect();
                members.insert("required".to_owned(), names);
            }
            members.values_mut().for_each(require_members);
        }
        Value::Array(items) => items.iter_mut().for_each(require_members),
        _ => {}
    }
}

/// Adds the names of the schemas to which a value refers.
fn add_references(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            let reference = members.get("$ref").and_then(Value::as_str);
            names.extend(reference.and_then(|to| to.strip_prefix("#/components/schemas/")).map(str::to_owned));
            members.values().for_each(|value| add_references(value, names));
        }
        Value::Array(items) => items.iter().for_each(|value| add_references(value, names)),
        _ => {}
    }
}

/// Returns the schema of a string that is one of these names.
pub(crate) fn one_of(names: impl Iterator<Item = &'static str>) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).build()
}

/// Serves the document, or 304 if `If-None-Match` names the current one.
pub(crate) fn serve(document: String) -> MethodRouter {
    let hash = Sha256::digest(&document);
    // The tag is weak because it also applies to the compressed document.
    let tag = format!("W/\"{}\"", URL_SAFE_NO_PAD.encode(hash.get(..16).unwrap_or(&hash)));
    let document = Bytes::from(document);
    get(async move |headers: HeaderMap| {
        let has_it = headers.get_all(header::IF_NONE_MATCH).iter().any(|tags| names(tags.as_bytes(), tag.as_bytes()));
        let (status, body) = if has_it { (StatusCode::NOT_MODIFIED, Bytes::new()) } else { (StatusCode::OK, document) };
        let about = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")];
        (status, about, [(header::ETAG, tag)], body)
    })
}

/// Returns whether `If-None-Match` lists the tag, or is `*` (RFC 9110, section 13.1.2).
fn names(tags: &[u8], tag: &[u8]) -> bool {
    tags.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|named| named == tag || named == b"*")
}

/// Returns the operation that serves the document itself.
pub(crate) fn of_document() -> Value {
    json!({
        "operationId": "openapi",
        "summary": "Return this document.",
        "responses": {
            "200": { "description": "The document.", "content": { "application/json": { "schema": { "type": "object" } } } },
            "304": { "description": "The document is the one that `If-None-Match` names." },
        },
    })
}

/// Returns the schemas to which every operation refers.
pub(crate) fn own_schemas() -> Map<String, Value> {
    let own = [(ProblemBody::name(), ProblemBody::schema()), (Fault::name(), Fault::schema())];
    own.into_iter().filter_map(|(name, schema)| Some((name.into_owned(), serde_json::to_value(schema).ok()?))).collect()
}

/// Returns the schema of a kind's records, as in `deploy/schemas`.
pub(crate) fn schema_of(kind: Kind) -> Value {
    let mut schema = kind.schema();
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("$schema");
        schema.remove("$id");
    }
    schema
}
