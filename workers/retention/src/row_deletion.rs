//! Row-level deletion: the expired part of a day, the oldest lines of a container, and minutes that become hours.
//!
//! Each batch is one transaction, which reads the holds again and adds its counts to `watchbook.retention_actions`.
//! Therefore a run can end after any batch, and the counts are exactly the rows that were removed.

use std::time::Instant;

use chrono::{DateTime, Utc};
use runtime::Backoff;
use store::holds;
use store::log_volumes::{self, Excess};
use store::partition_removal::DayPartition;
use store::partitions::State;
use store::retention::{self, Action as Recorded};
use store::{Connection, Dataset, Failure, PgConnection, outcomes, partition_removal};
use tokio::time::sleep;

use crate::batches::Batches;
use crate::item::{ItemError, Step, Work};
use crate::partition::signed;
use crate::plan::{self, Action, Item};

/// Retries of a batch that fails with lock contention.
const TRIES: u32 = 20;

/// An item that is executed in batches of rows.
pub(crate) struct RowDeletion<'r> {
    work: Work<'r>,
    batches: Batches,
}

/// The result of a batch.
struct Batch {
    rows: u64,
    bytes: u64,
    /// The start of the next batch, once this one is committed.
    next: Progress,
    /// Whether nothing is left to do.
    is_last: bool,
}

/// The start of the next batch, and the bytes that a trim still has to remove.
#[derive(Clone, Copy)]
struct Progress {
    from: Option<DateTime<Utc>>,
    bytes_left: u64,
}

impl<'r> RowDeletion<'r> {
    pub(crate) fn of(work: Work<'r>) -> Self {
        Self { work, batches: Batches::new() }
    }

