//! JSON Schema of what is published, generated from the types.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::Kind;

/// The schema of a type's own fields, with every definition inlined.
pub(crate) fn own<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    SchemaGenerator::new(settings).into_root_schema_for::<T>()
}

/// The schema of a published record: the kind's own fields and the common ones.
pub(crate) fn of(kind: Kind) -> Value {
    let mut schema = Map::new();
    let mut own = (kind.spec().schema)().to_value();
    let mut take = |key: &str| own.as_object_mut().and_then(|own| own.remove(key));
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!(format!("watchbook {kind} record")));
    schema.insert("description".to_owned(), take("description").unwrap_or_default());
    schema.insert("type".to_owned(), json!("object"));
    let mut properties = common();
    if let Some(Value::Object(own)) = take("properties") {
        properties.extend(own);
    }
    schema.insert("properties".to_owned(), Value::Object(properties));
    schema.insert("required".to_owned(), take("required").unwrap_or_else(|| json!([])));
    schema.insert("additionalProperties".to_owned(), json!(true));
    Value::Object(schema)
}

fn common() -> Map<String, Value> {
    let fields = json!({
        "id": {
            "type": ["string", "null"], "minLength": 1, "maxLength": crate::limits::ID_BYTES,
            "description": "UUID, version 7 recommended; another string becomes a UUIDv5 of it. Absent: derived from the message's place in its stream."
        },
        "organization_id": {
            "type": ["string", "null"], "pattern": "^[A-Za-z0-9_-]{1,64}$",
            "description": "Must be the subject's organization where it is given."
        },
        "created_at": {
            "type": ["string", "null"], "format": "date-time",
            "description": "When it happened; microseconds are kept. Absent: the time inside a UUIDv7 id, else the stream's."
        },
        "timestamp": { "type": ["string", "null"], "format": "date-time", "description": "Stands for created_at where that is absent." },
        "source": { "type": ["string", "null"], "maxLength": crate::limits::TEXT_BYTES, "description": "Who published." },
        "attributes": { "description": "Whatever the contract has no field for; unknown fields of the record join it." }
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
