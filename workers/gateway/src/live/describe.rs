//! The OpenAPI description of a kind's live stream.

use records::Kind;
use serde_json::{Value, json};

use super::field::fields;
use crate::openapi::problem;

/// Returns the path and the OpenAPI operation of a kind.
pub(crate) fn describe(kind: Kind) -> (String, Value) {
    let mut parameters = vec![
        json!({
            "name": "Last-Event-ID", "in": "header", "required": false, "schema": { "type": "string", "pattern": "^[A-Za-z0-9_-]{43}$" },
            "description": "Continues after the event with this id; browsers send it when they reconnect. Any id from a \
                live stream of this kind is valid, of any caller and any gateway; other values are rejected.",
        }),
        json!({
            "name": "organization_id", "in": "query", "required": false,
            "schema": { "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" },
            "description": "Returns only records of this organization. One that the caller may not see has no records.",
        }),
    ];
    parameters.extend(fields(kind).iter().map(|field| {
        json!({
            "name": field.name(), "in": "query", "required": false, "schema": field.schema(),
            "description": format!("Returns only records whose stored `{}` matches, defaults included.", field.name()),
        })
    }));
    let description = "Each event has an `id`, an opaque position for `Last-Event-ID`, and one line of JSON as data: \
        `subject`, `organization_id`, `received_at`, and the `record` as it was published. Records that become dead \
        letters are not sent. An event `gap` means that the stream no longer holds records that may have matched. \
        `first` and `last` are their sequences if the caller sees all organizations, and null otherwise. A `gap` \
        without an `id` means that the stream was recreated or truncated. An event `lost` means that `count` matching \
        events were dropped because the reader was slow; reconnect with the id of the event before it to receive \
        them. A comment is sent as a heartbeat when there are no events. The stream ends when the token expires, and \
        when the server stops.";
    let operation = json!({
        "operationId": format!("live_{kind}"),
        "summary": format!("Stream {kind} as they arrive."),
        "description": description,
        "parameters": parameters,
        "responses": {
            "200": { "description": "Server-sent events.", "content": { "text/event-stream": { "schema": { "type": "string" } } } },
            "429": problem("Too many requests or live streams of this caller, or too many rejected tokens from its address; see Retry-After."),
            "503": problem("Too many live streams, or the JetStream stream does not respond; see Retry-After."),
        },
    });
    (format!("/api/live/{kind}"), operation)
}
