//! Blanking of personal fields in a user's events, errors and directory entries. The rest of each row stays.

use chrono::{DateTime, Utc};
use records::Kind;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Erasable, Erasure, add};
use crate::Dataset;
use crate::batch::RecordKey;
use crate::holds::{HeldColumns, HeldRange, is_held};
use crate::partition_removal::DayPartition;

/// Personal members of JSON columns, in snake_case and camelCase.
const PERSONAL: &[&str] = &[
    "user_id",
    "userId",
    "user_name",
    "userName",
    "username",
    "name",
    "email",
    "user_email",
    "userEmail",
    "phone",
    "ip",
    "ip_address",
    "ipAddress",
    "user_agent",
    "userAgent",
];

/// A member of a JSON column as an id, where it may be one: an object or an array is none, and as text it may be longer
/// than Postgres prints.
macro_rules! id_of {
    ($member:literal) => {
        concat!("CASE WHEN jsonb_typeof(", $member, ") IN ('string', 'number') THEN ", $member, " #>> '{}' END")
    };
}

/// Where a row of a kind may name a user, and what is done to one that does, with the users' ids as parameter 1 and
/// [`PERSONAL`] as 2.
pub(super) const fn personal(kind: Kind) -> Option<(&'static [&'static str], &'static str)> {
    match kind {
        Kind::Events => Some((
            &[
                "user_id",
                "CASE WHEN actor_type = 'user' THEN actor_id END",
                id_of!("attributes->'user_id'"),
                id_of!("attributes->'userId'"),
                id_of!("payload->'user_id'"),
                id_of!("payload->'userId'"),
            ],
            "user_id = CASE WHEN user_id = ANY ($1) THEN NULL ELSE user_id END,
             actor_id = CASE WHEN actor_type = 'user' AND actor_id = ANY ($1) THEN NULL ELSE actor_id END,
             payload = payload - $2::text[], attributes = (attributes - $2::text[]) || '{\"erased\": true}'",
        )),
        Kind::Errors => Some((
            &[
                id_of!("attributes->'user_id'"),
                id_of!("attributes->'userId'"),
                id_of!("detail->'user_id'"),
                id_of!("detail->'userId'"),
            ],
            "detail = detail - $2::text[], attributes = (attributes - $2::text[]) || '{\"erased\": true}'",
        )),
        // Named one by one, so that another kind does not compile without a decision about its personal data. Samples and
        // log lines belong to containers. The audit log is evidence and is kept as it is. Executions are removed, not
        // blanked, and directory entries have a statement of their own.
        Kind::Metrics | Kind::Logs | Kind::Audit | Kind::Executions | Kind::Directory => None,
    }
}

/// Users of one organization, or of all, who are erased together, so that a partition is read only once for all.
#[derive(Debug, Clone)]
struct Users<'e> {
    erasures: Vec<Uuid>,
    ids: Vec<&'e str>,
    up_to: Vec<DateTime<Utc>>,
    organization_id: Option<&'e str>,
}

impl<'e> Users<'e> {
    fn of(erasures: &'e [Erasure]) -> Self {
        Self {
            erasures: erasures.iter().map(|erasure| erasure.id).collect(),
            ids: erasures.iter().map(|erasure| erasure.entity_id.as_str()).collect(),
            up_to: erasures.iter().map(|erasure| erasure.up_to).collect(),
            organization_id: erasures.first().and_then(|erasure| erasure.organization_id.as_deref()),
        }
    }
}

/// Returns the condition that a row belongs to one of the users, and the lateral join that finds its erasure.
/// Parameters: 1 ids, 3 upper bounds of time, 4 erasures, 5 organization.
fn theirs(places: &[&str]) -> (String, String) {
    // The condition is a cheap hash look-up; the exact lateral join only sees the rows that pass it.
    let any: Vec<_> = places.iter().map(|place| format!("{place} = ANY ($1)")).collect();
    let condition = format!("({}) AND ($5::text IS NULL OR organization_id = $5)", any.join(" OR "));
    let lateral = format!(
        "LATERAL (SELECT erasure FROM unnest($1::text[], $3::timestamptz[], $4::uuid[]) AS asked (whom, up_to, erasure)
                   WHERE asked.whom IN ({}) AND created_at <= asked.up_to LIMIT 1) AS erased",
        places.join(", ")
    );
    (condition, lateral)
}

/// Returns the kinds whose records are blanked, not removed.
pub fn blanked_kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|kind| personal(*kind).is_some())
}

