//! Restores a day from the archive into its table, under a hold that keeps the next run from removing it again.

use archive::{Archive, ArchiveError, Manifest};
use chrono::{DateTime, NaiveDate, Utc};
use futures::StreamExt;
use self_audit::AuditEvent;
use serde_json::json;
use store::holds::Hold;
use store::partition_removal;
use store::partitions::{Partition, Partitions};
use store::{Connection, Dataset, PgConnection, log_volumes, metric_hours};

use crate::holds::{self, NewHold};
use crate::plan;

/// The maximum number of records in one `INSERT`, and of their bytes.
const BATCH_ROWS: usize = 1_000;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// The longest line: a message and its attributes, as JSON.
const LINE_BYTES: usize = 16 * 1024 * 1024;

/// The reason why a day is not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The archive does not have the day.
    #[error("the archive {archive} has no {kind} of {day}")]
    NotThere {
        /// The location of the archive.
        archive: String,
        /// The kind that was requested.
        kind: &'static str,
        /// The day that was requested.
        day: NaiveDate,
    },
    /// The archive could not be read, or an object failed its verification.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// An object contains something that is not a record.
    #[error("{object}: {problem}")]
    NoRecord {
        /// The name of the object.
        object: String,
        /// The problem.
        problem: &'static str,
    },
    /// The day's hourly aggregates contain more samples than the archive.
    #[error(
        "{hours} samples of that day became hours, and the archive brings back {added}: the rest would be lost with the hours, so nothing is brought back"
    )]
    HoursKnowMore {
        /// Samples counted in the hourly aggregates.
        hours: u64,
        /// Samples added from the archive.
        added: u64,
    },
    /// A statement failed.
    #[error("Postgres: {0}")]
    Store(#[from] store::Error),
}

/// The result of a restore.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Restored {
    /// Records in the archive's parts of the day; a record may be in several parts.
    pub archived: u64,
    /// Records that were not in the table.
    pub added: u64,
    /// The hold that keeps the records.
    pub hold: Hold,
}

/// A request to restore a day.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The dataset.
    pub dataset: Dataset,
    /// The first day of the partition.
    pub day: NaiveDate,
    /// The time at which the hold expires.
    pub until: DateTime<Utc>,
    /// The actor, for the hold and the audit event.
    pub by: String,
    /// The reason, for the hold and the audit event.
    pub reason: String,
}

/// Restores all of a day, or nothing. The parts are verified before anything is written. A record that is already in
/// the table stays as it is. Data that was erased after the day was archived is not restored.
///
/// # Errors
/// See [`RestoreError`].
pub async fn restore(
    connection: &mut PgConnection,
    archive: &Archive,
    request: &RestoreRequest,
    now: DateTime<Utc>,
    mut on_progress: impl FnMut(u64),
) -> Result<Restored, RestoreError> {
    let (dataset, kind) = (request.dataset, request.dataset.name());
    let parts = archive.parts(kind, request.day).await?;
    if parts.is_empty() {
        return Err(RestoreError::NotThere { archive: archive.location().to_owned(), kind, day: request.day });
    }
    for part in &parts {
        archive.verify(part).await?;
    }
    let partition = Partition::starting(dataset, request.day);
    Partitions::default().ensure(connection, partition).await?;
    // One transaction, so that readers never see samples together with their hourly aggregates, or erased data, and a
    // crash leaves neither.
    let mut transaction = connection.begin().await?;
    let (mut archived, mut added) = (0, 0);
    for part in &parts {
        archived += part.rows;
        added += restore_part(&mut transaction, archive, part, dataset, &mut on_progress).await?;
    }
    if dataset.has_hours() {
        // The samples are restored, and become hourly aggregates again when they are removed.
        let hours = metric_hours::samples(&mut transaction, partition.starts_at(), partition.ends_at()).await?;
        if hours > added {
            return Err(RestoreError::HoursKnowMore { hours, added });
        }
        metric_hours::forget(&mut transaction, partition.starts_at(), partition.ends_at()).await?;
    }
    // Add the hold last. Removing a day waits for the lock on the holds, so no day is detached while this writes to it.
    let holds = store::holds::frozen(&mut transaction).await?;
    for table in partition_removal::tables(&mut transaction, dataset).await? {
        if table.starts_at < partition.ends_at() && table.ends_at > partition.starts_at() {
            let holds = plan::ranges(&holds, &table);
            store::erasures::erase_restored(&mut transaction, &table, &holds).await?;
        }
    }
    if let Dataset::Records(kind) = dataset {
        log_volumes::recount_day(&mut transaction, kind, dataset.table(), request.day).await?;
    }
    let hold = NewHold {
        organization_id: None,
        kind: Some(dataset.name().to_owned()),
        starts_at: Some(partition.starts_at()),
        ends_at: Some(partition.ends_at()),
        expires_at: Some(request.until),
        reason: request.reason.clone(),
        created_by: request.by.clone(),
    };
    let hold = holds::add(&mut transaction, hold, now).await?;
    let event = AuditEvent {
        organization_id: None,
        actor_id: &request.by,
        action: "retention.restore",
        target_type: "retention_day",
        target_id: format!("{kind} {}", request.day),
        reason: Some(&request.reason),
        problem: None,
        metadata: json!({ "archived": archived, "added": added, "hold": hold.id, "until": request.until }),
        ..AuditEvent::default()
    };
    self_audit::audit(&mut transaction, &event).await?;
    transaction.commit().await?;
    Ok(Restored { archived, added, hold })
}

async fn restore_part(
    connection: &mut PgConnection,
    archive: &Archive,
    part: &Manifest,
    dataset: Dataset,
    on_progress: &mut impl FnMut(u64),
) -> Result<u64, RestoreError> {
    let wrong = |problem| RestoreError::NoRecord { object: part.object.clone(), problem };
    let mut pieces = std::pin::pin!(archive.read(part));
    let (mut lines, mut bytes, mut rest, mut added) = (Vec::new(), 0, Vec::new(), 0);
    while let Some(piece) = pieces.next().await {
        rest.extend_from_slice(&piece?);
        let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let begun = rest.split_off(whole);
        for line in std::mem::replace(&mut rest, begun).split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line = std::str::from_utf8(line).map_err(|_| wrong("it holds something that is no UTF-8"))?;
            bytes += line.len();
            lines.push(line.to_owned());
            if lines.len() >= BATCH_ROWS || bytes >= BATCH_BYTES {
                added += partition_removal::insert_json(connection, dataset, &lines).await?;
                on_progress(lines.len() as u64);
                lines.clear();
                bytes = 0;
            }
        }
        if rest.len() > LINE_BYTES {
            return Err(wrong("it holds a line that is longer than any record"));
        }
    }
    added += partition_removal::insert_json(connection, dataset, &lines).await?;
    on_progress(lines.len() as u64);
    Ok(added)
}
