//! What people add to alerts: silences and acknowledgements, from and to their rows.

pub use alerting::acknowledgement::Acknowledgement;
use alerting::silence::Silence;
use chrono::{DateTime, Utc};
use serde_json::Value;
use store::silences::SilenceRow;

/// A silence as it is evaluated. `None` where a newer version wrote what this one cannot read: then the alert is
/// told, which is the safe side.
pub fn silence_from_row(row: SilenceRow) -> Option<Silence> {
    let matchers = serde_json::from_value(row.matchers).ok()?;
    let recurrence = match row.recurrence {
        Some(recurrence) => Some(serde_json::from_value(recurrence).ok()?),
        None => None,
    };
    Some(Silence {
        id: row.id,
        matchers,
        starts_at: row.starts_at,
        ends_at: row.ends_at,
        recurrence,
        created_by: row.created_by,
        reason: row.reason,
        ended_at: row.ended_at,
    })
}

/// A silence as it is stored.
pub fn row_from_silence(silence: &Silence, created_at: DateTime<Utc>) -> SilenceRow {
    SilenceRow {
        id: silence.id,
        matchers: serde_json::to_value(&silence.matchers).unwrap_or_default(),
        starts_at: silence.starts_at,
        ends_at: silence.ends_at,
        recurrence: silence.recurrence.as_ref().map(|recurrence| serde_json::to_value(recurrence).unwrap_or_default()),
        created_by: silence.created_by.clone(),
        reason: silence.reason.clone(),
        created_at,
        ended_at: silence.ended_at,
    }
}

/// Until when an acknowledgement holds; `None` until the alert is over.
pub(crate) fn acknowledged_until(note: &Value) -> Option<DateTime<Utc>> {
    serde_json::from_value::<Acknowledgement>(note.clone()).ok().and_then(|acknowledgement| acknowledgement.until)
}