/// Blanks personal fields of users' records in a partition, in key order after `after`, at most `limit`. All erasures
/// must have the same organization. Returns how many, and the key to continue after; `None` once the partition is done.
///
/// # Errors
/// If a statement fails.
pub async fn blank(
    transaction: &mut PgConnection,
    erasures: &[Erasure],
    day: &DayPartition,
    holds: &[HeldRange],
    after: Option<RecordKey>,
    limit: u32,
) -> crate::Result<(u64, Option<RecordKey>)> {
    let Dataset::Records(kind) = day.dataset else { return Ok((0, None)) };
    let Some((places, blanks)) = personal(kind) else { return Ok((0, None)) };
    let (name, held, (condition, erased)) = (&day.name, is_held(day.dataset, 9), theirs(places));
    let columns = HeldColumns::of(holds);
    let users = Users::of(erasures);
    let (after_time, after_id) = after.unwrap_or((DateTime::UNIX_EPOCH, Uuid::nil()));
    let mut blanked: Vec<(DateTime<Utc>, Uuid, Uuid)> = sqlx::query_as(&format!(
        "WITH theirs AS (
             SELECT created_at, id, erasure FROM {name}, {erased}
              WHERE created_at >= $6 AND (created_at, id) > ($6, $7) AND {condition} AND NOT {held}
              ORDER BY created_at, id LIMIT $8
         )
         UPDATE {name} AS record SET {blanks} FROM theirs
          WHERE record.created_at = theirs.created_at AND record.id = theirs.id
         RETURNING record.created_at, record.id, theirs.erasure"
    ))
    .bind(&users.ids)
    .bind(PERSONAL)
    .bind(&users.up_to)
    .bind(&users.erasures)
    .bind(users.organization_id)
    .bind(after_time)
    .bind(after_id)
    .bind(i64::from(limit))
    .bind(columns.organizations)
    .bind(columns.from)
    .bind(columns.until)
    .fetch_all(&mut *transaction)
    .await?;
    blanked.sort_unstable();
    for erasure in erasures {
        let theirs = blanked.iter().filter(|(_, _, id)| *id == erasure.id).count() as u64;
        if theirs > 0 {
            add(transaction, erasure.id, 0, theirs).await?;
        }
    }
    let is_full = blanked.len() as u64 == u64::from(limit);
    Ok((blanked.len() as u64, blanked.last().map(|(time, id, _)| (*time, *id)).filter(|_| is_full)))
}

/// Returns the erasures that have held records in a partition, which keep their personal fields.
///
/// # Errors
/// If the query fails.
pub async fn held_of(
    connection: &mut PgConnection,
    erasures: &[Erasure],
    day: &DayPartition,
    holds: &[HeldRange],
) -> crate::Result<Vec<Uuid>> {
    let Dataset::Records(kind) = day.dataset else { return Ok(Vec::new()) };
    let Some((places, _)) = personal(kind).filter(|_| !holds.is_empty()) else { return Ok(Vec::new()) };
    let (name, held, (condition, erased)) = (&day.name, is_held(day.dataset, 6), theirs(places));
    let columns = HeldColumns::of(holds);
    let users = Users::of(erasures);
    // Parameter 2 is not needed here; using it keeps the numbers of the others.
    sqlx::query_scalar(&format!(
        "SELECT DISTINCT erasure FROM {name}, {erased} WHERE {condition} AND {held} AND $2::text[] IS NOT NULL"
    ))
    .bind(&users.ids)
    .bind(PERSONAL)
    .bind(&users.up_to)
    .bind(&users.erasures)
    .bind(users.organization_id)
    .bind(columns.organizations)
    .bind(columns.from)
    .bind(columns.until)
    .fetch_all(connection)
    .await
}

/// Blanks a user's name, e-mail address and attributes in the directory, unless the entry is newer than the deletion
/// and so belongs to a new user.
///
/// # Errors
/// If the statement fails.
pub async fn blank_entity(transaction: &mut PgConnection, erasure: &Erasure) -> crate::Result<()> {
    if erasure.entity != Erasable::User {
        return Ok(());
    }
    sqlx::query(
        "UPDATE watchbook.entities SET name = NULL, email = NULL, attributes = '{\"erased\": true}'
          WHERE entity = $1 AND entity_id = $2 AND ($4::text IS NULL OR organization_id = $4)
            AND created_at <= (SELECT coalesce(deleted_at, up_to) FROM watchbook.erasures WHERE id = $3)",
    )
    .bind(erasure.entity.name())
    .bind(&erasure.entity_id)
    .bind(erasure.id)
    .bind(&erasure.organization_id)
    .execute(transaction)
    .await?;
    Ok(())
}
