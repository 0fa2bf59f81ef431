//! Log volumes: lines and bytes stored per organization, container and day, for kinds with a volume limit.
//!
//! A batch adds a row per day and changes none, so lanes never wait for each other. A removal adds a row with negative
//! amounts. Each row is written in the transaction that stores or removes the records, so the sum always matches the
//! table exactly, without reading it.

mod excess;
mod trim;

use std::collections::HashMap;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use futures::TryStreamExt;
use records::rollup::{MinuteGroups, VOLUME_LABELS};
use records::{Kind, Volume as Bound};
use sqlx::{Connection, FromRow, PgConnection};

pub use excess::{Excess, excess};
pub use trim::{Trimmed, plan_trim, trim_container};

/// Encoded size of a group: two dictionary indexes, lines and bytes.
const GROUP_BYTES: usize = 4 * VOLUME_LABELS + 8 + 8;
/// Minimum rows of a day to fold. Folding rewrites all rows of the day.
const FOLD_FROM_ROWS: i64 = 50;
/// Age of a day's first row, in seconds, after which fewer rows are folded too.
const FOLD_AFTER_SECONDS: f64 = 3_600.0;
/// Maximum rows, and their bytes, folded at once. Memory use is a few times as much meanwhile. A row of half of these
/// bytes or more is not folded, so a day with very many containers keeps several rows.
const FOLD_ROWS: i64 = 500;
const FOLD_BYTES: i64 = 32 * 1024 * 1024;
/// Maximum groups per row written by a recount, because the size of a row is limited.
const RECOUNTED_GROUPS: usize = 10_000;

/// The volume of a container on a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The day of `created_at`, in UTC.
    pub day: NaiveDate,
    /// The organization; `None` for lines without one.
    pub organization_id: Option<String>,
    /// The container.
    pub container_id: String,
    /// Number of lines.
    pub lines: u64,
    /// Bytes of their messages.
    pub bytes: u64,
}

/// Lines and bytes added, or removed if negative.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Amount {
    lines: i64,
    bytes: i64,
}

/// Organization, if any, and container.
type Owner<'r> = (Option<&'r str>, &'r str);

/// Adds the volumes of a batch; none if the kind has no volume limit.
///
/// # Errors
/// If the statement fails.
pub async fn add(
    connection: &mut PgConnection,
    kind: Kind,
    volumes: &[(NaiveDate, MinuteGroups<'_>)],
) -> crate::Result<()> {
    for (day, groups) in volumes {
        let mut encoded = Vec::with_capacity(groups.len() * GROUP_BYTES);
        let lines = groups.total.iter().map(|lines| i64::from(*lines));
        let amounts = lines.zip(&groups.levels).map(|(lines, level)| Amount { lines, bytes: level.sum as i64 });
        for (places, amount) in groups.places.chunks_exact(VOLUME_LABELS).zip(amounts) {
            encode(places, amount, &mut encoded);
        }
        let dictionary: Vec<&str> = groups.dictionary.iter().map(AsRef::as_ref).collect();
        insert(connection, kind, *day, &dictionary, &encoded).await?;
    }
    Ok(())
}

/// The volume removed from a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RemovedVolume<'r> {
    /// The organization.
    pub(crate) organization_id: Option<&'r str>,
    /// The container.
    pub(crate) container_id: &'r str,
    /// Number of lines.
    pub(crate) lines: i64,
    /// Bytes of their messages.
    pub(crate) bytes: i64,
}

/// Subtracts removed lines of a day. Call it in the transaction that removes them.
///
/// # Errors
/// If a statement fails.
pub(crate) async fn subtract<'r>(
    connection: &mut PgConnection,
    kind: Kind,
    day: NaiveDate,
    gone: impl IntoIterator<Item = RemovedVolume<'r>>,
) -> crate::Result<()> {
    let amounts = gone
        .into_iter()
        .map(|gone| ((gone.organization_id, gone.container_id), Amount { lines: -gone.lines, bytes: -gone.bytes }));
    insert_amounts(connection, kind, day, amounts.collect::<Vec<_>>()).await
}

