//! How posting a kind is described.

use records::Kind;
use serde_json::{Value, json};

use crate::openapi::problem;

/// The path of a kind, and its operation.
pub(crate) fn describe(kind: Kind) -> (String, Value) {
    let record = json!({ "$ref": format!("#/components/schemas/{kind}") });
    let header = |name: &str, description: &str, schema: Value| json!({ "name": name, "in": "header", "required": false, "description": description, "schema": schema });
    let operation = json!({
        "operationId": format!("post_{kind}"),
        "summary": format!("Publish {kind}: one record, an array, or one a line."),
        "description": "Answered once JetStream has acknowledged all. Where one record is not valid, nothing is published.",
        "parameters": [
            header("X-Organization", "Whose records these are; needed where the token names several organizations.",
                json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" })),
            header("Idempotency-Key", "Makes the same request sent again within 24 hours harmless.",
                json!({ "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x21-\\x7e]+$" })),
        ],
        "requestBody": { "required": true, "content": {
            "application/json": { "schema": { "anyOf": [record, { "type": "array", "items": record, "minItems": 1 }] } },
            "application/x-ndjson": { "schema": { "type": "string" } },
        } },
        "responses": {
            "202": { "description": "JetStream has acknowledged all.", "content": { "application/json": { "schema": {
                "type": "object", "required": ["accepted", "ids"], "properties": {
                    "accepted": { "type": "integer", "minimum": 1 },
                    "ids": { "type": "array", "items": { "type": "string", "format": "uuid" } },
                },
            } } } },
            "400": problem("Records are not valid: each is named in `errors`. Nothing was published."),
            "413": problem("The body or a record is too large, or there are more than 10,000 of them."),
            "415": problem("The body is of a type that is not taken."),
            "422": problem("The Idempotency-Key came with another body before."),
        },
    });
    (format!("/api/{kind}"), operation)
}
