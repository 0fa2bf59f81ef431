//! JSON Schemas of the published records, generated from the types.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::Kind;

/// Returns the schema of a type, with every definition inlined.
pub(crate) fn own<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    SchemaGenerator::new(settings).into_root_schema_for::<T>()
}

/// Returns the schema of a published record: the fields of the kind and the common ones, in snake_case.
pub(crate) fn of(kind: Kind) -> Value {
    let mut schema = Map::new();
    if let Value::Object(own) = (kind.spec().schema)().to_value() {
        schema = own; // includes keywords beside `properties`, such as `allOf`
    }
    let required = schema.remove("required").unwrap_or_else(|| json!([]));
    let mut properties = common();
    if let Some(Value::Object(own)) = schema.remove("properties") {
        properties.extend(own);
    }
    for (name, property) in &mut properties {
        allow_any_case(property);
        // The decoder treats null as an absent field, so only required fields may not be null.
        if !required.as_array().is_some_and(|required| required.iter().any(|required| required == name)) {
            allow_null(property);
        }
    }
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!(format!("watchbook {kind} record")));
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("properties".to_owned(), Value::Object(properties));
    schema.insert("required".to_owned(), required);
    schema.insert("additionalProperties".to_owned(), json!(true));
    Value::Object(schema)
}

/// Returns a schema that accepts a few words in upper or lower case. The regular expressions of JSON Schema (ECMA-262)
/// have no flag for that.
pub(crate) fn words<'w>(description: &str, words: impl Iterator<Item = &'w str>) -> Value {
    let any_case = |word: &str| -> String {
        word.chars()
            .map(|c| match c.is_ascii_alphabetic() {
                true => format!("[{}{}]", c.to_ascii_uppercase(), c.to_ascii_lowercase()),
                false => c.to_string(),
            })
            .collect()
    };
    let pattern = words.map(any_case).collect::<Vec<_>>().join("|");
    json!({ "type": "string", "pattern": format!("^(?:{pattern})$"), "description": description })
}

/// Accepts the words of a closed list in any case, as the decoder does.
fn allow_any_case(property: &mut Value) {
    if let Some(Value::Array(nested)) = property.get_mut("anyOf") {
        nested.iter_mut().for_each(allow_any_case);
    }
    let Some(choices) = property.get("oneOf").and_then(Value::as_array) else { return };
    let listed: Vec<_> = choices.iter().filter_map(|choice| choice["const"].as_str()).collect();
    if listed.is_empty() {
        return;
    }
    let any_case = words("The same words in any case.", listed.into_iter());
    if let Some(property) = property.as_object_mut()
        && let Some(choices) = property.remove("oneOf")
    {
        property.insert("anyOf".to_owned(), json!([{ "oneOf": choices }, any_case]));
    }
}

/// Lets a property be null.
fn allow_null(property: &mut Value) {
    if let Some(Value::String(one)) = property.get("type") {
        property["type"] = json!([one, "null"]);
    }
    if let Some(Value::Array(words)) = property.get_mut("enum")
        && !words.contains(&Value::Null)
    {
        words.push(Value::Null);
    }
    for any in ["oneOf", "anyOf"] {
        let null = json!({ "type": "null" });
        if let Some(Value::Array(choices)) = property.get_mut(any)
            && !choices.contains(&null)
        {
            choices.push(null);
        }
    }
}

/// RFC 3339 and its variants that the decoder accepts. The format `date-time` would refuse `+0000`.
const TIME_PATTERN: &str =
    r"^\s*\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}([.,]\d+)?\s*([Zz]|UTC|GMT|[+-]\d{2}(:?\d{2})?)\s*$";

fn common() -> Map<String, Value> {
    let fields = json!({
        "id": {
            "type": "string", "minLength": 1, "maxLength": crate::limits::ID_BYTES,
            "description": "UUID, preferably version 7. Any other string becomes a UUIDv5 of it. Absent: derived from the message's position in its stream."
        },
        "organization_id": {
            "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$",
            "description": "Must be the subject's organization if present."
        },
        "created_at": {
            "type": "string", "pattern": TIME_PATTERN,
            "description": "Time of the record, in RFC 3339 with an offset; stored in microseconds. Absent: the time in a UUIDv7 id, else the stream's."
        },
        "timestamp": { "type": "string", "pattern": TIME_PATTERN, "description": "Alias, used if created_at is absent." },
        "source": { "type": "string", "maxLength": crate::limits::TEXT_BYTES, "description": "Name of the publisher." },
        "attributes": { "description": "Fields that the contract does not define. Unknown fields of the record are added to them." }
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
