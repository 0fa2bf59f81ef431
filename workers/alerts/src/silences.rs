//! Silences and acknowledgements: conversions from and to their rows.

pub use alerting::acknowledgement::Acknowledgement;
use alerting::silence::Silence;
use chrono::{DateTime, Utc};
use serde_json::Value;
use store::silences::SilenceRow;

/// Converts a row to a silence. Returns `None` if a newer version wrote a form that this version cannot read. Then
/// alerts are not silenced, which is the safe choice.
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

/// Converts a silence to a row.
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

/// Returns when an acknowledgement expires; `None` if it holds until the alert ends.
pub(crate) fn acknowledged_until(note: &Value) -> Option<DateTime<Utc>> {
    serde_json::from_value::<Acknowledgement>(note.clone()).ok().and_then(|acknowledgement| acknowledgement.until)
}
