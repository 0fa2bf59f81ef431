//! When it is time, which time was missed, and when to try again what failed.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use runtime::config::Retention;
use store::retention::{Cause, Run};
use tokio::sync::mpsc;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

/// What it may be time for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// A run, by the schedule or because the last one failed.
    Run,
    /// Containers that hold more of their logs than they may.
    Volume,
    /// Partitions for the coming days.
    Partitions,
    /// Erasures that have to be looked at once more.
    Reopen,
}

/// When each is looked at, in UTC, with seconds first. A schedule of ours has minutes and a zone. It is decided by
/// [`unanswered`] and not by the scheduler, which fixes a zone's offset when a job is made and would be an hour off
/// after the next change of clocks.
const TASKS: [(&str, Task); 4] = [
    ("0 * * * * *", Task::Run),
    ("20 */10 * * * *", Task::Volume),
    ("40 5 * * * *", Task::Partitions),
    ("50 */5 * * * *", Task::Reopen),
];

/// A scheduler that says when to look at what, until it is shut down. One look waits for the worker at the most.
///
/// # Errors
/// Where it cannot be started.
pub(crate) async fn start(tasks: mpsc::Sender<Task>) -> Result<JobScheduler, JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    for (schedule, task) in TASKS {
        let tasks = tasks.clone();
        let job = Job::new_async(schedule, move |_, _| {
            let tasks = tasks.clone();
            Box::pin(async move {
                // Where the worker is busy it looks at the next minute: nothing is lost by that.
                tasks.try_send(task).ok();
            })
        })?;
        scheduler.add(job).await?;
    }
    scheduler.start().await?;
    Ok(scheduler)
}

/// The newest time of the schedule that has come; `None` where it never has, as with "30 February".
pub(crate) fn last_due(retention: &Retention, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let (cron, zone) = (retention.cron().ok()?, retention.zone().ok()?);
    // croner keeps the fraction of a second that it is asked with, and the same time would then be another one at
    // each look: it would be answered again and again.
    let now = now.trunc_subsecs(0);
    let mut due = cron.find_previous_occurrence(&now.with_timezone(&zone), true).ok()?;
    // A time that a change of clocks skips is found forwards alone, at the hour that takes its place.
    while let Some(next) = cron.find_next_occurrence(&due, false).ok().filter(|next| *next <= now && *next > due) {
        due = next;
    }
    Some(due.to_utc())
}

/// The time of the schedule that nobody has answered yet.
pub(crate) fn unanswered(
    retention: &Retention,
    answered: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    last_due(retention, now).filter(|due| answered.is_none_or(|answered| answered < *due))
}

/// A time that is answered within so long was not missed.
const ON_TIME: TimeDelta = TimeDelta::minutes(2);

/// Why a run for a time of the schedule begins now.
pub(crate) fn cause(due: DateTime<Utc>, now: DateTime<Utc>) -> Cause {
    if now - due <= ON_TIME { Cause::Schedule } else { Cause::Missed }
}

/// After a failure it is tried again after so long, after the second one after twice as long, and so on,
const RETRY_AFTER: TimeDelta = TimeDelta::minutes(10);
/// up to this: whoever mends an archive need not wait for long, and the schedule goes on beside.
const RETRY_AT_MOST: TimeDelta = TimeDelta::hours(2);

