//! Bodies of every kind, as any producer may write them: plain JSON, without the types of this repository.

use std::sync::OnceLock;

use chrono::{DateTime, SecondsFormat, SubsecRound, TimeDelta, Utc};
use records::Kind;
use serde_json::{Value, json};
use uuid::Uuid;

/// Part of every body made here, so that a body in a log is noticed.
pub const MARKER: &str = "body-that-no-log-may-hold";

/// Returns the time of record 0, shortly before the first call in this process. Record `n` follows `n` microseconds
/// later.
pub fn base_time() -> DateTime<Utc> {
    static BASE: OnceLock<DateTime<Utc>> = OnceLock::new();
    *BASE.get_or_init(|| (Utc::now() - TimeDelta::seconds(1)).trunc_subsecs(6))
}

/// Formats a time as in a record.
pub fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Returns the id of record `n`.
pub fn id(n: u64) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &n.to_be_bytes())
}

/// Returns the time of record `n`.
pub fn created_at(n: u64) -> DateTime<Utc> {
    base_time() + TimeDelta::microseconds(i64::try_from(n).expect("a small number"))
}

/// Returns record `n` of a kind. It is the same on every call.
pub fn record(kind: Kind, n: u64) -> Value {
    let mut body = json!({ "id": id(n), "created_at": time(created_at(n)), "n": n, "marker": MARKER });
    let own = match kind {
        Kind::Events => json!({ "event_type": "test.event", "payload": { "n": n, "text": MARKER } }),
        Kind::Errors => json!({ "trace_id": format!("trace-{n}"), "error_type": "TestError", "message": MARKER }),
        Kind::Metrics => json!({ "container_id": "c-1", "cpu_usage_percent": 12.5, "memory_usage_bytes": n }),
        Kind::Logs => json!({ "container_id": "c-1", "stream": "stdout", "message": MARKER }),
        Kind::Audit => {
            json!({ "actor_id": "u-1", "actor_type": "user", "action": "test.run", "target_type": "run",
                    "target_id": format!("r-{n}"), "reason": MARKER })
        }
        Kind::Executions => {
            json!({ "user_id": "u-1", "strategy_id": "s-1", "execution_type": "VALIDATION", "success": !n.is_multiple_of(3),
                    "execution_time_ms": n })
        }
        Kind::Directory => {
            json!({ "entity": "user", "entity_id": format!("u-{n}"), "name": MARKER, "email": "u@example.com" })
        }
    };
    with(&mut body, own);
    body
}

/// Returns record `n` of the events.
pub fn event(n: u64) -> Value {
    record(Kind::Events, n)
}

/// Returns record `n` of the events with additional members.
pub fn event_with(n: u64, members: Value) -> Value {
    let mut body = event(n);
    with(&mut body, members);
    body
}

/// Sets members of an object.
pub fn with(body: &mut Value, members: Value) {
    let (Value::Object(body), Value::Object(members)) = (body, members) else { panic!("two objects are needed") };
    body.extend(members);
}

/// Returns a record that passes all checks of the decoder but is rejected by Postgres, after
/// [`World::refuse_poison`](crate::World::refuse_poison) has added a constraint to the table.
pub fn poison(kind: Kind, n: u64) -> Value {
    let mut poison = record(kind, n);
    poison["poison"] = json!(true);
    poison
}
