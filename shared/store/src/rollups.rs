//! Roll-ups by label: written in the transaction of the batch that they count, and read by the alert worker.
//!
//! A batch adds rows and changes none, so lanes never wait for each other. Readers find rows added since their last
//! read by comparing snapshots, which is exact whatever other transactions do. Old rows are folded into one per minute.

use chrono::{DateTime, Utc};
use records::Kind;
use records::rollup::{Fold, Level, MinuteGroups, ORGANIZATION};
use sqlx::{Connection, FromRow, PgConnection};

/// Age in seconds after which rows are folded. A reader has seen them by then, or has to reload everything, see
/// [`SNAPSHOT_VALID_FOR`].
const FOLD_AFTER_SECONDS: f64 = 300.0;
/// A reader whose last read is older than this may have missed folded rows and must [`load`] again. The difference to
/// the age for folding is a margin for transactions that commit late.
pub const SNAPSHOT_VALID_FOR: std::time::Duration = std::time::Duration::from_secs(120);
/// Maximum rows folded at once: at 10,000 groups each, some 100 MB of memory meanwhile.
const FOLD_ROWS: i64 = 200;

/// The groups of a minute, from one batch or folded from many.
#[derive(Debug, Clone)]
pub struct StoredMinute {
    /// The kind.
    pub kind: Kind,
    /// The minute.
    pub minute: DateTime<Utc>,
    /// Names of the labels, the organization first.
    pub label_names: Vec<String>,
    /// Names of the levels.
    pub level_names: Vec<String>,
    /// The groups.
    pub groups: MinuteGroups<'static>,
}

/// The snapshot of a reader's last read: a `pg_snapshot` as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(String);

/// Adds the groups of a batch.
///
/// # Errors
/// If the statement fails.
pub async fn add(
    connection: &mut PgConnection,
    kind: Kind,
    minutes: &[(DateTime<Utc>, MinuteGroups<'_>)],
) -> crate::Result<()> {
    if kind.spec().labels.is_empty() {
        return Ok(()); // `outcome_minutes` has the same counts
    }
    let label_names: Vec<_> =
        std::iter::once(ORGANIZATION).chain(kind.spec().labels.iter().map(|label| label.name())).collect();
    let level_names: Vec<_> = kind.spec().levels.iter().map(|level| level.name()).collect();
    for (minute, groups) in minutes {
        insert(connection, kind, *minute, &label_names, &level_names, groups, true).await?;
    }
    Ok(())
}

async fn insert(
    connection: &mut PgConnection,
    kind: Kind,
    minute: DateTime<Utc>,
    label_names: &[&str],
    level_names: &[&str],
    groups: &MinuteGroups<'_>,
    is_new: bool,
) -> crate::Result<()> {
    sqlx::query(
        "INSERT INTO watchbook.rollups (kind, minute, xid, label_names, level_names, dictionary, groups)
         VALUES ($1, $2, CASE WHEN $3 THEN pg_current_xact_id() END, $4, $5, $6, $7)",
    )
    .bind(kind.name())
    .bind(minute)
    .bind(is_new)
    .bind(label_names)
    .bind(level_names)
    .bind(groups.dictionary.iter().map(AsRef::as_ref).collect::<Vec<&str>>())
    .bind(encode(groups, label_names.len(), level_names.len()))
    .execute(connection)
    .await?;
    Ok(())
}

const COLUMNS: &str = "kind, minute, label_names, level_names, dictionary, groups";

/// Reads all roll-ups of each kind from a time on. Returns the snapshot from which [`new_since`] continues. Passes rows
/// to `take` one by one, so that an hour of many groups need not be in memory at once.
///
/// # Errors
/// If the query fails.
pub async fn load(
    connection: &mut PgConnection,
    since: &[(Kind, DateTime<Utc>)],
    mut take: impl FnMut(StoredMinute),
) -> crate::Result<Snapshot> {
    let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let snapshot = current_snapshot(&mut transaction).await?;
    for (kind, since) in since {
        for_each(&mut transaction, *kind, *since, None, &mut take).await?;
    }
    transaction.commit().await?;
    Ok(snapshot)
}

/// Reads the minutes of a kind from `since`, inclusive, to `until`, exclusive.
///
/// # Errors
/// If the query fails.
pub async fn between(
    connection: &mut PgConnection,
    kind: Kind,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
    mut take: impl FnMut(StoredMinute),
) -> crate::Result<()> {
    for_each(connection, kind, since, Some(until), &mut take).await
}

/// Returns whether the roll-ups of a kind cover a past window: they start before it, and some kind has records in it.
/// Otherwise no writer may have run.
///
/// # Errors
/// If the query fails.
pub async fn is_known(
    connection: &mut PgConnection,
    kind: Kind,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
) -> crate::Result<bool> {
    let kinds: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM watchbook.rollups WHERE kind = $1 AND minute < $2)
            AND EXISTS (SELECT FROM watchbook.rollups WHERE kind = ANY ($4) AND minute >= $2 AND minute < $3)",
    )
    .bind(kind.name())
    .bind(since)
    .bind(until)
    .bind(kinds)
    .fetch_one(connection)
    .await
}

