//! Erasures: remove the data of a user or a strategy, in batches that yield to other sessions.
//!
//! Executions of a user or a strategy are deleted. Events and errors of a user are kept, but their personal data is
//! blanked. Held rows stay, and the erasure waits for the release of the hold. Each batch adds its counts in its own
//! transaction, so an interrupted erasure continues, and its counts are exact.

use std::collections::BTreeSet;
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use records::Kind;
use self_audit::AuditEvent;
use serde_json::json;
use store::erasures::{self, Erasable, Erasure};
use store::holds::{self, Hold};
use store::partition_removal::{self, DayPartition};
use store::{Connection, Dataset, PgConnection};
use tokio::time::sleep;
use uuid::Uuid;

use crate::batches::Batches;
use crate::plan;

/// Added to the time of the request. An erasure covers everything up to the request, and clocks differ.
const CLOCKS_DIFFER: TimeDelta = TimeDelta::minutes(5);

/// Requests an erasure; the worker executes it.
///
/// # Errors
/// If a statement fails.
pub async fn request(
    connection: &mut PgConnection,
    entity: Erasable,
    entity_id: &str,
    organization_id: Option<&str>,
    by: &str,
    now: DateTime<Utc>,
) -> store::Result<Erasure> {
    let erasure = new(entity, entity_id, organization_id, by, now);
    erasures::request(connection, &erasure).await?;
    Ok(erasure)
}

/// Returns how many executions an erasure would remove, and how many it would leave because they are held. Changes
/// nothing.
///
/// # Errors
/// If a query fails.
pub async fn preview(
    connection: &mut PgConnection,
    entity: Erasable,
    entity_id: &str,
    organization_id: Option<&str>,
    now: DateTime<Utc>,
) -> store::Result<(u64, u64)> {
    let holds = holds::in_force(connection).await?;
    let erasure = new(entity, entity_id, organization_id, self_audit::SYSTEM, now);
    let (all, held) = erasures::count_executions(connection, &erasure, &ranges(&holds)).await?;
    Ok((all - held, held))
}

fn new(entity: Erasable, entity_id: &str, organization_id: Option<&str>, by: &str, now: DateTime<Utc>) -> Erasure {
    Erasure {
        id: Uuid::now_v7(),
        entity,
        entity_id: entity_id.to_owned(),
        organization_id: organization_id.map(str::to_owned),
        up_to: now + CLOCKS_DIFFER,
        requested_by: by.to_owned(),
        requested_at: now,
        state: "pending".to_owned(),
        executions: 0,
        blanked: 0,
        ended_at: None,
    }
}

/// Executes or continues erasures, writes an audit event for each, and returns them as they ended. Calls `on_progress`
/// with the number of records of each batch. Users of one organization are erased together, because finding their
/// events and errors means reading whole days. The caller holds the run lease.
///
/// # Errors
/// If a statement fails. Batches committed by then are counted.
pub async fn execute(
    connection: &mut PgConnection,
    mut erasures: Vec<Erasure>,
    mut on_progress: impl FnMut(u64),
) -> store::Result<Vec<Erasure>> {
    let mut ended = Vec::with_capacity(erasures.len());
    // All tables, whatever their bounds: an erasure concerns rows.
    let tables = partition_removal::tables(connection, Dataset::Records(Kind::Executions)).await?;
    for erasure in &erasures {
        let mut batches = Batches::new();
        // This includes detached days, because they may be reattached.
        for day in tables.iter().filter(|day| day.starts_at <= erasure.up_to) {
            remove_executions(connection, erasure, day, &mut batches, &mut on_progress).await?;
        }
    }
    let order = |erasure: &Erasure| (erasure.entity == Erasable::Strategy, erasure.organization_id.clone());
    erasures.sort_by_key(order);
    for together in erasures.chunk_by(|a, b| order(a) == order(b)) {
        let held = if together.iter().all(|erasure| erasure.entity == Erasable::User) {
            blank(connection, together, &mut on_progress).await?
        } else {
            BTreeSet::new()
        };
        for erasure in together {
            ended.push(finish(connection, erasure, held.contains(&erasure.id)).await?);
        }
    }
    Ok(ended)
}

