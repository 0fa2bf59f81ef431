//! Positions: the settled sequences of each stream, with counts of how they ended.

use chrono::{DateTime, Utc};
use records::Kind;
use sqlx::{Connection, PgConnection};

/// The identity of a stream. A recreated stream has the same name and another creation time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamIdentity {
    /// Name of the stream.
    pub name: String,
    /// Creation time, in whole microseconds.
    pub created_at: DateTime<Utc>,
}

/// The position of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Creation time of the stream that the position belongs to.
    pub created_at: DateTime<Utc>,
    /// Settled ranges of sequences as first and last, ascending, with a hole between each two.
    pub settled: Vec<(u64, u64)>,
    /// Sequence of the newest settled message, and its stream timestamp in nanoseconds since 1970.
    pub newest: Option<(u64, i64)>,
}

impl Position {
    /// Returns the first unsettled sequence and the last one of that hole, if it has an end.
    pub fn first_hole(&self) -> (u64, Option<u64>) {
        match *self.settled.as_slice() {
            [(1, last), (next, _), ..] => (last + 1, Some(next - 1)),
            [(1, last)] => (last + 1, None),
            [(first, _), ..] => (1, Some(first - 1)),
            [] => (1, None),
        }
    }

    /// Returns the hole that contains `sequence` or follows it: its first sequence from there on, and its last.
    pub fn hole_from(&self, sequence: u64) -> (u64, Option<u64>) {
        let mut from = sequence;
        for &(first, last) in &self.settled {
            if from < first {
                return (from, Some(first - 1));
            }
            if from <= last {
                from = last + 1;
            }
        }
        (from, None)
    }

    /// Returns the number of settled sequences.
    pub fn settled_count(&self) -> u64 {
        self.settled.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Returns the sequence up to which everything is settled; 0 if sequence 1 is not.
    pub fn settled_up_to(&self) -> u64 {
        self.first_hole().0 - 1
    }
}

/// The position of a stream with its counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The position.
    pub position: Position,
    /// Number of new rows.
    pub stored: u64,
    /// Number of records that were stored already.
    pub duplicates: u64,
    /// Number of dead letters.
    pub dead_letters: u64,
    /// Number of sequences missing in the stream.
    pub deleted: u64,
    /// When the last batch was settled.
    pub settled_at: Option<DateTime<Utc>>,
}

#[derive(sqlx::FromRow)]
struct AccountRow {
    stream_created_at: DateTime<Utc>,
    newest_sequence: Option<i64>,
    newest_published_ns: Option<i64>,
    firsts: Vec<i64>,
    lasts: Vec<i64>,
    stored: i64,
    duplicates: i64,
    dead_letters: i64,
    deleted: i64,
    settled_at: Option<DateTime<Utc>>,
}

/// Returns the account of a stream; `None` if no writer has seen it yet.
///
/// # Errors
/// If the query fails.
pub async fn find(connection: &mut PgConnection, stream: &str) -> crate::Result<Option<Account>> {
    let row: Option<AccountRow> = sqlx::query_as(
        "SELECT stream_created_at, newest_sequence, newest_published_ns,
                ARRAY(SELECT lower(range) FROM unnest(settled) AS range ORDER BY 1) AS firsts,
                ARRAY(SELECT upper(range) - 1 FROM unnest(settled) AS range ORDER BY 1) AS lasts,
                stored, duplicates, dead_letters, deleted, settled_at
           FROM watchbook.positions WHERE stream = $1",
    )
    .bind(stream)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| Account {
        position: Position {
            created_at: row.stream_created_at,
            settled: row.firsts.into_iter().map(unsigned).zip(row.lasts.into_iter().map(unsigned)).collect(),
            newest: row.newest_sequence.map(unsigned).zip(row.newest_published_ns),
        },
        stored: unsigned(row.stored),
        duplicates: unsigned(row.duplicates),
        dead_letters: unsigned(row.dead_letters),
        deleted: unsigned(row.deleted),
        settled_at: row.settled_at,
    }))
}