async fn for_each(
    connection: &mut PgConnection,
    kind: Kind,
    since: DateTime<Utc>,
    until: Option<DateTime<Utc>>,
    take: &mut impl FnMut(StoredMinute),
) -> crate::Result<()> {
    use futures::TryStreamExt;
    let statement = format!(
        "SELECT {COLUMNS} FROM watchbook.rollups WHERE kind = $1 AND minute >= $2 AND minute < coalesce($3, 'infinity') ORDER BY minute"
    );
    let mut rows = sqlx::query_as::<_, Row>(&statement).bind(kind.name()).bind(since).bind(until).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        row.decode().into_iter().for_each(&mut *take);
    }
    Ok(())
}

/// Reads roll-ups committed since `seen`. Returns the snapshot to continue from. Passes rows to `take` one by one.
///
/// # Errors
/// If the query fails; some rows may have been taken then.
pub async fn new_since(
    connection: &mut PgConnection,
    seen: &Snapshot,
    mut take: impl FnMut(StoredMinute),
) -> crate::Result<Snapshot> {
    use futures::TryStreamExt;
    let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let snapshot = current_snapshot(&mut transaction).await?;
    // Rows that the current snapshot does not see either carry transaction ids of another server, from a restored dump.
    let statement = format!(
        "SELECT {COLUMNS} FROM watchbook.rollups
          WHERE xid >= pg_snapshot_xmin($1::pg_snapshot) AND NOT pg_visible_in_snapshot(xid, $1::pg_snapshot)
            AND pg_visible_in_snapshot(xid, $2::pg_snapshot)
          ORDER BY xid"
    );
    let mut rows = sqlx::query_as::<_, Row>(&statement).bind(&seen.0).bind(&snapshot.0).fetch(&mut *transaction);
    while let Some(row) = rows.try_next().await? {
        row.decode().into_iter().for_each(&mut take);
    }
    drop(rows);
    transaction.commit().await?;
    Ok(snapshot)
}

async fn current_snapshot(connection: &mut PgConnection) -> crate::Result<Snapshot> {
    sqlx::query_scalar("SELECT pg_current_snapshot()::text").fetch_one(connection).await.map(Snapshot)
}

/// Folds old rows of a kind into one per minute. Returns how many rows were folded; 0 if there was nothing to fold.
/// Concurrent calls are safe.
///
/// # Errors
/// If a statement fails; nothing is changed then.
pub async fn fold(connection: &mut PgConnection, kind: Kind) -> crate::Result<usize> {
    let mut transaction = connection.begin().await?;
    // Takes the oldest minute with rows to fold, and its row that was folded before.
    let statement = format!(
        "WITH due AS (
             SELECT minute FROM watchbook.rollups
              WHERE xid IS NOT NULL AND kind = $1 AND written_at < now() - make_interval(secs => $2)
              ORDER BY xid LIMIT 1
         ), taken AS (
             SELECT ctid FROM watchbook.rollups
              WHERE kind = $1 AND minute = (SELECT minute FROM due)
                AND (xid IS NULL OR written_at < now() - make_interval(secs => $2))
              LIMIT $3 FOR UPDATE SKIP LOCKED
         )
         DELETE FROM watchbook.rollups WHERE ctid = ANY (ARRAY(SELECT ctid FROM taken)) RETURNING {COLUMNS}"
    );
    let rows: Vec<Row> = sqlx::query_as(&statement)
        .bind(kind.name())
        .bind(FOLD_AFTER_SECONDS)
        .bind(FOLD_ROWS)
        .fetch_all(&mut *transaction)
        .await?;
    let count = rows.len();
    let mut minutes: Vec<StoredMinute> = rows.into_iter().filter_map(Row::decode).collect();
    // Rows that another version wrote with other labels are folded separately.
    minutes.sort_by(|a, b| (&a.label_names, &a.level_names).cmp(&(&b.label_names, &b.level_names)));
    for same in minutes.chunk_by(|a, b| a.label_names == b.label_names && a.level_names == b.level_names) {
        let Some(first) = same.first() else { continue };
        let (labels, levels) = (first.label_names.len(), first.level_names.len());
        let mut fold = Fold::new();
        same.iter().for_each(|minute| fold.add(&minute.groups, labels, levels));
        let label_names: Vec<_> = first.label_names.iter().map(String::as_str).collect();
        let level_names: Vec<_> = first.level_names.iter().map(String::as_str).collect();
        insert(&mut transaction, kind, first.minute, &label_names, &level_names, &fold.finish(), false).await?;
    }
    transaction.commit().await?;
    Ok(count)
}

