//! The accounting of section 3 of the contract, read from the tables and not through the code under test.

use async_nats::jetstream::{self, ErrorCode};
use records::{Conflict, Kind};
use sqlx::{FromRow, PgPool};

/// The state of a kind's stream and of its row in `watchbook.positions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// The last sequence of the stream.
    pub last_sequence: u64,
    /// Number of messages in the stream.
    pub messages: u64,
    /// The settled ranges, with both ends included.
    pub settled: Vec<(u64, u64)>,
    /// Number of rows that were new.
    pub stored: u64,
    /// Number of records that were stored already.
    pub duplicates: u64,
    /// Number of messages that became dead letters.
    pub dead_letters: u64,
    /// Number of sequences missing from the stream.
    pub deleted: u64,
    /// Number of rows in the kind's table.
    pub rows: u64,
    /// Number of rows according to the roll-ups of all levels.
    pub counted: u64,
    /// Number of rows according to the volumes, for kinds with a volume limit.
    pub volume: Option<u64>,
    /// Number of dead letters of the kind in their table.
    pub letters: u64,
    /// Whether the stream was recreated or truncated since the database first saw it.
    pub has_past: bool,
}

impl Account {
    /// Returns whether every sequence is settled, without a hole.
    pub fn is_quiet(&self) -> bool {
        let whole: &[(u64, u64)] = if self.last_sequence == 0 { &[] } else { &[(1, self.last_sequence)] };
        self.settled == whole
    }

    /// Checks the sums of an account in which everything is settled.
    ///
    /// # Errors
    /// The first sum that is wrong.
    pub fn adds_up(&self) -> Result<(), String> {
        if !self.is_quiet() {
            return Err(format!("`settled` is not a single range up to {}: {self:?}", self.last_sequence));
        }
        if self.stored + self.duplicates + self.dead_letters + self.deleted != self.last_sequence {
            return Err(format!(
                "stored + duplicates + dead letters + deleted is not {}: {self:?}",
                self.last_sequence
            ));
        }
        Ok(())
    }

    /// Checks that the tables match the counters: each row is in the roll-ups and in the position, and each dead
    /// letter is in its table.
    ///
    /// # Errors
    /// The first mismatch.
    pub fn matches_rows(&self, kind: Kind) -> Result<(), String> {
        // The tables still hold the dead letters of an earlier stream of that name, the position does not.
        if !self.has_past && self.dead_letters != self.letters {
            return Err(format!("the table of dead letters does not hold {}: {self:?}", self.dead_letters));
        }
        // A snapshot replaces an earlier one in place: each is counted, but there is one row.
        let rows = if matches!(kind.spec().conflict, Conflict::KeepFirst) { self.rows } else { self.counted };
        if rows != self.counted {
            return Err(format!("the roll-ups do not count {} rows: {self:?}", self.rows));
        }
        if self.volume.is_some_and(|volume| volume != self.rows) {
            return Err(format!("the volumes do not count {} rows: {self:?}", self.rows));
        }
        if !self.has_past && rows != self.stored {
            return Err(format!("the position does not count {rows} rows: {self:?}"));
        }
        Ok(())
    }
}

#[derive(FromRow)]
struct PositionRow {
    firsts: Vec<i64>,
    lasts: Vec<i64>,
    stored: i64,
    duplicates: i64,
    dead_letters: i64,
    deleted: i64,
}

/// Returns the current account of a kind.
///
/// # Errors
/// If a query fails.
pub(crate) async fn of(
    kind: Kind,
    stream: &str,
    jetstream: &jetstream::Context,
    database: &PgPool,
) -> Result<Account, String> {
    // The tables are read first. What is settled after that can only be more, so nothing looks settled that is not.
    let position: Option<PositionRow> = sqlx::query_as(
        "SELECT ARRAY(SELECT lower(r) FROM unnest(settled) AS r ORDER BY 1) AS firsts,
                ARRAY(SELECT upper(r) - 1 FROM unnest(settled) AS r ORDER BY 1) AS lasts,
                stored, duplicates, dead_letters, deleted
           FROM watchbook.positions WHERE stream = $1",
    )
    .bind(stream)
    .fetch_optional(database)
    .await
    .map_err(|error| error.to_string())?;
    // A canary is stored as a row but not counted.
    let canaries = match kind {
        Kind::Events => "(SELECT count(*) FROM watchbook.event_logs WHERE event_type = 'watchbook.canary')",
        _ => "0",
    };
    let (rows, counted, volume, letters, has_past): (i64, i64, i64, i64, bool) = sqlx::query_as(&format!(
        "SELECT (SELECT count(*) FROM {}),
                (SELECT coalesce(sum(total), 0)::bigint FROM watchbook.outcome_minutes WHERE kind = $1)
                    + (SELECT coalesce(sum(total), 0)::bigint FROM watchbook.outcome_hours WHERE kind = $1) + {},
                (SELECT coalesce(sum(lines), 0)::bigint FROM watchbook.log_volume_groups WHERE kind = $1),
                (SELECT count(*) FROM watchbook.dead_letters WHERE kind = $1),
                EXISTS (SELECT FROM watchbook.past_positions WHERE kind = $1)",
        kind.spec().table,
        canaries
    ))
    .bind(kind.name())
    .fetch_one(database)
    .await
    .map_err(|error| error.to_string())?;
    let (last_sequence, messages) = match jetstream.get_stream(stream).await {
        Ok(stream) => (stream.cached_info().state.last_sequence, stream.cached_info().state.messages),
        Err(error) => match error.kind() {
            jetstream::context::GetStreamErrorKind::JetStream(refusal)
                if refusal.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                (0, 0)
            }
            _ => return Err(error.to_string()),
        },
    };
    let (rows, counted, letters) = (unsigned(rows), unsigned(counted), unsigned(letters));
    let volume = kind.spec().volume.map(|_| unsigned(volume));
    let account = Account { last_sequence, messages, rows, counted, volume, letters, has_past, ..Account::default() };
    let Some(row) = position else { return Ok(account) };
    Ok(Account {
        settled: row.firsts.into_iter().map(unsigned).zip(row.lasts.into_iter().map(unsigned)).collect(),
        stored: unsigned(row.stored),
        duplicates: unsigned(row.duplicates),
        dead_letters: unsigned(row.dead_letters),
        deleted: unsigned(row.deleted),
        ..account
    })
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).expect("a count")
}
