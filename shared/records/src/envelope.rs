//! The fields common to all records: id, times, organization, source, and everything else in `attributes`.

use std::borrow::Cow;
use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::value::RawValue;
use uuid::{Uuid, Variant};

use crate::fields::{Fields, string};
use crate::kind::Facts;
use crate::limits::{AHEAD_SECONDS, ID_BYTES, JSON_BYTES, TEXT_BYTES};
use crate::message::Message;
use crate::object::ObjectText;
use crate::row::RowWriter;
use crate::{Reason, Reject, json};

/// The common columns, in the order in which [`Envelope::encode`] writes them.
pub(crate) const COLUMNS: &[&str] = &["id", "organization_id", "created_at", "received_at", "source", "attributes"];

/// The namespace of derived UUIDs: for ids that are not UUIDs, and for messages without an id.
const NAMESPACE: Uuid = Uuid::from_u128(0x9c3f_7d52_6b1e_5c7a_8f04_2f6d_1c0b_93ae);

/// How far `created_at` may be behind and ahead of the stream's clock to determine the minute in the roll-ups.
const MINUTE_BEHIND: TimeDelta = TimeDelta::minutes(15);
const MINUTE_AHEAD: TimeDelta = TimeDelta::seconds(60);

pub(crate) struct Envelope<'t, 'm> {
    pub(crate) id: Uuid,
    pub(crate) created_at: DateTime<Utc>,
    organization: Option<&'m str>,
    source: Option<Cow<'t, str>>,
    attributes: Option<&'t RawValue>,
}

impl<'t, 'm> Envelope<'t, 'm> {
    /// Takes the common fields. `keep` is how long the kind is kept; `None` means forever.
    pub(crate) fn decode(
        fields: &mut Fields<'t>,
        message: &Message<'m>,
        organization: Option<&'m str>,
        keep: Option<TimeDelta>,
    ) -> Result<Self, Reject> {
        agree_on_organization(fields, organization)?;
        let id = match fields.take_exactly("id") {
            Some(raw) => Some(named_id(raw, organization)?),
            None => None,
        };
        let created_at = match fields.time("created_at", "created_at")? {
            Some(time) => Some(time),
            None => fields.time("timestamp", "created_at")?,
        };
        let id = id.unwrap_or_else(|| message.own_id());
        let created_at = created_at.or_else(|| version_7_time(id)).unwrap_or_else(|| message.own_time());
        check_age(created_at, message.published_at, keep)?;
        Ok(Self {
            id,
            created_at,
            organization,
            source: fields.text("source", TEXT_BYTES)?,
            attributes: fields.take_exactly("attributes"),
        })
    }

    /// Writes the common columns. They come last, because `attributes` holds the fields that the kind did not take.
    pub(crate) fn encode(
        &self,
        fields: &Fields<'_>,
        message: &Message<'_>,
        sanitized: bool,
        facts: Facts,
        row: &mut RowWriter<'_>,
    ) -> Result<(), Reject> {
        row.uuid(self.id);
        row.optional_text(self.organization);
        row.timestamp(self.created_at);
        row.timestamp(message.published_at);
        row.optional_text(self.source.as_deref());
        let attributes = self.attributes(fields, sanitized, facts);
        if attributes.len() > JSON_BYTES {
            return Err(Reject::too_large("attributes", attributes.len(), JSON_BYTES));
        }
        json::check("attributes", &attributes)?;
        row.jsonb(&attributes);
        Ok(())
    }

