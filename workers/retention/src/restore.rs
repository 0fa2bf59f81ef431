//! A day comes back from the archive, for reading: into its table, under a hold that keeps the next run off it.

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

/// Records that are written at once, and their bytes.
const BATCH_ROWS: usize = 1_000;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// A line is at most a message, its attributes and what JSON makes of both.
const LINE_BYTES: usize = 16 * 1024 * 1024;

/// Why a day does not come back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is nothing to bring back.
    #[error("the archive {archive} has no {kind} of {day}")]
    NotThere {
        /// Which archive.
        archive: String,
        /// What was asked for.
        kind: &'static str,
        /// Of which day.
        day: NaiveDate,
    },
    /// The archive did not give it, or gave something else.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// It holds something that is no record.
    #[error("{object}: {problem}")]
    NoRecord {
        /// Which object.
        object: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The hours of that day stand for samples that nobody has any more.
    #[error(
        "{hours} samples of that day became hours, and the archive brings back {added}: the rest would be lost with the hours, so nothing is brought back"
    )]
    HoursKnowMore {
        /// Samples in the hours.
        hours: u64,
        /// Samples that came back.
        added: u64,
    },
    /// Postgres did not take it.
    #[error("Postgres: {0}")]
    Store(#[from] store::Error),
}

/// What came back.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Restored {
    /// Records that the archive has of the day; one may be in several of its parts.
    pub archived: u64,
    /// Records that were not in the table.
    pub added: u64,
    /// The hold that keeps them.
    pub hold: Hold,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// Of what.
    pub dataset: Dataset,
    /// The first day of the partition.
    pub day: NaiveDate,
    /// Until when it stays.
    pub until: DateTime<Utc>,
    /// Who asks.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Brings a day back, or nothing of it. The parts are verified before anything is written; a record that is there
/// already stays as it is. What was erased meanwhile does not come back.
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
    // In one transaction: nobody sees samples beside their hours, or what was erased, and no end in between leaves them.
    let mut transaction = connection.begin().await?;
    let (mut archived, mut added) = (0, 0);
    for part in &parts {
        archived += part.rows;
        added += restore_part(&mut transaction, archive, part, dataset, &mut on_progress).await?;
    }
    if dataset.has_hours() {
        // Its samples are back, and become hours again when they go.
        let hours = metric_hours::samples(&mut transaction, partition.starts_at(), partition.ends_at()).await?;
        if hours > added {
            return Err(RestoreError::HoursKnowMore { hours, added });
        }
        metric_hours::forget(&mut transaction, partition.starts_at(), partition.ends_at()).await?;
    }
    // The hold last: whoever removes days waits for the holds, and the day is taken out by nobody while this writes to it.
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
