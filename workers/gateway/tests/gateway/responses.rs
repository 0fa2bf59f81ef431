//! Tests that responses match the OpenAPI document.

use std::collections::BTreeSet;

use gateway::auth::{Access, Role};
use serde_json::{Value, json};

use crate::sample_rows::{gateway_with_rows, viewer};

/// Returns a schema of the document, following its reference.
fn resolved<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

/// Checks a value against a schema: no additional members, none missing, and each of its type.
fn is_as_described(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let schema = resolved(document, schema);
    if let Some(some) = schema["oneOf"].as_array() {
        let told: Vec<_> = some.iter().map(|schema| is_as_described(document, schema, value, at)).collect();
        let fitting = told.iter().filter(|told| told.is_ok()).count();
        return if fitting == 1 { Ok(()) } else { Err(format!("{at}: {fitting} of {told:?}")) };
    }
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let types = schema["type"].as_array().cloned().unwrap_or_else(|| vec![schema["type"].clone()]);
    if !types.contains(&json!(is)) {
        return Err(format!("{at} is {is}, described as {types:?}"));
    }
    match value {
        Value::Array(items) => {
            items.iter().try_for_each(|item| is_as_described(document, &schema["items"], item, &format!("{at}[]")))
        }
        Value::Object(members) => {
            let Some(properties) = schema["properties"].as_object() else { return Ok(()) };
            let (known, found): (BTreeSet<_>, BTreeSet<_>) = (properties.keys().collect(), members.keys().collect());
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            if known != found || !required.eq(known.iter().copied()) {
                return Err(format!("{at} has {found:?}, described as {known:?}"));
            }
            let mut members = members.iter();
            members.try_for_each(|(name, value)| {
                is_as_described(document, &properties[name], value, &format!("{at}.{name}"))
            })
        }
        Value::String(_) if at.ends_with("_at") && schema["format"] != "date-time" => Err(format!("{at}: {schema}")),
        _ => Ok(()),
    }
}

#[tokio::test]
async fn answers_are_as_they_are_described() {
    let gateway = gateway_with_rows().await;
    let document = gateway.request("GET", "/api/openapi.json", &[], "").await.json();
    for (template, path) in [
        ("/api/events", "/api/events"),
        ("/api/errors", "/api/errors?limit=1"),
        ("/api/errors/{trace_id}", "/api/errors/trace%2F1"),
        ("/api/errors/groups", "/api/errors/groups"),
        ("/api/metrics", "/api/metrics?container_id=c"),
        ("/api/metrics", "/api/metrics?container_id=c&step=5m"),
        ("/api/metrics", "/api/metrics?container_id=none&step=5m"),
        ("/api/metrics", "/api/metrics?container_id=none"),
        ("/api/logs", "/api/logs?container_id=c"),
        ("/api/executions", "/api/executions"),
        ("/api/executions/stats", "/api/executions/stats"),
        ("/api/executions/stats", "/api/executions/stats?strategy_id=none"),
        ("/api/executions/trends", "/api/executions/trends"),
        ("/api/users/{id}/executions/stats", "/api/users/u/executions/stats"),
        ("/api/strategies/{id}/health", "/api/strategies/s+1/health"),
    ] {
        let route = gateway.routes.iter().find(|route| route.path == template && route.method == "GET").unwrap();
        assert_eq!(route.access, Access::AtLeast(Role::Viewer), "{template}");
        let schema = &document["paths"][template]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        let answer = gateway.answer(path, &viewer(&["acme"])).await;
        if let Err(wrong) = is_as_described(&document, schema, &answer, "answer") {
            panic!("{path}: {wrong}");
        }
    }
    gateway.finish().await;
}