    pub(crate) async fn execute(mut self) -> Result<(), ItemError> {
        let day = match self.work.item.action {
            Action::Thin => None,
            _ => Some(self.find_day().await?),
        };
        if let Some(day) = &day {
            partition_removal::ensure_rollup_partitions(self.work.connection, day).await?;
        }
        let mut progress = Progress { from: None, bytes_left: self.may_go().await? };
        let mut backoff = Backoff::new(std::time::Duration::from_millis(100), std::time::Duration::from_secs(2));
        let mut tries = 0;
        loop {
            let started = Instant::now();
            let batch = match self.batch(day.as_ref(), progress).await {
                Ok(batch) => batch,
                Err(error) if Failure::of(&error) == Failure::Contention && tries < TRIES => {
                    tries += 1;
                    sleep(backoff.next_wait()).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            tries = 0;
            progress = batch.next;
            let pause = self.batches.took(started.elapsed());
            self.work.reached(Step::Batch { rows: batch.rows }).await;
            if batch.is_last {
                self.work.reached(Step::Removed).await;
                return Ok(());
            }
            sleep(pause).await;
        }
    }

    async fn find_day(&mut self) -> Result<DayPartition, ItemError> {
        let gone = || ItemError::Changed("the day is gone already".to_owned());
        let (Some(dataset), Some(first_day)) = (self.work.item.dataset(), self.work.item.day) else {
            return Err(gone());
        };
        // Trimming works on any partition that has the lines. Deleting the expired part needs a partition that is one
        // whole day.
        let (found, is_trim) = match self.work.item.action {
            Action::Trim => (partition_removal::tables(self.work.connection, dataset).await?, true),
            _ => (partition_removal::list(self.work.connection, dataset).await?, false),
        };
        let is_it = |day: &DayPartition| {
            let is_its = if is_trim { day.covers(first_day) } else { day.first_day() == first_day };
            is_its && day.state == State::Attached
        };
        found.into_iter().find(is_it).ok_or_else(gone)
    }

    /// Checks that the current settings and volumes still permit the removal; another run may have trimmed the
    /// container since the plan was made. Returns the bytes to remove for a trim, and 0 for other actions.
    async fn may_go(&mut self) -> Result<u64, ItemError> {
        let (item, settings, now) = (self.work.item, self.work.settings, self.work.now);
        match (item.action, item.dataset(), &item.container) {
            (Action::Trim, Some(Dataset::Records(kind)), Some(container)) => {
                let excess = plan::excess(self.work.connection, settings, kind).await?;
                let is_its = |excess: &&Excess| {
                    Some(excess.day) == item.day
                        && excess.container_id == container.container_id
                        && excess.organization_id == container.organization_id
                };
                let bytes = excess.iter().find(is_its).map_or(0, |excess| excess.bytes_to_remove.min(item.bytes));
                if bytes == 0 {
                    return Err(ItemError::Changed("the container has no more than it may".to_owned()));
                }
                Ok(bytes)
            }
            (Action::Delete, Some(dataset), _) => {
                let cutoff = settings.cutoff(dataset, now).filter(|_| settings.is_exact(dataset));
                is_due(item.before, cutoff)
            }
            (Action::Thin, None, _) if item.kind == plan::OUTCOMES => {
                is_due(item.before, Some(settings.minutes_cutoff(now)))
            }
            (Action::Thin, None, _) if item.kind == plan::OUTCOME_HOURS => {
                is_due(item.before, settings.hours_cutoff(now))
            }
            _ => Err(ItemError::Changed("there is no such thing to remove".to_owned())),
        }
    }

    /// Executes one batch in one transaction.
    async fn batch(&mut self, day: Option<&DayPartition>, progress: Progress) -> store::Result<Batch> {
        let started = Instant::now();
        let (item, limit) = (self.work.item, self.batches.rows());
        let mut transaction = self.work.connection.begin().await?;
        let batch = match (item.action, day) {
            (Action::Trim, Some(day)) => trim(&mut transaction, item, day, progress, limit).await?,
            (Action::Delete, Some(day)) => delete(&mut transaction, item, day, progress, limit).await?,
            _ => thin(&mut transaction, item, progress, limit).await?,
        };
        let action = Recorded {
            position: self.work.position,
            kind: item.kind.clone(),
            day: item.day,
            action: item.action.name().to_owned(),
            rows: signed(batch.rows),
            bytes: signed(batch.bytes),
            kept_rows: signed(item.kept_rows),
            archived: None,
            took_ms: i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX),
        };
        retention::record(&mut transaction, self.work.run, &action).await?;
        transaction.commit().await?;
        Ok(batch)
    }
}

/// Checks that records before `asked` are expired, i.e. that `asked` is not after the cutoff. Returns 0 bytes.
fn is_due(asked: Option<DateTime<Utc>>, cutoff: Option<DateTime<Utc>>) -> Result<u64, ItemError> {
    if asked.is_some_and(|asked| cutoff.is_some_and(|cutoff| asked <= cutoff)) {
        return Ok(0);
    }
    Err(ItemError::Changed("it is not expired by the settings that are in force".to_owned()))
}

/// Deletes the oldest expired rows of the boundary day.
async fn delete(
    transaction: &mut PgConnection,
    item: &Item,
    day: &DayPartition,
    progress: Progress,
    limit: u32,
) -> store::Result<Batch> {
    let ranges = plan::ranges(&holds::frozen(transaction).await?, day);
    let before = item.before.unwrap_or(DateTime::<Utc>::MIN_UTC);
    let (rows, last) =
        partition_removal::delete_before(transaction, day, progress.from, before, &ranges, limit).await?;
    // The planned bytes include the indexes.
    let bytes = plan::proportion(item.bytes, rows.min(item.rows), item.rows);
    let next = Progress { from: last.or(progress.from), ..progress };
    Ok(Batch { rows, bytes, next, is_last: rows < u64::from(limit) })
}

/// Deletes the oldest lines of a container's day.
async fn trim(
    transaction: &mut PgConnection,
    item: &Item,
    day: &DayPartition,
    progress: Progress,
    limit: u32,
) -> store::Result<Batch> {
    let (Some(container), Some(date), Dataset::Records(kind)) = (&item.container, item.day, day.dataset) else {
        return Ok(Batch { rows: 0, bytes: 0, next: progress, is_last: true });
    };
    let ranges = plan::ranges(&holds::frozen(transaction).await?, day);
    let excess = Excess {
        organization_id: container.organization_id.clone(),
        container_id: container.container_id.clone(),
        day: date,
        bytes_to_remove: progress.bytes_left,
        whole_day: false,
        lines: item.rows,
    };
    let name = day.name.to_string();
    let (gone, last) =
        log_volumes::trim_container(transaction, kind, &name, &excess, progress.from, &ranges, limit).await?;
    let next = Progress { from: last.or(progress.from), bytes_left: progress.bytes_left.saturating_sub(gone.bytes) };
    Ok(Batch { rows: gone.lines, bytes: gone.bytes, next, is_last: gone.lines == 0 || next.bytes_left == 0 })
}

/// Merges minutes of outcomes into hours, or removes expired hours.
async fn thin(transaction: &mut PgConnection, item: &Item, progress: Progress, limit: u32) -> store::Result<Batch> {
    let before = item.before.unwrap_or(DateTime::<Utc>::MIN_UTC);
    let rows = match item.kind.as_str() {
        plan::OUTCOME_HOURS => outcomes::remove_hours(transaction, before, limit).await?,
        _ => outcomes::thin(transaction, before, limit).await?,
    };
    Ok(Batch { rows, bytes: 0, next: progress, is_last: rows == 0 })
}
