//! The accounting of section 3 of the contract, asked of the tables and not of our own code.

use async_nats::jetstream::{self, ErrorCode};
use records::{Conflict, Kind};
use sqlx::{FromRow, PgPool};

/// What a kind's stream and its row in `watchbook.positions` say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// The last sequence that the stream gave.
    pub last_sequence: u64,
    /// How many messages it holds.
    pub messages: u64,
    /// The settled ranges, first and last.
    pub settled: Vec<(u64, u64)>,
    /// Rows that were new.
    pub stored: u64,
    /// Records that were there already.
    pub duplicates: u64,
    /// Messages that are dead letters.
    pub dead_letters: u64,
    /// Sequences that the stream did not hold.
    pub deleted: u64,
    /// Rows of the kind's table.
    pub rows: u64,
    /// Rows according to the roll-ups, of whichever level.
    pub counted: u64,
    /// Rows according to the volumes, where the kind's are bounded.
    pub volume: Option<u64>,
    /// Dead letters of the kind in their table.
    pub letters: u64,
    /// Whether the stream is not the first of its name that the database knows, or has lost its tail.
    pub has_past: bool,
}

impl Account {
    /// Whether every sequence is settled, without a hole.
    pub fn is_quiet(&self) -> bool {
        let whole: &[(u64, u64)] = if self.last_sequence == 0 { &[] } else { &[(1, self.last_sequence)] };
        self.settled == whole
    }

    /// What is wrong with an account that should be quiet.
    ///
    /// # Errors
    /// The first thing that is wrong, in words.
    pub fn adds_up(&self) -> Result<(), String> {
        if !self.is_quiet() {
            return Err(format!("`settled` is not one range up to {}: {self:?}", self.last_sequence));
        }
        if self.stored + self.duplicates + self.dead_letters + self.deleted != self.last_sequence {
            return Err(format!(
                "stored + duplicates + dead letters + deleted is not {}: {self:?}",
                self.last_sequence
            ));
        }
        Ok(())
    }

    /// Whether the tables hold what was counted: each row in the roll-ups and in the position, each dead letter in its
    /// table.
    ///
    /// # Errors
    /// What does not match, in words.
    pub fn matches_rows(&self, kind: Kind) -> Result<(), String> {
        // What an earlier stream of that name gave is in the tables and no longer in the position.
        if !self.has_past && self.dead_letters != self.letters {
            return Err(format!("the table of dead letters does not hold {}: {self:?}", self.dead_letters));
        }
        // A snapshot replaces another one in place: each counts, and there is one row.
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

/// The account of a kind, now.
///
/// # Errors
/// Where one of the servers does not answer, in words.
pub(crate) async fn of(
    kind: Kind,
    stream: &str,
    jetstream: &jetstream::Context,
    database: &PgPool,
) -> Result<Account, String> {
    // The tables first: what is settled afterwards is only more, so that nothing seems settled that is not.
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
    // A canary is a row as any other, and in nobody's counts.
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
