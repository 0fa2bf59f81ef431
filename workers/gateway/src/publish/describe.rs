//! The OpenAPI description of publishing records of a kind.

use records::Kind;
use serde_json::{Value, json};

use super::form::{CLOUDEVENT, CLOUDEVENTS};
use crate::openapi::problem;

/// Returns the path and the OpenAPI operation of a kind.
pub(crate) fn describe(kind: Kind) -> (String, Value) {
    let record = json!({ "$ref": format!("#/components/schemas/{kind}") });
    let event = json!({
        "type": "object",
        "description": "A CloudEvent. `id` and `time` become `id` and `created_at` of the record; for events, `type` becomes `event_type`.",
        "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": { "type": "string", "const": "1.0" },
            "id": { "type": "string", "minLength": 1 },
            "source": { "type": "string", "minLength": 1 },
            "type": { "type": "string", "minLength": 1 },
            "time": { "type": "string", "format": "date-time" },
            "data": { "type": "object", "description": "The record." },
            "data_base64": { "type": "string", "contentEncoding": "base64", "description": "The record, base64-encoded." },
        },
    });
    let header = |name: &str, description: &str, schema: Value| json!({ "name": name, "in": "header", "required": false, "description": description, "schema": schema });
    let operation = json!({
        "operationId": format!("post_{kind}"),
        "summary": format!("Publish {kind}: one record, an array, or JSON lines."),
        "description": "Responds after JetStream has acknowledged all records. If a record is invalid, nothing is \
            published. The body may be compressed (`Content-Encoding: gzip` or `zstd`); the size limit also applies to \
            the decompressed body. For JSON lines, the media types `application/ndjson`, `application/x-jsonl`, \
            `application/jsonlines` and `application/x-jsonlines` are accepted as well. CloudEvents 1.0 are accepted in \
            all modes of the HTTP binding: structured, batched, and binary. In binary mode, the body is the record, and \
            the headers `ce-specversion: 1.0`, `ce-id`, `ce-source`, `ce-type` and others are the event's attributes.",
        "parameters": [
            header("X-Organization", "The organization of the records. Required if the token has several organizations. \
                Defaults to the token's only organization, or to none if the token has all (`*`).",
                json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" })),
            header("Idempotency-Key", "Makes retries safe: the same request with the same key within 24 hours publishes \
                the same records, which are stored once.",
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
            "202": { "description": "JetStream has acknowledged all records.", "content": { "application/json": { "schema": {
                "type": "object", "required": ["accepted", "ids"], "properties": {
                    "accepted": { "type": "integer", "minimum": 1 },
                    "ids": { "type": "array", "items": { "type": "string", "format": "uuid" } },
                },
            } } } },
            "400": problem("Records are invalid: `errors` names each one. Nothing was published."),
            "413": problem("The body or a record is too large, or there are more than 10,000 records."),
            "415": problem("The media type or the compression of the body is not supported: `errors` names the header."),
            "422": problem("The Idempotency-Key was used with another body before."),
        },
    });
    (format!("/api/{kind}"), operation)
}
