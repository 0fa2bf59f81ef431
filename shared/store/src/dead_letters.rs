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
    pub headers: &'m Headers,
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
    .bind(each(letters, |letter| headers_as_json(letter.headers)))
    .bind(each(letters, |letter| letter.received_at))
    .bind(failed_at)
    .execute(connection)
    .await?;
    Ok(())
}

/// Text without U+0000, which Postgres cannot hold: a dead letter must never be refused itself.
fn storable(text: &str) -> String {
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
