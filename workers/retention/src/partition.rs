//! Removes a day's partition.
//!
//! A day without held rows is archived, detached, counted again while no writer can add to it, and dropped. A day with
//! held rows stays attached: the held rows are copied into a table beside it, the day is frozen and counted, and the
//! copy replaces it in one transaction, so that readers always see the held rows.
//!
//! Only the last transaction of either removes anything. It locks the holds, and rolls back unless the day is as it was
//! planned. A crash before it leaves at most a detached day, which the next run finds by the mark in its comment, or a
//! copy, which the next run drops.

use std::time::{Duration, Instant};

use runtime::Backoff;
use store::holds::{self, Hold};
use store::partition_removal::{self, DayPartition};
use store::partitions::State;
use store::retention::{self, Action as Recorded};
use store::{Connection, Failure, PgConnection};
use tokio::time::sleep;

use crate::item::{ItemError, Step, Work};
use crate::plan::{self, Action, Item};

/// Attempts to detach or replace a day whose table is in use, with up to five seconds between them. A session that is
/// still in the way after that is an export, or one that was forgotten; the next run continues from there.
const TRIES: u32 = 40;
const TRY_AGAIN_FIRST: Duration = Duration::from_millis(200);
const TRY_AGAIN_AT_MOST: Duration = Duration::from_secs(5);

