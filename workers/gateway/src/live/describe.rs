//! How watching a kind is described.

use records::Kind;
use serde_json::{Value, json};

use super::field::fields;
use crate::openapi::problem;

/// The path of a kind, and its operation.
pub(crate) fn describe(kind: Kind) -> (String, Value) {
    let mut parameters = vec![
        json!({
            "name": "Last-Event-ID", "in": "header", "required": false, "schema": { "type": "string", "pattern": "^[A-Za-z0-9_-]{43}$" },
            "description": "Go on behind the event of this id, as browsers do by themselves. An id is what came as one \
                in a live answer of this kind, whoever it was for, and of whichever gateway; anything else is refused.",
        }),
        json!({
            "name": "organization_id", "in": "query", "required": false,
            "schema": { "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" },
            "description": "Of this organization alone. One that the caller may not see has nothing.",
        }),
    ];
    parameters.extend(fields(kind).iter().map(|field| {
        json!({
            "name": field.name(), "in": "query", "required": false, "schema": field.schema(),
            "description": format!("Only records that will be stored with this `{}`.", field.name()),
        })
    }));
    let description = "Each event has an `id`, which means nothing but where to go on, and as data one line of JSON: \
        `subject`, `organization_id`, `received_at` and the `record` as it was published; what will become a dead \
        letter is left out. An event `gap` tells that \
        the stream does not hold records any more that may have been for this reader; `first` and `last` are their \
        sequences for who sees all organizations, and null for others. A `gap` without an `id` tells that the stream \
        began anew. An event `lost` tells how many events for this reader were left out because it was slow \
        (`count`); with the id of the event before it they are had again. A comment is sent when nothing else is. \
        The answer ends when the token expires, and when the server stops.";
    let operation = json!({
        "operationId": format!("live_{kind}"),
        "summary": format!("Watch {kind} as they come."),
        "description": description,
        "parameters": parameters,
        "responses": {
            "200": { "description": "Server-sent events.", "content": { "text/event-stream": { "schema": { "type": "string" } } } },
            "429": problem("Too many requests or live answers of this caller, or refused tokens from its address; see Retry-After."),
            "503": problem("Too many live answers, or the stream does not answer; see Retry-After."),
        },
    });
    (format!("/api/live/{kind}"), operation)
}
