//! Dead letters: messages that could not become a row, whole, with the reason.

use chrono::{DateTime, Utc};
use records::{Headers, Reject};
use sqlx::PgConnection;
use uuid::Uuid;

/// A message that could not become a row.
#[derive(Debug, Clone)]
pub struct DeadLetter<'m> {
    /// Derived from where the message stands in its stream.
    pub id: Uuid,
    /// The kind of the stream.
    pub kind: &'static str,
    /// On which subject it was published.
    pub subject: &'m str,
    /// In which stream it stands.
    pub stream: &'m str,
    /// Where in the stream.
    pub stream_seq: u64,
    /// Why it could not become a row.
    pub reject: Reject,
    /// The body, whole.
    pub payload: &'m [u8],
    /// The headers.
    pub headers: Headers,
    /// When the stream took it.
    pub received_at: DateTime<Utc>,
}

/// Writes dead letters, as part of the batch that they came out of. Their partition must be there.
///
/// # Errors
/// Where the statement fails.
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

/// Text without U+0000, which Postgres cannot hold: what went wrong must never be refused itself.
pub(crate) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Headers as an object of lists, because a header may come more than once.
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

/// The headers of a stored dead letter.
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

/// A dead letter as it is stored.
#[derive(Debug, Clone, sqlx::FromRow, serde::Serialize, utoipa::ToSchema)]
#[schema(as = DeadLetter)]
pub struct StoredDeadLetter {
    /// Its id.
    pub id: Uuid,
    /// The kind of its stream.
    pub kind: String,
    /// On which subject it was published.
    pub subject: String,
    /// In which stream it stood.
    pub stream: String,
    /// Where in the stream; answered with null to who does not see everything.
    #[schema(value_type = Option<i64>)]
    pub stream_seq: i64,
    /// Why it could not become a row.
    pub reason: String,
    /// The field at fault.
    pub field: Option<String>,
    /// The reason in words.
    pub detail: String,
    /// The body, whole.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub payload: Vec<u8>,
    /// The headers: an object of lists.
    pub headers: Option<serde_json::Value>,
    /// When the stream took it.
    pub received_at: DateTime<Utc>,
    /// When it was found wanting.
    pub failed_at: DateTime<Utc>,
    /// When it was published again.
    pub replayed_at: Option<DateTime<Utc>>,
    /// When somebody decided that it is not needed.
    pub discarded_at: Option<DateTime<Utc>>,
}

/// A body for a listing. What is no UTF-8 is shown with U+FFFD; the table has the bytes.
fn as_text<S: serde::Serializer>(payload: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(payload))
}

/// Which dead letters a command is about.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only these; all where empty.
    pub ids: Vec<Uuid>,
    /// Only of this kind.
    pub kind: Option<&'static str>,
    /// Only of this reason.
    pub reason: Option<&'static str>,
    /// Those that were replayed or discarded as well.
    pub settled_too: bool,
    /// Only those that failed before this time.
    pub failed_before: Option<DateTime<Utc>>,
}

/// What tells a dead letter from all others: when it failed, and its id. A message that comes back
/// after a replay is a letter of its own with the id of the first.
pub type Key = (DateTime<Utc>, Uuid);

impl StoredDeadLetter {
    /// What tells it from all others.
    pub fn key(&self) -> Key {
        (self.failed_at, self.id)
    }

    /// Whose it is, by its subject; `None` for nobody's, and where the subject is none of its stream's. As
    /// `watchbook.organization_of` has it.
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

/// Keys as the two lists that `unnest` makes rows of.
fn columns(keys: impl IntoIterator<Item = Key>) -> (Vec<DateTime<Utc>>, Vec<Uuid>) {
    keys.into_iter().unzip()
}

/// Dead letters behind `after`, oldest first, `limit` at the most.
///
/// # Errors
/// Where the database cannot be asked.
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

/// The dead letter of this id that failed last, whatever became of it.
///
/// # Errors
/// Where the database cannot be asked.
pub async fn newest(connection: &mut PgConnection, id: Uuid) -> crate::Result<Option<StoredDeadLetter>> {
    sqlx::query_as("SELECT * FROM watchbook.dead_letters WHERE id = $1 ORDER BY failed_at DESC LIMIT 1")
        .bind(id)
        .fetch_optional(connection)
        .await
}

/// Keeps other sessions from these dead letters until the transaction ends, and returns those that are
/// still neither replayed nor discarded. What another session works on is left out.
///
/// # Errors
/// Where the statement fails.
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

/// What became of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It was published again.
    Replayed,
    /// Somebody decided that it is not needed.
    Discarded,
}

/// Marks dead letters that are neither replayed nor discarded, and says how many. These and no others
/// of their ids: what came back of a replay may be in the table before the replay is marked.
///
/// # Errors
/// Where the statement fails.
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
