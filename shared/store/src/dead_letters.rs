//! Dead letters: messages that could not be stored as a row, with their whole body and the reason.

use chrono::{DateTime, Utc};
use records::{Headers, Reject};
use sqlx::PgConnection;
use uuid::Uuid;

/// A message that could not be stored as a row.
#[derive(Debug, Clone)]
pub struct DeadLetter<'m> {
    /// Id, derived from stream and sequence.
    pub id: Uuid,
    /// Kind of the stream.
    pub kind: &'static str,
    /// Subject on which it was published.
    pub subject: &'m str,
    /// Name of the stream.
    pub stream: &'m str,
    /// Sequence in the stream.
    pub stream_seq: u64,
    /// Why it was rejected.
    pub reject: Reject,
    /// The whole body.
    pub payload: &'m [u8],
    /// The headers.
    pub headers: Headers,
    /// When the stream received it.
    pub received_at: DateTime<Utc>,
}

/// Inserts dead letters in the transaction of their batch. Their partition must exist.
///
/// # Errors
/// If the statement fails.
pub async fn insert(
    connection: &mut PgConnection,
    letters: &[DeadLetter<'_>],
    failed_at: DateTime<Utc>,
) -> crate::Result<()> {
    if letters.is_empty() {
        return Ok(());
    }
    fn each<'l, T>(letters: &'l [DeadLetter<'l>], of: impl Fn(&'l DeadLetter<'l>) -> T) -> Vec<T> {
        letters.iter().map(of).collect()
    }
    sqlx::query(
        "INSERT INTO watchbook.dead_letters
                (id, kind, subject, stream, stream_seq, reason, field, detail, payload, headers, received_at, failed_at)
         SELECT id, kind, subject, stream, stream_seq, reason, field, detail, payload, headers, received_at, $12
           FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::text[],
                       $9::bytea[], $10::jsonb[], $11::timestamptz[])
             AS letter (id, kind, subject, stream, stream_seq, reason, field, detail, payload, headers, received_at)",
    )
    .bind(each(letters, |letter| letter.id))
    .bind(each(letters, |letter| letter.kind))
    .bind(each(letters, |letter| storable(letter.subject)))
    .bind(each(letters, |letter| letter.stream))
    .bind(each(letters, |letter| i64::try_from(letter.stream_seq).unwrap_or(i64::MAX)))
    .bind(each(letters, |letter| letter.reject.reason.name()))
    .bind(each(letters, |letter| letter.reject.field.as_deref()))
    .bind(each(letters, |letter| storable(&letter.reject.detail)))
    .bind(each(letters, |letter| letter.payload))
    .bind(each(letters, |letter| headers_as_json(&letter.headers)))
    .bind(each(letters, |letter| letter.received_at))
    .bind(failed_at)
    .execute(connection)
    .await?;
    Ok(())
}

/// Replaces U+0000, which Postgres cannot store, so that a dead letter is never refused itself.
pub(crate) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Converts headers to an object of lists, because a header may occur more than once.
fn headers_as_json(headers: &Headers) -> Option<serde_json::Value> {
    if headers.is_empty() {
        return None;
    }
    let mut object = serde_json::Map::new();
    for (name, value) in headers.iter() {
        let values = object.entry(storable(name)).or_insert_with(|| serde_json::Value::Array(Vec::new()));
        if let serde_json::Value::Array(values) = values {
            values.push(storable(value).into());
        }
    }
    Some(object.into())
}

/// Returns the headers of a stored dead letter.
pub fn headers_from_json(json: Option<&serde_json::Value>) -> Headers {
    let object = json.and_then(serde_json::Value::as_object);
    object
        .into_iter()
        .flatten()
        .flat_map(|(name, values)| {
            let values = values.as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
            values.map(|value| (name.clone(), value.to_owned()))
        })
        .collect()
}

/// A stored dead letter.
#[derive(Debug, Clone, sqlx::FromRow, serde::Serialize, utoipa::ToSchema)]
#[schema(as = DeadLetter)]
pub struct StoredDeadLetter {
    /// Id, derived from stream and sequence. A message that fails again after a replay keeps it.
    pub id: Uuid,
    /// Kind of its stream.
    pub kind: String,
    /// Subject on which it was published.
    pub subject: String,
    /// Name of its stream.
    pub stream: String,
    /// Sequence in the stream; null for callers who may not see all organizations.
    #[schema(value_type = Option<i64>)]
    pub stream_seq: i64,
    /// Reason code.
    pub reason: String,
    /// Field that caused the rejection.
    pub field: Option<String>,
    /// The reason in words.
    pub detail: String,
    /// The whole body.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub payload: Vec<u8>,
    /// Headers, as an object of lists.
    pub headers: Option<serde_json::Value>,
    /// When the stream received it.
    pub received_at: DateTime<Utc>,
    /// When it was rejected.
    pub failed_at: DateTime<Utc>,
    /// When it was replayed.
    pub replayed_at: Option<DateTime<Utc>>,
    /// When it was discarded.
    pub discarded_at: Option<DateTime<Utc>>,
}

/// Serializes a body as text, with U+FFFD for invalid UTF-8. The table keeps the original bytes.
fn as_text<S: serde::Serializer>(payload: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(payload))
}