/// Removes roll-ups of minutes before `time`, at most 5,000 per call. Returns how many.
///
/// # Errors
/// If the statement fails.
pub async fn remove_before(connection: &mut PgConnection, kind: Kind, time: DateTime<Utc>) -> crate::Result<u64> {
    const AT_ONCE: i64 = 5_000;
    let removed = sqlx::query(
        "DELETE FROM watchbook.rollups WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM watchbook.rollups WHERE kind = $1 AND minute < $2 LIMIT $3))",
    )
    .bind(kind.name())
    .bind(time)
    .bind(AT_ONCE)
    .execute(connection)
    .await?;
    Ok(removed.rows_affected())
}

/// Encodes groups in the format of the column `groups`.
fn encode(groups: &MinuteGroups<'_>, labels: usize, levels: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(groups.len() * group_bytes(labels, levels));
    for group in 0..groups.len() {
        let number = |numbers: &[u32], place: usize| numbers.get(place).copied().unwrap_or_default().to_be_bytes();
        for label in 0..labels {
            bytes.extend(number(&groups.places, group * labels + label));
        }
        bytes.extend(number(&groups.total, group));
        bytes.extend(number(&groups.failed, group));
        for level in 0..levels {
            let level = groups.levels.get(group * levels + level).copied().unwrap_or(Level::NONE);
            bytes.extend(level.samples.to_be_bytes());
            bytes.extend(level.sum.to_be_bytes());
            bytes.extend(level.peak.to_be_bytes());
        }
    }
    bytes
}

const fn group_bytes(labels: usize, levels: usize) -> usize {
    4 * (labels + 2) + 20 * levels
}

#[derive(FromRow)]
struct Row {
    kind: String,
    minute: DateTime<Utc>,
    label_names: Vec<String>,
    level_names: Vec<String>,
    dictionary: Vec<String>,
    groups: Vec<u8>,
}

impl Row {
    /// Decodes a row. Returns `None` for a kind that this version does not know.
    fn decode(self) -> Option<StoredMinute> {
        let (labels, levels) = (self.label_names.len(), self.level_names.len());
        let mut groups =
            MinuteGroups { dictionary: self.dictionary.into_iter().map(Into::into).collect(), ..Default::default() };
        for group in self.groups.chunks_exact(group_bytes(labels, levels)) {
            let (numbers, mut measured) = group.split_at(4 * (labels + 2));
            let mut numbers = numbers.chunks_exact(4).filter_map(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
            groups.places.extend(numbers.by_ref().take(labels));
            groups.total.push(numbers.next()?);
            groups.failed.push(numbers.next()?);
            while let Some((samples, rest)) = measured.split_first_chunk::<4>()
                && let Some((sum, rest)) = rest.split_first_chunk::<8>()
                && let Some((peak, rest)) = rest.split_first_chunk::<8>()
            {
                let (sum, peak) = (f64::from_be_bytes(*sum), f64::from_be_bytes(*peak));
                groups.levels.push(Level { samples: u32::from_be_bytes(*samples), sum, peak });
                measured = rest;
            }
        }
        Some(StoredMinute {
            kind: self.kind.parse().ok()?,
            minute: self.minute,
            label_names: self.label_names,
            level_names: self.level_names,
            groups,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_come_back_as_they_went() {
        let level = |samples, sum, peak| Level { samples, sum, peak };
        let groups = MinuteGroups {
            dictionary: vec!["acme".into(), "c-1".into(), "c-2".into()],
            places: vec![1, 2, 1, 3, 0, 2],
            total: vec![7, u32::MAX, 1],
            failed: vec![0, 5, 1],
            levels: vec![level(7, 1.5, 0.5), level(1, -2.0, 9.0), level(3, 1e300, 2.0)],
        };
        let row = Row {
            kind: "metrics".to_owned(),
            minute: DateTime::UNIX_EPOCH,
            label_names: vec!["organization_id".to_owned(), "container_id".to_owned()],
            level_names: vec!["cpu_usage_percent".to_owned()],
            dictionary: groups.dictionary.iter().map(ToString::to_string).collect(),
            groups: encode(&groups, 2, 1),
        };
        assert_eq!(row.groups.len(), 3 * group_bytes(2, 1));
        assert_eq!(row.decode().unwrap().groups, groups);
    }
}
