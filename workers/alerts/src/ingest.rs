//! How far the writers are behind: the age of the oldest record that is not in its table.

use std::time::Duration;

use alerting::board::Lag;
use bus::Bus;
use chrono::{TimeDelta, Utc};
use records::Kind;
use store::{PgConnection, positions};
use tokio::time::Instant;

/// Above this the figures of a kind are no ground for a decision: what is missing may turn them over.
const STALE_AFTER: TimeDelta = TimeDelta::seconds(60);
/// How long nothing may be known of the streams before figures count as stale for that reason.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

/// Looks after the lag of every kind.
#[derive(Debug)]
pub(crate) struct Ingest {
    /// When each kind was last asked about with success.
    known: Vec<(Kind, Instant)>,
}

impl Ingest {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self { known: Kind::ALL.iter().map(|kind| (*kind, now)).collect() }
    }

    /// The lag of every kind. Where NATS does not answer it is not known, which is no lag for a while.
    ///
    /// # Errors
    /// Where Postgres does not answer.
    pub(crate) async fn look(&mut self, bus: &Bus, connection: &mut PgConnection) -> store::Result<Vec<(Kind, Lag)>> {
        let mut lags = Vec::with_capacity(self.known.len());
        for (kind, known) in &mut self.known {
            // The account first: what is settled afterwards only makes the lag look longer for a moment.
            let account = positions::find(connection, &bus.stream_name(*kind)).await?;
            let (settled, count) =
                account.map_or((0, 0), |account| (account.position.settled_up_to(), account.position.settled_count()));
            let behind = match bus.stream_state(*kind).await {
                Ok(state) if state.last_sequence <= count => Some(TimeDelta::zero()),
                Ok(_) => match bus.published_ns(*kind, settled + 1).await {
                    Ok(Some(published_ns)) => {
                        let now = Utc::now().timestamp_nanos_opt().unwrap_or_default();
                        Some(TimeDelta::nanoseconds((now - published_ns).max(0)))
                    }
                    // Gone from the stream, or not yet there to be read: the next look will tell.
                    Ok(None) => Some(TimeDelta::zero()),
                    Err(_) => None,
                },
                Err(_) => None,
            };
            if behind.is_some() {
                *known = Instant::now();
            }
            lags.push((*kind, Lag { behind, stale: stale(*kind, behind, known.elapsed()) }));
        }
        Ok(lags)
    }
}

/// Why the figures of a kind cannot be trusted.
fn stale(kind: Kind, behind: Option<TimeDelta>, unknown_for: Duration) -> Option<String> {
    match behind {
        Some(behind) if behind > STALE_AFTER => Some(format!("{kind} are written {} s behind", behind.num_seconds())),
        None if unknown_for > UNKNOWN_FOR => Some(format!(
            "NATS has not answered for {} s, so what is missing of {kind} is not known",
            unknown_for.as_secs()
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_stale_when_records_are_missing_or_nobody_knows() {
        let long = UNKNOWN_FOR + Duration::from_secs(1);
        assert_eq!(stale(Kind::Events, Some(STALE_AFTER), long), None);
        assert_eq!(
            stale(Kind::Events, Some(TimeDelta::seconds(200)), Duration::ZERO).as_deref(),
            Some("events are written 200 s behind")
        );
        assert_eq!(stale(Kind::Events, None, UNKNOWN_FOR), None);
        assert!(
            stale(Kind::Events, None, long).is_some_and(|reason| reason.starts_with("NATS has not answered for 61 s"))
        );
    }
}