/// Whether the newest runs, newest first, ask for another one, why, and from when on. What was interrupted is resumed
/// at once, unless it was before: what ends its process must not do so without a pause.
pub(crate) fn next_try(newest: &[Run]) -> Option<(Cause, DateTime<Utc>)> {
    let failed = newest.iter().take_while(|run| run.outcome == "failed" || run.outcome == "interrupted");
    let failures = i32::try_from(failed.count()).unwrap_or(i32::MAX);
    let last = newest.first().filter(|_| failures > 0)?;
    let ended_at = last.ended_at?;
    match last.outcome.as_str() {
        "interrupted" if failures == 1 => Some((Cause::Resume, ended_at)),
        // Who asked for it was told that it failed.
        "failed" if last.cause == Cause::Command.name() => None,
        outcome => {
            let wait = RETRY_AFTER.checked_mul(1 << (failures - 1).clamp(0, 8)).unwrap_or(RETRY_AT_MOST);
            let cause = if outcome == "interrupted" { Cause::Resume } else { Cause::Retry };
            Some((cause, ended_at + wait.min(RETRY_AT_MOST)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retention(schedule: &str, timezone: &str) -> Retention {
        Retention { schedule: schedule.to_owned(), timezone: timezone.to_owned(), ..Retention::default() }
    }

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_time_is_due_in_its_zone_and_answered_once() {
        let utc = retention("15 3 * * *", "UTC");
        let berlin = retention("15 3 * * *", "Europe/Berlin");
        let now = time("2026-11-25T12:00:00Z");
        assert_eq!(last_due(&utc, now), Some(time("2026-11-25T03:15:00Z")));
        assert_eq!(last_due(&utc, time("2026-11-25T03:15:00Z")), Some(time("2026-11-25T03:15:00Z")));
        assert_eq!(last_due(&utc, time("2026-11-25T03:14:59Z")), Some(time("2026-11-24T03:15:00Z")));
        assert_eq!(last_due(&berlin, now), Some(time("2026-11-25T02:15:00Z")));
        assert_eq!(last_due(&berlin, time("2026-07-01T12:00:00Z")), Some(time("2026-07-01T01:15:00Z")), "summer time");
        assert_eq!(unanswered(&utc, None, now), Some(time("2026-11-25T03:15:00Z")));
        assert_eq!(unanswered(&utc, Some(time("2026-11-24T03:15:00Z")), now), Some(time("2026-11-25T03:15:00Z")));
        assert_eq!(unanswered(&utc, Some(time("2026-11-25T03:15:00Z")), now), None);
    }

    #[test]
    fn a_time_of_the_schedule_is_a_whole_second_whenever_it_is_asked_for() {
        for zone in ["UTC", "Europe/Berlin"] {
            let daily = retention("15 3 * * *", zone);
            let due = last_due(&daily, time("2026-11-25T12:00:00Z"));
            for now in ["2026-11-25T12:00:00.123456Z", "2026-11-25T12:00:30.999999999Z", "2026-11-25T12:00:59.5Z"] {
                assert_eq!(last_due(&daily, time(now)), due, "{zone} at {now}");
                assert_eq!(unanswered(&daily, due, time(now)), None, "{zone} at {now}: answered is answered");
            }
        }
        let daily = retention("15 3 * * *", "UTC");
        assert_eq!(last_due(&daily, time("2026-11-25T03:15:00.000001Z")), Some(time("2026-11-25T03:15:00Z")));
        assert_eq!(last_due(&daily, time("2026-11-25T03:14:59.999999Z")), Some(time("2026-11-24T03:15:00Z")));
    }

    #[test]
    fn many_times_that_were_missed_are_made_up_for_once() {
        let hourly = retention("0 * * * *", "UTC");
        let due = unanswered(&hourly, Some(time("2026-11-20T03:00:00Z")), time("2026-11-25T12:30:00Z"));
        assert_eq!(due, Some(time("2026-11-25T12:00:00Z")));
    }

    #[test]
    fn the_hour_that_a_change_of_clocks_skips_is_not_lost() {
        // In Berlin 02:30 does not exist on 29 March 2026: the clocks go from 02:00 to 03:00, which is 01:00 UTC.
        let skipped = retention("30 2 * * *", "Europe/Berlin");
        let due = last_due(&skipped, time("2026-03-29T12:00:00Z")).unwrap();
        assert!(due >= time("2026-03-29T01:00:00Z") && due < time("2026-03-29T02:00:00Z"), "{due}");
    }

    fn run(outcome: &str, cause: Cause) -> Run {
        Run {
            id: uuid::Uuid::nil(),
            cause: cause.name().to_owned(),
            scheduled_for: None,
            actor_id: String::new(),
            process: String::new(),
            outcome: outcome.to_owned(),
            problem: None,
            started_at: time("2026-11-25T03:15:00Z"),
            ended_at: Some(time("2026-11-25T03:16:00Z")),
            rows: 0,
            bytes: 0,
            items: 0,
        }
    }

    #[test]
    fn what_failed_is_tried_again_and_what_was_interrupted_goes_on() {
        let (schedule, retry) = (Cause::Schedule, Cause::Retry);
        let after = |minutes| time("2026-11-25T03:16:00Z") + TimeDelta::minutes(minutes);
        assert_eq!(next_try(&[]), None);
        assert_eq!(next_try(&[run("done", schedule), run("failed", schedule)]), None);
        assert_eq!(next_try(&[run("failed", schedule)]), Some((retry, after(10))));
        assert_eq!(next_try(&[run("failed", retry), run("failed", schedule)]), Some((retry, after(20))));
        assert_eq!(next_try(&vec![run("failed", retry); 20]), Some((retry, after(120))));
        assert_eq!(next_try(&[run("interrupted", schedule)]), Some((Cause::Resume, after(0))));
        assert_eq!(
            next_try(&[run("interrupted", Cause::Resume), run("interrupted", schedule)]),
            Some((Cause::Resume, after(20)))
        );
        assert_eq!(next_try(&[run("failed", Cause::Command)]), None);
        assert_eq!(next_try(&[run("interrupted", Cause::Command)]), Some((Cause::Resume, after(0))));
        assert_eq!(cause(after(0), after(1)), Cause::Schedule);
        assert_eq!(cause(after(0), after(3)), Cause::Missed);
    }
}