/// Folds rows of a day into one and drops groups whose sum is zero. Returns how many rows were folded; 0 if there was
/// nothing to fold or another session is folding.
///
/// # Errors
/// If a statement fails; nothing is changed then.
pub async fn fold(connection: &mut PgConnection, kind: Kind) -> crate::Result<usize> {
    let mut transaction = connection.begin().await?;
    let is_ours: bool = sqlx::query_scalar(&format!("SELECT pg_try_advisory_xact_lock({LOCK})"))
        .bind(kind.name())
        .fetch_one(&mut *transaction)
        .await?;
    if !is_ours {
        transaction.rollback().await?;
        return Ok(0);
    }
    // Smallest first, so that as many rows as possible are folded at once.
    let rows: Vec<Row> = sqlx::query_as(
        "WITH small AS (
             SELECT ctid, day, written_at, size FROM watchbook.log_volumes,
                    LATERAL (SELECT octet_length(groups) + pg_column_size(dictionary) AS size) AS sizes
              WHERE kind = $1 AND size < $2 / 2
         ), due AS (
             SELECT day FROM small GROUP BY day
             HAVING count(*) >= $3 OR (count(*) > 1 AND min(written_at) < now() - make_interval(secs => $4))
              ORDER BY day LIMIT 1
         ), taken AS (
             SELECT ctid, sum(size) OVER (ORDER BY size, ctid) AS size_so_far
               FROM small WHERE day = (SELECT day FROM due) ORDER BY size, ctid LIMIT $5
         )
         DELETE FROM watchbook.log_volumes
          WHERE ctid = ANY (ARRAY(SELECT ctid FROM taken WHERE size_so_far <= $2))
         RETURNING day, dictionary, groups",
    )
    .bind(kind.name())
    .bind(FOLD_BYTES)
    .bind(FOLD_FROM_ROWS)
    .bind(FOLD_AFTER_SECONDS)
    .bind(FOLD_ROWS)
    .fetch_all(&mut *transaction)
    .await?;
    if let Some(day) = rows.first().map(|row| row.day) {
        insert_amounts(&mut transaction, kind, day, sum(&rows)).await?;
    }
    transaction.commit().await?;
    Ok(rows.len())
}

/// Returns the volume of each container on each day, oldest day first. The result grows with the number of containers,
/// so call it rarely.
///
/// # Errors
/// If the query fails.
pub async fn load(connection: &mut PgConnection, kind: Kind) -> crate::Result<Vec<Volume>> {
    let mut rows = sqlx::query_as::<_, Row>(
        "SELECT day, dictionary, groups FROM watchbook.log_volumes WHERE kind = $1 ORDER BY day",
    )
    .bind(kind.name())
    .fetch(connection);
    let mut volumes = Vec::new();
    let mut of_day: Vec<Row> = Vec::new();
    while let Some(row) = rows.try_next().await? {
        if of_day.first().is_some_and(|first| first.day != row.day) {
            volumes.extend(volumes_of_day(&of_day));
            of_day.clear();
        }
        of_day.push(row);
    }
    volumes.extend(volumes_of_day(&of_day));
    Ok(volumes)
}

/// Removes the volumes of a day. Call it in the transaction that removes the day's records, after it has locked their
/// partition: concurrent writers have then committed, and their volumes are removed too.
///
/// # Errors
/// If a statement fails.
pub async fn remove_day(connection: &mut PgConnection, kind: Kind, day: NaiveDate) -> crate::Result<()> {
    lock_out_folding(connection, kind).await?;
    sqlx::query("DELETE FROM watchbook.log_volumes WHERE kind = $1 AND day = $2")
        .bind(kind.name())
        .bind(day)
        .execute(connection)
        .await?;
    Ok(())
}

