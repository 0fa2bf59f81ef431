//! Erasures: what is stored of a user or a strategy goes, in batches that give way.
//!
//! A user's or a strategy's executions are removed; a user's events and errors keep their place and lose what is
//! personal in them. What a hold protects stays, and the erasure waits for its release. Each batch counts itself in
//! its own transaction, so an erasure that was interrupted goes on and its figures are exact.

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

/// What somebody asks for happened up to now, and clocks are not all the same.
const CLOCKS_DIFFER: TimeDelta = TimeDelta::minutes(5);

/// Asks for an erasure.
///
/// # Errors
/// Where Postgres does not answer.
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

/// How many executions an erasure would remove, and how many of a hold's it would leave. Changes nothing.
///
/// # Errors
/// Where Postgres does not answer.
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

/// Does erasures, or goes on with them, and tells of each. `on_progress` hears how many records are done. Users of one
/// organization are done together, because what is theirs in events and errors is found by reading the days. The caller
/// has the right to act. Returns them as they ended.
///
/// # Errors
/// Where Postgres does not answer; what is done by then is done, and counted.
pub async fn execute(
    connection: &mut PgConnection,
    mut erasures: Vec<Erasure>,
    mut on_progress: impl FnMut(u64),
) -> store::Result<Vec<Erasure>> {
    let mut ended = Vec::with_capacity(erasures.len());
    // Whatever their bounds are: an erasure is about rows.
    let tables = partition_removal::tables(connection, Dataset::Records(Kind::Executions)).await?;
    for erasure in &erasures {
        let mut batches = Batches::new();
        // A day that a run took out and did not remove is one of them: it may come back.
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

/// Blanks what is personal of users, and says whose records keep some of it because they are held.
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
        // A batch that is not full has read the rest of the day: its time says nothing of the size of batches.
        let Some(next) = next else { return Ok(()) };
        after = Some(next);
        sleep(batches.took(started.elapsed())).await;
    }
}

/// Writes that it is done, or waits for a hold, with the audit record of it.
async fn finish(connection: &mut PgConnection, erasure: &Erasure, is_held: bool) -> store::Result<Erasure> {
    let mut transaction = connection.begin().await?;
    let holds = holds::frozen(&mut transaction).await?;
    let (_, held) = erasures::count_executions(&mut transaction, erasure, &ranges(&holds)).await?;
    erasures::blank_entity(&mut transaction, erasure).await?;
    let before = erasures::find(&mut transaction, erasure.id).await?;
    let ended = erasures::end(&mut transaction, erasure.id, is_held || held > 0).await?;
    // What was done before and found nothing now was told of then.
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

/// What holds keep of executions.
fn ranges(holds: &[Hold]) -> Vec<holds::HeldRange> {
    let covers = |hold: &&Hold| {
        hold.covers(Dataset::Records(Kind::Executions), DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC)
    };
    holds.iter().filter(covers).map(Hold::range).collect()
}
