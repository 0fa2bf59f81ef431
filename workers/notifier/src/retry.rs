//! Computes when to retry. Pure except for the jitter.

use std::time::{Duration, SystemTime};

use runtime::Backoff;

/// Delay after the first failure: about the time that a receiver needs to restart.
const FIRST: Duration = Duration::from_secs(1);
/// Upper bound of the delay: after a receiver is repaired, pending notifications arrive within this time.
const LONGEST: Duration = Duration::from_secs(300);
/// Upper bound of a delay that a receiver asks for. One response must not silence it for a day.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// Returns the delay after attempt number `attempts`, if the receiver asked for a delay of `asked`.
pub(crate) fn wait(attempts: i32, asked: Option<Duration>) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(0).min(16);
    let longest = (FIRST * 2_u32.pow(doublings)).min(LONGEST);
    let wait = Backoff::new(longest, longest).next_wait();
    wait.max(asked.unwrap_or_default().min(LONGEST_ASKED))
}

/// Parses `Retry-After` (RFC 9110, section 10.2.3), which is a number of seconds or a date. Returns `None` if it is
/// neither.
pub(crate) fn asked(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(header).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes() {
        for (attempts, bound) in [(1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (1000, 300), (i32::MAX, 300), (-1, 1)] {
            let bound = Duration::from_secs(bound);
            for _ in 0..50 {
                let wait = wait(attempts, None);
                assert!(wait >= bound / 2 && wait <= bound, "{wait:?} after attempt {attempts}");
            }
        }
    }

    #[test]
    fn a_receiver_may_ask_for_more_but_not_for_a_day() {
        assert_eq!(wait(1, Some(Duration::from_secs(120))), Duration::from_secs(120));
        assert_eq!(wait(1, Some(Duration::from_secs(86_400))), LONGEST_ASKED);
        assert!(wait(20, Some(Duration::ZERO)) >= LONGEST / 2, "a shorter delay than our own is ignored");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:48:37 GMT").unwrap();
        let minute = Some(Duration::from_secs(60));
        assert_eq!(asked("60", now), minute);
        assert_eq!(asked(" 60 ", now), minute);
        // The three date formats of RFC 9110, section 5.6.7.
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT", now), minute);
        assert_eq!(asked("Sunday, 06-Nov-94 08:49:37 GMT", now), minute);
        assert_eq!(asked("Sun Nov  6 08:49:37 1994", now), minute);
        assert_eq!(asked("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
        for nothing in ["", "soon", "-1", "1.5", "99999999999999999999999"] {
            assert_eq!(asked(nothing, now), None, "{nothing}");
        }
    }
}