/// Returns the position of a stream. Inserts an empty one if the stream is new.
///
/// # Errors
/// If the query fails.
pub async fn load(connection: &mut PgConnection, stream: &StreamIdentity, kind: Kind) -> crate::Result<Position> {
    if let Some(account) = find(connection, &stream.name).await? {
        return Ok(account.position);
    }
    sqlx::query(
        "INSERT INTO watchbook.positions (stream, kind, stream_created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    )
    .bind(&stream.name)
    .bind(kind.name())
    .bind(stream.created_at)
    .execute(&mut *connection)
    .await?;
    find(connection, &stream.name).await?.map(|account| account.position).ok_or(sqlx::Error::RowNotFound)
}

/// The sequences of a batch, and how its messages ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settlement {
    /// First sequence of the batch.
    pub first: u64,
    /// Last sequence of the batch.
    pub last: u64,
    /// Sequence of the newest message of the batch, and its stream timestamp in nanoseconds. `None` if the stream has
    /// none of the sequences.
    pub newest: Option<(u64, i64)>,
    /// Number of new rows.
    pub stored: u64,
    /// Number of records that were stored already.
    pub duplicates: u64,
    /// Number of dead letters.
    pub dead_letters: u64,
    /// Number of sequences missing in the stream.
    pub deleted: u64,
}

/// Settles a batch. Must be the last statement of its transaction, because every lane of the stream updates this row.
/// Returns `false` if any of its sequences is settled already, or the stream was recreated: the transaction must then
/// be rolled back.
///
/// # Errors
/// If the statement fails.
pub async fn settle(connection: &mut PgConnection, stream: &StreamIdentity, batch: &Settlement) -> crate::Result<bool> {
    let updated = sqlx::query(
        "UPDATE watchbook.positions
            SET settled = settled + int8multirange(int8range($3, $4, '[]')),
                stored = stored + $5, duplicates = duplicates + $6, dead_letters = dead_letters + $7, deleted = deleted + $8,
                newest_published_ns = CASE WHEN $9 > coalesce(newest_sequence, 0) THEN $10 ELSE newest_published_ns END,
                newest_sequence = greatest(newest_sequence, $9),
                settled_at = now()
          WHERE stream = $1 AND stream_created_at = $2 AND NOT settled && int8range($3, $4, '[]')",
    )
    .bind(&stream.name)
    .bind(stream.created_at)
    .bind(signed(batch.first))
    .bind(signed(batch.last))
    .bind(signed(batch.stored))
    .bind(signed(batch.duplicates))
    .bind(signed(batch.dead_letters))
    .bind(signed(batch.deleted))
    .bind(batch.newest.map(|(sequence, _)| signed(sequence)))
    .bind(batch.newest.map(|(_, published_ns)| published_ns))
    .execute(connection)
    .await?;
    Ok(updated.rows_affected() == 1)
}

