//! Decides when a run is due, whether it was missed, and when a failed one is retried.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use runtime::config::Retention;
use store::retention::{Cause, Run};
use tokio::sync::mpsc;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

/// A task of the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Start a run if one is due or has to be retried.
    Run,
    /// Trim containers whose logs exceed the limit.
    Volume,
    /// Create the partitions of the coming days.
    Partitions,
    /// Reopen erasures for which late records arrived or a hold expired.
    Reopen,
}

/// The cron expression of each task, in UTC, with a field for seconds first. The configured schedule of runs has five
/// fields and a time zone. [`unanswered`] evaluates it instead of the scheduler, which fixes the zone's offset when a
/// job is created and would be an hour off after the next change of clocks.
const TASKS: [(&str, Task); 4] = [
    ("0 * * * * *", Task::Run),
    ("20 */10 * * * *", Task::Volume),
    ("40 5 * * * *", Task::Partitions),
    ("50 */5 * * * *", Task::Reopen),
];

/// Starts a scheduler that sends each task when it is due, until it is shut down. A task that does not fit into the
/// channel is dropped.
///
/// # Errors
/// If the scheduler cannot be started.
pub(crate) async fn start(tasks: mpsc::Sender<Task>) -> Result<JobScheduler, JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    for (schedule, task) in TASKS {
        let tasks = tasks.clone();
        let job = Job::new_async(schedule, move |_, _| {
            let tasks = tasks.clone();
            Box::pin(async move {
                // If the worker is busy, it gets the task at its next time. Tasks read their state, so none is lost.
                tasks.try_send(task).ok();
            })
        })?;
        scheduler.add(job).await?;
    }
    scheduler.start().await?;
    Ok(scheduler)
}

/// Returns the latest scheduled time that is not after `now`; `None` if there is none, as for "30 February".
pub(crate) fn last_due(retention: &Retention, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let (cron, zone) = (retention.cron().ok()?, retention.zone().ok()?);
    // croner keeps the fraction of a second of its argument. Without truncation the same scheduled time would differ at
    // each check, and would be run again and again.
    let now = now.trunc_subsecs(0);
    let mut due = cron.find_previous_occurrence(&now.with_timezone(&zone), true).ok()?;
    // croner finds a time that a change of clocks skips only when it searches forwards, at the hour that replaces it.
    while let Some(next) = cron.find_next_occurrence(&due, false).ok().filter(|next| *next <= now && *next > due) {
        due = next;
    }
    Some(due.to_utc())
}

/// Returns the latest scheduled time if no run has served it yet. `answered` is the last one that was served.
pub(crate) fn unanswered(
    retention: &Retention,
    answered: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    last_due(retention, now).filter(|due| answered.is_none_or(|answered| answered < *due))
}

/// A run that starts within this time after the scheduled one is on time.
const ON_TIME: TimeDelta = TimeDelta::minutes(2);

/// Returns the cause of a run that starts `now` for the scheduled time `due`.
pub(crate) fn cause(due: DateTime<Utc>, now: DateTime<Utc>) -> Cause {
    if now - due <= ON_TIME { Cause::Schedule } else { Cause::Missed }
}

/// The wait before the first retry. It doubles with each further failure.
const RETRY_AFTER: TimeDelta = TimeDelta::minutes(10);
/// The longest wait before a retry, so that a run follows soon after an archive was repaired. Scheduled runs continue
/// independently.
const RETRY_AT_MOST: TimeDelta = TimeDelta::hours(2);

/// Returns the cause and the earliest time of a further run, given the newest runs, newest first; `None` if none is
/// needed. An interrupted run is resumed at once, unless the run before it was interrupted or failed too: a run that
/// crashes its process must not do so without a pause.
pub(crate) fn next_try(newest: &[Run]) -> Option<(Cause, DateTime<Utc>)> {
    let failed = newest.iter().take_while(|run| run.outcome == "failed" || run.outcome == "interrupted");
    let failures = i32::try_from(failed.count()).unwrap_or(i32::MAX);
    let last = newest.first().filter(|_| failures > 0)?;
    let ended_at = last.ended_at?;
    match last.outcome.as_str() {
        "interrupted" if failures == 1 => Some((Cause::Resume, ended_at)),
        // The command reported the failure to its user.
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
