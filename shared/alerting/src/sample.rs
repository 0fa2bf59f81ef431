//! The input of an evaluation of one group.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The figures of a group's window, and the other inputs of checks. Each check uses only some of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Number of records in the window.
    pub total: u64,
    /// Number of records that failed, as defined by the rule.
    pub failed: u64,
    /// Number of samples of the level in the window.
    pub samples: u64,
    /// Sum of the samples.
    pub sum: f64,
    /// The highest sample; `None` without samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak: Option<f64>,
    /// Number of records in the same window in the past; `None` if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<u64>,
    /// When the group was first seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_seen_at: Option<DateTime<Utc>>,
    /// When the group was last seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<DateTime<Utc>>,
    /// How far ingest is behind; `None` if unknown. In milliseconds in JSON.
    #[serde(rename = "lag_ms", serialize_with = "write_ms", deserialize_with = "read_ms")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<TimeDelta>,
    /// Why the figures cannot be trusted now, as a clause: "executions are written 200 s behind".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale: Option<String>,
}

fn write_ms<S: Serializer>(lag: &Option<TimeDelta>, serializer: S) -> Result<S::Ok, S::Error> {
    lag.map(|lag| lag.num_milliseconds()).serialize(serializer)
}

fn read_ms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TimeDelta>, D::Error> {
    Ok(Option::<i64>::deserialize(deserializer)?.and_then(TimeDelta::try_milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_survive_json() {
        let sample = Sample {
            total: 100,
            failed: 31,
            peak: Some(2.5),
            lag: Some(TimeDelta::milliseconds(1_500)),
            stale: Some("late".to_owned()),
            ..Sample::default()
        };
        let json = serde_json::to_string(&sample).unwrap();
        assert!(json.contains(r#""lag_ms":1500"#) && !json.contains("baseline"), "{json}");
        assert_eq!(serde_json::from_str::<Sample>(&json).unwrap(), sample);
        assert_eq!(serde_json::from_str::<Sample>("{}").unwrap(), Sample::default());
    }
}