impl Work<'_> {
    /// Removes the item's day, except for its held rows.
    pub(crate) async fn remove_partition(mut self) -> Result<(), ItemError> {
        let started = Instant::now();
        let day = self.find_day().await?;
        let found = Planned {
            holds: holds::in_force(self.connection).await?,
            marks: partition_removal::marks(self.connection, &day).await?,
        };
        let archived = self.archive(&day).await?;
        if self.item.action == Action::Rewrite {
            return self.rewrite(&day, &found, archived, started).await;
        }
        if !plan::ranges(&found.holds, &day).is_empty() {
            // A hold that was added since the plan was made, or that an edited plan ignores: do not detach its rows.
            self.counted(&day, &found).await?;
        }
        self.detach(&day).await?;
        let removed = self.drop_partition(&day, &found, archived, started).await;
        if removed.is_err() {
            // Nothing was removed, so readers and the next plan must see the day again. If this fails too, the next run
            // reattaches it.
            if let Err(error) = partition_removal::reattach(self.connection, &day).await {
                tracing::warn!(partition = %day.name, %error, "a detached day could not be reattached");
            }
        }
        // If the connection is lost, so is the lock.
        partition_removal::unlock(self.connection, day.dataset).await.ok();
        removed
    }

    /// Finds the day as it is now.
    ///
    /// # Errors
    /// If it does not exist, or is not expired by the current settings.
    async fn find_day(&mut self) -> Result<DayPartition, ItemError> {
        let (Some(dataset), Some(first_day)) = (self.item.dataset(), self.item.day) else {
            return Err(ItemError::Changed("the plan names no day of anything that is cut by time".to_owned()));
        };
        let found = partition_removal::list(self.connection, dataset).await?;
        let Some(day) = found.into_iter().find(|day| day.first_day() == first_day) else {
            return Err(ItemError::Changed("it is gone already".to_owned()));
        };
        let is_expired = |cutoff| day.ends_at <= cutoff;
        if !self.settings.cutoff(dataset, self.now).is_some_and(is_expired) {
            return Err(ItemError::Changed("it is not expired by the settings that are in force".to_owned()));
        }
        Ok(day)
    }

    /// Writes the day to the archive, if an archive is configured and does not have the day yet.
    async fn archive(&mut self, day: &DayPartition) -> Result<Option<archive::Manifest>, ItemError> {
        if !day.dataset.has_records() {
            return Ok(None);
        }
        let archive = match self.archive {
            Ok(None) => return Ok(None),
            Ok(Some(archive)) => archive,
            Err(problem) => return Err(ItemError::Archive(problem.clone())),
        };
        let manifest = crate::archiving::write(self.connection, archive, day).await.map_err(ItemError::Archive)?;
        as_planned("rows", self.item.rows.saturating_add(self.item.kept_rows), manifest.rows)?;
        self.reached(Step::Archived).await;
        Ok(Some(manifest))
    }

    /// Detaches the day, and keeps the lock that prevents others from reattaching it. Waits for readers of the table.
    async fn detach(&mut self, day: &DayPartition) -> Result<(), ItemError> {
        let mut backoff = Backoff::new(TRY_AGAIN_FIRST, TRY_AGAIN_AT_MOST);
        for _ in 0..TRIES {
            let error = match partition_removal::lock(self.connection, day.dataset).await {
                Ok(()) => match partition_removal::detach(self.connection, day).await {
                    Ok(()) => {
                        self.reached(Step::Detached).await;
                        return Ok(());
                    }
                    Err(error) => {
                        partition_removal::unlock(self.connection, day.dataset).await?;
                        error
                    }
                },
                Err(error) => error,
            };
            if Failure::of(&error) != Failure::Contention {
                return Err(error.into());
            }
            sleep(backoff.next_wait()).await;
        }
        let state = match partition_removal::state(self.connection, day).await? {
            State::Attached => "it is as it was",
            State::Detaching | State::Detached => "it is not seen any more, and the next run removes it",
        };
        Err(ItemError::Busy(format!("somebody reads {} for longer than a run waits; {state}", day.dataset.table())))
    }

    /// Drops a detached day.
    async fn drop_partition(
        &mut self,
        day: &DayPartition,
        found: &Planned,
        archived: Option<archive::Manifest>,
        started: Instant,
    ) -> Result<(), ItemError> {
        // A detached day gets no more rows: the rows counted now are the rows that are dropped.
        self.counted(day, found).await?;
        partition_removal::ensure_rollup_partitions(self.connection, day).await?;
        self.reached(Step::Counted).await;
        let mut transaction = self.connection.begin().await?;
        partition_removal::roll_up(&mut transaction, day, &[]).await?;
        found.is_still_held(&mut transaction, day).await?;
        partition_removal::drop(&mut transaction, day).await?;
        retention::record(&mut transaction, self.run, &recorded(self.position, self.item, archived, started)).await?;
        transaction.commit().await?;
        self.reached(Step::Removed).await;
        Ok(())
    }

    /// Replaces the day by a copy of its held rows.
    async fn rewrite(
        mut self,
        day: &DayPartition,
        found: &Planned,
        archived: Option<archive::Manifest>,
        started: Instant,
    ) -> Result<(), ItemError> {
        self.reattach(day).await?;
        let copied = partition_removal::copy_held(self.connection, day, &plan::ranges(&found.holds, day)).await?;
        let swapped = match as_planned("rows that are held", self.item.kept_rows, copied) {
            Ok(()) => self.swap(day, found, archived, started).await,
            changed => changed,
        };
        if swapped.is_err() {
            // The copy duplicates rows of the day, and would survive an erasure. If this fails too, the next run drops
            // it.
            partition_removal::drop_copies(self.connection, day.dataset).await.ok();
        }
        swapped?;
        self.reached(Step::Removed).await;
        Ok(())
    }

    /// Reattaches the day if an earlier run detached it, when none of its rows were held yet.
    async fn reattach(&mut self, day: &DayPartition) -> Result<(), ItemError> {
        if partition_removal::state(self.connection, day).await? == State::Attached {
            return Ok(());
        }
        partition_removal::lock(self.connection, day.dataset).await?;
        let back = partition_removal::reattach(self.connection, day).await;
        partition_removal::unlock(self.connection, day.dataset).await?;
        Ok(back?)
    }

    async fn swap(
        &mut self,
        day: &DayPartition,
        found: &Planned,
        archived: Option<archive::Manifest>,
        started: Instant,
    ) -> Result<(), ItemError> {
        self.reached(Step::Copied).await;
        partition_removal::ensure_rollup_partitions(self.connection, day).await?;
        let mut backoff = Backoff::new(TRY_AGAIN_FIRST, TRY_AGAIN_AT_MOST);
        for _ in 0..TRIES {
            let swapped = match partition_removal::lock(self.connection, day.dataset).await {
                Ok(()) => {
                    let swapped = self.try_swap(day, found, archived.clone(), started).await;
                    // If the connection is lost, so is the lock.
                    partition_removal::unlock(self.connection, day.dataset).await.ok();
                    swapped
                }
                Err(error) => Err(error.into()),
            };
            match swapped {
                Err(ItemError::Store(error)) if Failure::of(&error) == Failure::Contention => {}
                swapped => return swapped,
            }
            sleep(backoff.next_wait()).await;
        }
        Err(ItemError::Busy(format!(
            "somebody uses {} for longer than a run waits; it is as it was",
            day.dataset.table()
        )))
    }

    /// Freezes, counts and replaces the day in one transaction. A session that wrote to the table before and now waits
    /// for the frozen day would prevent the lock on the table for as long as the day is frozen. Therefore each attempt
    /// releases the day, and the next one counts again.
    async fn try_swap(
        &mut self,
        day: &DayPartition,
        found: &Planned,
        archived: Option<archive::Manifest>,
        started: Instant,
    ) -> Result<(), ItemError> {
        let mut transaction = self.connection.begin().await?;
        partition_removal::freeze(&mut transaction, day).await?;
        let counted = plan::count(&mut transaction, day, &found.holds, None).await?;
        let marks = partition_removal::marks(&mut transaction, day).await?;
        check_counts(self.item, counted, marks == found.marks)?;
        (self.observer)(Step::Counted, self.item).await;
        partition_removal::roll_up(&mut transaction, day, &plan::ranges(&found.holds, day)).await?;
        found.is_still_held(&mut transaction, day).await?;
        partition_removal::replace_by_copy(&mut transaction, day).await?;
        let recorded = recorded(self.position, self.item, archived, started);
        retention::record(&mut transaction, self.run, &recorded).await?;
        Ok(transaction.commit().await?)
    }

    /// Checks that the day is as it was planned.
    async fn counted(&mut self, day: &DayPartition, found: &Planned) -> Result<(), ItemError> {
        let counted = plan::count(self.connection, day, &found.holds, None).await?;
        let marks = partition_removal::marks(self.connection, day).await?;
        check_counts(self.item, counted, marks == found.marks)
    }
}

