//! How posting a kind is described.

use records::Kind;
use serde_json::{Value, json};

use super::form::{CLOUDEVENT, CLOUDEVENTS};
use crate::openapi::problem;

/// The path of a kind, and its operation.
pub(crate) fn describe(kind: Kind) -> (String, Value) {
    let record = json!({ "$ref": format!("#/components/schemas/{kind}") });
    let event = json!({
        "type": "object",
        "description": "A CloudEvent. `id` and `time` become those of the record, and `type` the `event_type` of an event.",
        "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": { "type": "string", "const": "1.0" },
            "id": { "type": "string", "minLength": 1 },
            "source": { "type": "string", "minLength": 1 },
            "type": { "type": "string", "minLength": 1 },
            "time": { "type": "string", "format": "date-time" },
            "data": { "type": "object", "description": "The record." },
            "data_base64": { "type": "string", "contentEncoding": "base64", "description": "The record, encoded." },
        },
    });
    let header = |name: &str, description: &str, schema: Value| json!({ "name": name, "in": "header", "required": false, "description": description, "schema": schema });
    let operation = json!({
        "operationId": format!("post_{kind}"),
        "summary": format!("Publish {kind}: one record, an array, or one a line."),
        "description": "Answered once JetStream has acknowledged all. Where one record is not valid, nothing is published. \
            The body may be compressed (`Content-Encoding: gzip` or `zstd`) and is bounded by what it unpacks to. One record \
            a line may be called `application/ndjson`, `application/x-jsonl`, `application/jsonlines` and \
            `application/x-jsonlines` as well. CloudEvents 1.0 are taken in all modes of their HTTP binding: structured, \
            batched, and binary, where the body is the record and the headers `ce-specversion: 1.0`, `ce-id`, `ce-source`, \
            `ce-type` and others are the rest of the event.",
        "parameters": [
            header("X-Organization", "Whose records these are; needed where the token names several organizations.",
                json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" })),
            header("Idempotency-Key", "Makes the same request sent again within 24 hours harmless.",
                json!({ "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x21-\\x7e]+$" })),
        ],
        "requestBody": { "required": true, "content": {
            "application/json": { "schema": { "anyOf": [record, { "type": "array", "items": record, "minItems": 1 }] } },
            "application/x-ndjson": { "schema": { "type": "string" } },
            "application/jsonl": { "schema": { "type": "string" } },
            CLOUDEVENT: { "schema": event },
            CLOUDEVENTS: { "schema": { "type": "array", "items": event, "minItems": 1 } },
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
            "415": problem("The body is of a type, or compressed in a way, that is not taken: `errors` names the header."),
            "422": problem("The Idempotency-Key came with another body before."),
        },
    });
    (format!("/api/{kind}"), operation)
}