/// Recounts a day from `table`: a partition that was rewritten or restored, or the whole table. Call it in the
/// transaction that changed it. Exact with concurrent writers, which add what they commit meanwhile.
///
/// # Errors
/// If a statement fails.
pub async fn recount_day(connection: &mut PgConnection, kind: Kind, table: &str, day: NaiveDate) -> crate::Result<()> {
    let Some(Bound { owner, text }) = kind.spec().volume else { return Ok(()) };
    lock_out_folding(connection, kind).await?;
    let (start, end) = bounds(day);
    // One statement has one snapshot, so a batch is both in the removed rows and in the count, or in neither.
    let statement = format!(
        "WITH removed AS (DELETE FROM watchbook.log_volumes WHERE kind = $1 AND day = $2)
         SELECT organization_id, {owner}, count(*), sum(octet_length({text}))
           FROM {table} WHERE created_at >= $3 AND created_at < $4 GROUP BY organization_id, {owner}"
    );
    let counted: Vec<(Option<String>, String, i64, i64)> = sqlx::query_as(&statement)
        .bind(kind.name())
        .bind(day)
        .bind(start)
        .bind(end)
        .fetch_all(&mut *connection)
        .await?;
    for part in counted.chunks(RECOUNTED_GROUPS) {
        let amounts = part.iter().map(|(organization, container, lines, bytes)| {
            ((organization.as_deref(), container.as_str()), Amount { lines: *lines, bytes: *bytes })
        });
        insert_amounts(connection, kind, day, amounts).await?;
    }
    Ok(())
}

/// Advisory lock held while rows are folded. Other sessions meanwhile see neither the deleted rows nor the new one.
const LOCK: &str = "hashtextextended('watchbook log volumes of ' || $1, 0)";

/// Locks out folding until the end of the transaction.
async fn lock_out_folding(connection: &mut PgConnection, kind: Kind) -> crate::Result<()> {
    sqlx::query(&format!("SELECT pg_advisory_xact_lock({LOCK})")).bind(kind.name()).execute(connection).await?;
    Ok(())
}

/// Returns the start of a day and of the next one.
fn bounds(day: NaiveDate) -> (DateTime<Utc>, DateTime<Utc>) {
    // There are no records after the last day of the calendar.
    let next = day.succ_opt().unwrap_or(NaiveDate::MAX);
    (day.and_time(NaiveTime::MIN).and_utc(), next.and_time(NaiveTime::MIN).and_utc())
}

/// Inserts one row without zero amounts; none if all are zero.
async fn insert_amounts<'r>(
    connection: &mut PgConnection,
    kind: Kind,
    day: NaiveDate,
    amounts: impl IntoIterator<Item = (Owner<'r>, Amount)>,
) -> crate::Result<()> {
    let mut dictionary: Vec<&str> = Vec::new();
    let mut places: HashMap<&str, u32> = HashMap::new();
    let mut place = |word: &'r str| {
        *places.entry(word).or_insert_with(|| {
            dictionary.push(word);
            dictionary.len() as u32
        })
    };
    let mut groups = Vec::new();
    for ((organization, container), amount) in amounts {
        if amount != Amount::default() {
            let organization = organization.map_or(0, &mut place);
            encode(&[organization, place(container)], amount, &mut groups);
        }
    }
    if groups.is_empty() {
        return Ok(());
    }
    insert(connection, kind, day, &dictionary, &groups).await
}

async fn insert(
    connection: &mut PgConnection,
    kind: Kind,
    day: NaiveDate,
    dictionary: &[&str],
    groups: &[u8],
) -> crate::Result<()> {
    sqlx::query("INSERT INTO watchbook.log_volumes (kind, day, dictionary, groups) VALUES ($1, $2, $3, $4)")
        .bind(kind.name())
        .bind(day)
        .bind(dictionary)
        .bind(groups)
        .execute(connection)
        .await?;
    Ok(())
}

/// Appends a group in the format of the column `groups`.
fn encode(places: &[u32], amount: Amount, groups: &mut Vec<u8>) {
    places.iter().for_each(|place| groups.extend(place.to_be_bytes()));
    groups.extend(amount.lines.to_be_bytes());
    groups.extend(amount.bytes.to_be_bytes());
}