/// Resets the position of a recreated stream to nothing settled. Keeps the old position in `past_positions`.
///
/// # Errors
/// If a statement fails.
pub async fn reset_for_recreated_stream(
    connection: &mut PgConnection,
    stream: &StreamIdentity,
    was: DateTime<Utc>,
) -> crate::Result<()> {
    let mut transaction = connection.begin().await?;
    if archive_position(&mut transaction, &stream.name, was, "the stream was recreated").await? {
        sqlx::query(
            "UPDATE watchbook.positions
                SET settled = '{}', stored = 0, duplicates = 0, dead_letters = 0, deleted = 0,
                    newest_sequence = NULL, newest_published_ns = NULL, stream_created_at = $2
              WHERE stream = $1",
        )
        .bind(&stream.name)
        .bind(stream.created_at)
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await
}

/// Rewinds the position of a truncated stream. Sequences after `last_agreed` are no longer in the stream, and other
/// messages may have them by now, so they become unsettled. Their rows stay.
///
/// It is unknown which of these sequences were stored and which were duplicates (dead letters are known). The counters
/// subtract stored ones first, so that their sum is right again.
///
/// # Errors
/// If a statement fails.
pub async fn rewind_truncated_stream(
    connection: &mut PgConnection,
    stream: &StreamIdentity,
    last_agreed: u64,
) -> crate::Result<()> {
    let mut transaction = connection.begin().await?;
    if archive_position(&mut transaction, &stream.name, stream.created_at, "the stream was truncated").await? {
        sqlx::query(
            "WITH kept AS (
                 SELECT stream, settled * int8multirange(int8range(1, $3, '[]')) AS settled,
                        least(dead_letters, (SELECT count(*) FROM watchbook.dead_letters AS letter
                                              WHERE letter.stream = $1 AND letter.stream_seq > $3 AND letter.received_at >= $2)) AS dead
                   FROM watchbook.positions WHERE stream = $1
             ), lost AS (
                 SELECT kept.*, position.stored + position.duplicates + position.dead_letters + position.deleted
                        - (SELECT coalesce(sum(upper(range) - lower(range)), 0)::bigint FROM unnest(kept.settled) AS range) - kept.dead AS others
                   FROM kept JOIN watchbook.positions AS position USING (stream)
             )
             UPDATE watchbook.positions AS position
                SET settled = lost.settled,
                    dead_letters = position.dead_letters - lost.dead,
                    stored = position.stored - least(position.stored, lost.others),
                    duplicates = position.duplicates - least(position.duplicates, greatest(0, lost.others - position.stored)),
                    deleted = position.deleted - greatest(0, lost.others - position.stored - position.duplicates),
                    newest_sequence = nullif($3, 0), newest_published_ns = NULL
               FROM lost WHERE position.stream = lost.stream",
        )
        .bind(&stream.name)
        .bind(stream.created_at)
        .bind(signed(last_agreed))
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await
}

/// Copies a position to `past_positions`. Returns `false` if another process has replaced it already.
async fn archive_position(
    transaction: &mut PgConnection,
    stream: &str,
    created_at: DateTime<Utc>,
    reason: &str,
) -> crate::Result<bool> {
    let kept = sqlx::query(
        "WITH found AS (SELECT * FROM watchbook.positions WHERE stream = $1 AND stream_created_at = $2 FOR UPDATE)
         INSERT INTO watchbook.past_positions SELECT found.*, $3, now() FROM found",
    )
    .bind(stream)
    .bind(created_at)
    .bind(reason)
    .execute(transaction)
    .await?;
    Ok(kept.rows_affected() == 1)
}

/// Converts a sequence. At 100,000 messages per second, sequences stay below 2^63 for 2.9 million years.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(settled: &[(u64, u64)]) -> Position {
        Position { created_at: DateTime::UNIX_EPOCH, settled: settled.to_vec(), newest: None }
    }

    #[test]
    fn reading_goes_on_from_the_first_hole() {
        for (settled, hole) in [
            (&[][..], (1, None)),
            (&[(1, 9)], (10, None)),
            (&[(1, 9), (20, 30)], (10, Some(19))),
            (&[(5, 9)], (1, Some(4))),
        ] {
            assert_eq!(position(settled).first_hole(), hole, "{settled:?}");
            assert_eq!(position(settled).hole_from(1), hole, "{settled:?}");
        }
    }

    #[test]
    fn a_batch_never_crosses_a_settled_range() {
        let position = position(&[(1, 9), (20, 30), (35, 40)]);
        for (sequence, hole) in
            [(10, (10, Some(19))), (15, (15, Some(19))), (20, (31, Some(34))), (36, (41, None)), (50, (50, None))]
        {
            assert_eq!(position.hole_from(sequence), hole, "{sequence}");
        }
    }
}