    /// Returns `attributes`: the members of the `attributes` that was sent, then the fields that nothing took, then
    /// what the decoder adds. Of equal names the last one counts in `jsonb`, so nothing hides what the decoder adds.
    fn attributes(&self, fields: &Fields<'_>, sanitized: bool, facts: Facts) -> Cow<'static, str> {
        if self.attributes.is_none() && !sanitized && facts.truncated_bytes == 0 && fields.left_over().next().is_none()
        {
            return Cow::Borrowed("{}");
        }
        let mut json = ObjectText::new();
        if let Some(sent) = self.attributes {
            // A set, because comparing a megabyte of names pairwise would take seconds.
            let ours: HashSet<&str> = fields.left_over().map(|(key, _)| key).collect();
            match Fields::parse(sent.get()) {
                // Merged if no name occurs in both. Otherwise it stays a member of its own, so that nothing is lost.
                Ok(sent) if sent.left_over().all(|(key, _)| !ours.contains(key)) => {
                    sent.left_over().for_each(|(key, value)| json.member(key, value));
                }
                _ => json.member("attributes", sent.get()),
            }
        }
        fields.left_over().for_each(|(key, value)| json.member(key, value));
        if sanitized {
            json.member("sanitized", "true");
        }
        if facts.truncated_bytes > 0 {
            json.member("truncated_bytes", &facts.truncated_bytes.to_string());
        }
        Cow::Owned(json.finish())
    }

    /// Returns the minute in which the roll-ups count the record: that of `created_at`, unless it is so far from the
    /// stream's time that the stream's time is more plausible.
    pub(crate) fn minute(&self, published_at: DateTime<Utc>) -> DateTime<Utc> {
        let skew = self.created_at - published_at;
        let time = if (-MINUTE_BEHIND..=MINUTE_AHEAD).contains(&skew) { self.created_at } else { published_at };
        let micros = time.timestamp_micros();
        DateTime::from_timestamp_micros(micros - micros.rem_euclid(60_000_000)).unwrap_or(time)
    }
}

/// Returns the id of a message without one. It is the same whenever the message is read again.
pub(crate) fn derived_id(stream: &str, sequence: u64, published_at: DateTime<Utc>) -> Uuid {
    let nanos = published_at.timestamp_nanos_opt().unwrap_or_default();
    Uuid::new_v5(&NAMESPACE, format!("{stream}\n{sequence}\n{nanos}").as_bytes())
}

fn agree_on_organization(fields: &mut Fields<'_>, organization: Option<&str>) -> Result<(), Reject> {
    let Some(named) = fields.text("organization_id", JSON_BYTES)? else { return Ok(()) };
    match organization {
        Some(organization) if organization == named => Ok(()),
        Some(organization) => Err(Reject::field(
            Reason::OrganizationMismatch,
            "organization_id",
            format!("the subject says `{organization}`, and the subject decides"),
        )),
        None => Err(Reject::field(
            Reason::OrganizationMismatch,
            "organization_id",
            "the subject says that there is no organization (`_`), and the subject decides",
        )),
    }
}

/// Returns the id of a record: a UUID as it is, any other string as a UUIDv5 of the organization and the string. Two
/// organizations may both have an `order-17` without being duplicates.
fn named_id(raw: &RawValue, organization: Option<&str>) -> Result<Uuid, Reject> {
    let text = string(raw.get()).ok_or_else(|| Reject::invalid("id", "expected a string"))?;
    if text.len() > ID_BYTES {
        return Err(Reject::too_large("id", text.len(), ID_BYTES));
    }
    if text.is_empty() {
        return Err(Reject::invalid("id", "must not be empty"));
    }
    Ok(Uuid::parse_str(&text).unwrap_or_else(|_| {
        Uuid::new_v5(&NAMESPACE, format!("{}\n{text}", organization.unwrap_or_default()).as_bytes())
    }))
}

/// Returns the time in a UUIDv7, in milliseconds (RFC 9562, section 5.7).
fn version_7_time(id: Uuid) -> Option<DateTime<Utc>> {
    if id.get_version_num() != 7 || id.get_variant() != Variant::RFC4122 {
        return None;
    }
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
}

/// Rejects records that retention would remove at once, and records of a clock that is wrong. It compares with the
/// stream's time of the message, not with the current time, so that reading the message again has the same result.
fn check_age(created_at: DateTime<Utc>, published_at: DateTime<Utc>, keep: Option<TimeDelta>) -> Result<(), Reject> {
    let refuse = |detail: String| Err(Reject::field(Reason::CreatedAtOutOfRange, "created_at", detail));
    if created_at - published_at > TimeDelta::seconds(AHEAD_SECONDS) {
        return refuse("more than 24 h ahead of the stream's clock".to_owned());
    }
    match keep {
        Some(keep) if published_at - created_at > keep => {
            let kept = match keep.num_hours() {
                hours if hours % 24 == 0 => format!("{} days", hours / 24),
                hours => format!("{hours} h"),
            };
            refuse(format!("older than the {kept} that this kind is kept"))
        }
        // Records that are kept forever still need a partition, and the number of partitions must be bounded.
        None if created_at < DateTime::UNIX_EPOCH => refuse("before 1970".to_owned()),
        _ => Ok(()),
    }
}