async fn remove_executions(
    connection: &mut PgConnection,
    erasure: &Erasure,
    day: &DayPartition,
    batches: &mut Batches,
    on_progress: &mut impl FnMut(u64),
) -> store::Result<()> {
    let mut from = None;
    loop {
        let started = Instant::now();
        let mut transaction = connection.begin().await?;
        let holds = plan::ranges(&holds::frozen(&mut transaction).await?, day);
        let limit = batches.rows();
        let (removed, next) = erasures::remove_executions(&mut transaction, erasure, day, &holds, from, limit).await?;
        transaction.commit().await?;
        on_progress(removed);
        let Some(next) = next else { return Ok(()) };
        from = Some(next);
        sleep(batches.took(started.elapsed())).await;
    }
}

/// Blanks personal data of users. Returns the erasures of which some is left in held rows.
async fn blank(
    connection: &mut PgConnection,
    erasures: &[Erasure],
    on_progress: &mut impl FnMut(u64),
) -> store::Result<BTreeSet<Uuid>> {
    let newest = erasures.iter().map(|erasure| erasure.up_to).max();
    let (mut batches, mut held) = (Batches::new(), BTreeSet::new());
    let holds = holds::in_force(connection).await?;
    for kind in erasures::blanked_kinds() {
        for day in partition_removal::tables(connection, Dataset::Records(kind)).await? {
            if newest.is_some_and(|newest| day.starts_at <= newest) {
                blank_day(connection, erasures, &day, &mut batches, on_progress).await?;
                held.extend(erasures::held_of(connection, erasures, &day, &plan::ranges(&holds, &day)).await?);
            }
        }
    }
    Ok(held)
}

async fn blank_day(
    connection: &mut PgConnection,
    erasures: &[Erasure],
    day: &DayPartition,
    batches: &mut Batches,
    on_progress: &mut impl FnMut(u64),
) -> store::Result<()> {
    let mut after = None;
    loop {
        let started = Instant::now();
        let mut transaction = connection.begin().await?;
        let holds = plan::ranges(&holds::frozen(&mut transaction).await?, day);
        let (blanked, next) = erasures::blank(&mut transaction, erasures, day, &holds, after, batches.rows()).await?;
        transaction.commit().await?;
        on_progress(blanked);
        // The last batch read the rest of the day, so its duration says nothing about the size of batches.
        let Some(next) = next else { return Ok(()) };
        after = Some(next);
        sleep(batches.took(started.elapsed())).await;
    }
}

/// Records that the erasure is done or waits for a hold, with its audit event.
async fn finish(connection: &mut PgConnection, erasure: &Erasure, is_held: bool) -> store::Result<Erasure> {
    let mut transaction = connection.begin().await?;
    let holds = holds::frozen(&mut transaction).await?;
    let (_, held) = erasures::count_executions(&mut transaction, erasure, &ranges(&holds)).await?;
    erasures::blank_entity(&mut transaction, erasure).await?;
    let before = erasures::find(&mut transaction, erasure.id).await?;
    let ended = erasures::end(&mut transaction, erasure.id, is_held || held > 0).await?;
    // A reopened erasure that removed nothing more already has its audit event.
    let is_news = before.is_none_or(|before| before.ended_at.is_none())
        || (ended.executions, ended.blanked) != (erasure.executions, erasure.blanked);
    if is_news {
        let event = AuditEvent {
            organization_id: erasure.organization_id.as_deref(),
            actor_id: &erasure.requested_by,
            action: "retention.erase",
            target_type: erasure.entity.name(),
            target_id: erasure.entity_id.clone(),
            reason: None,
            problem: None,
            metadata: json!({
                "erasure": erasure.id, "executions": ended.executions, "blanked": ended.blanked, "held": held,
            }),
            ..AuditEvent::default()
        };
        self_audit::audit(&mut transaction, &event).await?;
    }
    transaction.commit().await?;
    tracing::info!(
        entity = erasure.entity.name(),
        executions = ended.executions,
        blanked = ended.blanked,
        held,
        "erased"
    );
    Ok(ended)
}

/// Returns the ranges of executions that holds keep.
fn ranges(holds: &[Hold]) -> Vec<holds::HeldRange> {
    let covers = |hold: &&Hold| {
        hold.covers(Dataset::Records(Kind::Executions), DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC)
    };
    holds.iter().filter(covers).map(Hold::range).collect()
}
