//! How watching a kind is described.

use records::Kind;
use serde_json::{Value, json};

use super::wanted::fields;
use crate::openapi::problem;

/// The path of a kind, and its operation.
pub(crate) fn describe(kind: Kind) -> (String, Value) {
    let mut parameters = vec![
        json!({
            "name": "Last-Event-ID", "in": "header", "required": false, "schema": { "type": "string", "pattern": "^[0-9]+$" },
            "description": "Go on behind the event of this id, as browsers do by themselves.",
        }),
        json!({
            "name": "organization_id", "in": "query", "required": false,
            "schema": { "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" },
            "description": "Of this organization alone. One that the caller may not see has nothing.",
        }),
    ];
    parameters.extend(fields(kind).iter().map(|name| {
        json!({
            "name": name, "in": "query", "required": false, "schema": { "type": "string", "minLength": 1, "maxLength": 256 },
            "description": format!("Only records whose `{name}` is written so."),
        })
    }));
    let description = "Each event has the stream's sequence as its `id`, and as data one line of JSON: `subject`, \
        `organization_id`, `sequence`, `received_at` and the `record` as it was published. An event `gap` (`first`, \
        `last`) tells what the stream does not hold any more, an event `lost` (`count`, `first`, `last`) how many \
        events were left out because the reader was slow. A comment is sent when nothing else is. The answer ends \
        when the token expires, and when the server stops.";
    let operation = json!({
        "operationId": format!("live_{kind}"),
        "summary": format!("Watch {kind} as they come."),
        "description": description,
        "parameters": parameters,
        "responses": {
            "200": { "description": "Server-sent events.", "content": { "text/event-stream": { "schema": { "type": "string" } } } },
            "429": problem("Too many requests or live answers of this caller; see Retry-After."),
            "503": problem("Too many live answers, or the stream does not answer; see Retry-After."),
        },
    });
    (format!("/api/live/{kind}"), operation)
}