/// A selection of dead letters.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Ids to select; empty for all.
    pub ids: Vec<Uuid>,
    /// Kind to select.
    pub kind: Option<&'static str>,
    /// Reason to select.
    pub reason: Option<&'static str>,
    /// Whether to include replayed and discarded ones.
    pub settled_too: bool,
    /// Upper bound of `failed_at`, exclusive.
    pub failed_before: Option<DateTime<Utc>>,
}

/// The primary key of a dead letter: `failed_at` and `id`. A message that fails again after a replay is a separate dead
/// letter with the same id.
pub type Key = (DateTime<Utc>, Uuid);

impl StoredDeadLetter {
    /// Returns the primary key.
    pub fn key(&self) -> Key {
        (self.failed_at, self.id)
    }

    /// Returns the organization in its subject; `None` if there is none, or the subject does not belong to the stream.
    /// Matches the SQL function `watchbook.organization_of`.
    pub fn organization(&self) -> Option<&str> {
        let (start, rest) = self.subject.split_at_checked(self.stream.len())?;
        let is_of_stream = start
            .bytes()
            .map(|byte| if byte.is_ascii_alphanumeric() { byte.to_ascii_uppercase() } else { b'_' })
            .eq(self.stream.bytes());
        let organization = rest.strip_prefix('.').filter(|_| is_of_stream)?.split('.').next()?;
        (!organization.is_empty() && organization != records::subject::NO_ORGANIZATION).then_some(organization)
    }
}

/// Splits keys into the two columns that `unnest` takes.
fn columns(keys: impl IntoIterator<Item = Key>) -> (Vec<DateTime<Utc>>, Vec<Uuid>) {
    keys.into_iter().unzip()
}

/// Returns dead letters after `after`, oldest first, at most `limit`.
///
/// # Errors
/// If the query fails.
pub async fn list(
    connection: &mut PgConnection,
    filter: &Filter,
    after: Option<Key>,
    limit: u32,
) -> crate::Result<Vec<StoredDeadLetter>> {
    let (after_time, after_id) = after.unwrap_or((DateTime::UNIX_EPOCH, Uuid::nil()));
    sqlx::query_as(
        "SELECT * FROM watchbook.dead_letters
          WHERE (cardinality($1::uuid[]) = 0 OR id = ANY($1))
            AND ($2::text IS NULL OR kind = $2) AND ($3::text IS NULL OR reason = $3)
            AND ($4 OR (replayed_at IS NULL AND discarded_at IS NULL))
            AND failed_at >= $5 AND (failed_at, id) > ($5, $6) AND ($7::timestamptz IS NULL OR failed_at < $7)
          ORDER BY failed_at, id LIMIT $8",
    )
    .bind(&filter.ids)
    .bind(filter.kind)
    .bind(filter.reason)
    .bind(filter.settled_too)
    .bind(after_time)
    .bind(after_id)
    .bind(filter.failed_before)
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await
}

/// Returns the dead letter with this id that failed last, in any state.
///
/// # Errors
/// If the query fails.
pub async fn newest(connection: &mut PgConnection, id: Uuid) -> crate::Result<Option<StoredDeadLetter>> {
    sqlx::query_as("SELECT * FROM watchbook.dead_letters WHERE id = $1 ORDER BY failed_at DESC LIMIT 1")
        .bind(id)
        .fetch_optional(connection)
        .await
}

/// Locks these dead letters until the transaction ends. Returns the keys of those that are neither replayed nor
/// discarded, without those that another session has locked.
///
/// # Errors
/// If the statement fails.
pub async fn lock(transaction: &mut PgConnection, letters: &[StoredDeadLetter]) -> crate::Result<Vec<Key>> {
    let (times, ids) = columns(letters.iter().map(StoredDeadLetter::key));
    sqlx::query_as(
        "SELECT letter.failed_at, letter.id FROM watchbook.dead_letters AS letter
           JOIN unnest($1::timestamptz[], $2::uuid[]) AS wanted (failed_at, id) USING (failed_at, id)
          WHERE letter.replayed_at IS NULL AND letter.discarded_at IS NULL
            FOR UPDATE OF letter SKIP LOCKED",
    )
    .bind(times)
    .bind(ids)
    .fetch_all(transaction)
    .await
}

/// How a dead letter was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It was published again.
    Replayed,
    /// It was marked as not needed.
    Discarded,
}

/// Marks dead letters that are neither replayed nor discarded. Returns how many. Matches the whole key, not only the
/// id: a replayed message that failed again may be in the table before its replay is marked.
///
/// # Errors
/// If the statement fails.
pub async fn mark(
    connection: &mut PgConnection,
    letters: impl IntoIterator<Item = Key>,
    settled: Settled,
) -> crate::Result<u64> {
    let column = match settled {
        Settled::Replayed => "replayed_at",
        Settled::Discarded => "discarded_at",
    };
    let statement = format!(
        "UPDATE watchbook.dead_letters AS letter SET {column} = now()
           FROM unnest($1::timestamptz[], $2::uuid[]) AS wanted (failed_at, id)
          WHERE letter.failed_at = wanted.failed_at AND letter.id = wanted.id
            AND letter.replayed_at IS NULL AND letter.discarded_at IS NULL"
    );
    let (times, ids) = columns(letters);
    Ok(sqlx::query(&statement).bind(times).bind(ids).execute(connection).await?.rows_affected())
}