#[derive(FromRow)]
struct Row {
    day: NaiveDate,
    dictionary: Vec<String>,
    groups: Vec<u8>,
}

impl Row {
    fn amounts(&self) -> impl Iterator<Item = (Owner<'_>, Amount)> {
        self.groups.chunks_exact(GROUP_BYTES).filter_map(|group| {
            let (organization, rest) = group.split_first_chunk()?;
            let (container, rest) = rest.split_first_chunk()?;
            let (lines, rest) = rest.split_first_chunk()?;
            let amount = Amount { lines: i64::from_be_bytes(*lines), bytes: i64::from_be_bytes(*rest.first_chunk()?) };
            Some(((self.word(*organization), self.word(*container)?), amount))
        })
    }

    /// Returns the word at a one-based dictionary index; `None` for index 0, which stands for NULL.
    fn word(&self, place: [u8; 4]) -> Option<&str> {
        let place = usize::try_from(u32::from_be_bytes(place)).ok()?;
        self.dictionary.get(place.checked_sub(1)?).map(String::as_str)
    }
}

fn sum(rows: &[Row]) -> HashMap<Owner<'_>, Amount> {
    let mut sums: HashMap<Owner<'_>, Amount> = HashMap::new();
    for (owner, amount) in rows.iter().flat_map(Row::amounts) {
        let sum = sums.entry(owner).or_default();
        sum.lines = sum.lines.saturating_add(amount.lines);
        sum.bytes = sum.bytes.saturating_add(amount.bytes);
    }
    sums
}

/// Returns the volumes of rows of one day, ordered by organization and container.
fn volumes_of_day(rows: &[Row]) -> Vec<Volume> {
    let Some(day) = rows.first().map(|row| row.day) else { return Vec::new() };
    // A negative sum would be a bug, and must not wrap to a huge number.
    let count = |number: i64| u64::try_from(number).unwrap_or_default();
    let mut volumes: Vec<_> = sum(rows)
        .into_iter()
        .filter(|(_, amount)| amount.lines > 0 || amount.bytes > 0)
        .map(|((organization, container), amount)| Volume {
            day,
            organization_id: organization.map(str::to_owned),
            container_id: container.to_owned(),
            lines: count(amount.lines),
            bytes: count(amount.bytes),
        })
        .collect();
    volumes.sort_by(|a, b| (&a.organization_id, &a.container_id).cmp(&(&b.organization_id, &b.container_id)));
    volumes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(dictionary: &[&str], groups: &[([u32; 2], i64, i64)]) -> Row {
        let mut encoded = Vec::new();
        groups.iter().for_each(|(places, lines, bytes)| {
            encode(places, Amount { lines: *lines, bytes: *bytes }, &mut encoded);
        });
        let dictionary = dictionary.iter().map(ToString::to_string).collect();
        Row { day: NaiveDate::MIN, dictionary, groups: encoded }
    }

    #[test]
    fn rows_of_a_day_are_summed_whatever_their_dictionaries() {
        let rows = [
            row(&["acme", "c"], &[([1, 2], 5, 1 << 40), ([0, 2], 1, 7), ([1, 1], 2, 20)]),
            row(&["c", "globex", "acme"], &[([3, 1], -2, -10), ([2, 1], 1, 0), ([3, 3], -2, -20)]),
        ];
        let volume = |organization: Option<&str>, container: &str, lines, bytes| Volume {
            day: NaiveDate::MIN,
            organization_id: organization.map(str::to_owned),
            container_id: container.to_owned(),
            lines,
            bytes,
        };
        assert_eq!(
            volumes_of_day(&rows),
            [volume(None, "c", 1, 7), volume(Some("acme"), "c", 3, (1 << 40) - 10), volume(Some("globex"), "c", 1, 0),]
        );
        assert_eq!(volumes_of_day(&rows[1..]), [volume(Some("globex"), "c", 1, 0)], "never fewer than none");
        assert_eq!(volumes_of_day(&[]), []);
    }
}