/// The holds, and the marks of the day, before anything was copied or detached.
struct Planned {
    holds: Vec<Hold>,
    marks: (i64, i64),
}

impl Planned {
    /// Locks the holds until the transaction ends, and checks that those of the day are the same as before.
    async fn is_still_held(&self, transaction: &mut PgConnection, day: &DayPartition) -> Result<(), ItemError> {
        let frozen = holds::frozen(transaction).await?;
        if plan::ranges(&frozen, day) == plan::ranges(&self.holds, day) {
            return Ok(());
        }
        Err(ItemError::Changed("holds on it were added or released".to_owned()))
    }
}

/// Checks that the counted rows, the held ones among them and the marks are those that were planned, and that the
/// planned action fits them.
fn check_counts(item: &Item, (all, kept): (u64, u64), has_same_marks: bool) -> Result<(), ItemError> {
    as_planned("rows", item.rows.saturating_add(item.kept_rows), all)?;
    as_planned("rows that are held", item.kept_rows, kept)?;
    if plan::decide(all, kept) != item.action {
        let action = item.action.name();
        return Err(ItemError::Changed(format!("{kept} of its {all} rows are held, and `{action}` was planned")));
    }
    if !has_same_marks {
        return Err(ItemError::Changed("some of it was replayed or discarded meanwhile".to_owned()));
    }
    Ok(())
}

fn as_planned(what: &str, planned: u64, found: u64) -> Result<(), ItemError> {
    if planned == found {
        return Ok(());
    }
    Err(ItemError::Changed(format!("it has {found} {what}, and {planned} were planned")))
}

fn recorded(position: i32, item: &Item, archived: Option<archive::Manifest>, started: Instant) -> Recorded {
    Recorded {
        position,
        kind: item.kind.clone(),
        day: item.day,
        action: item.action.name().to_owned(),
        rows: signed(item.rows),
        bytes: signed(item.bytes),
        kept_rows: signed(item.kept_rows),
        archived: archived.and_then(|manifest| serde_json::to_value(manifest).ok()),
        took_ms: i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX),
    }
}

pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
