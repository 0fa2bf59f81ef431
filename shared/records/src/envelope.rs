//! What every record has: identity, times, origin, and everything else in `attributes`.

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

/// The namespace of the UUIDs that we derive ourselves: of ids that are not UUIDs, and of messages without one.
const NAMESPACE: Uuid = Uuid::from_u128(0x9c3f_7d52_6b1e_5c7a_8f04_2f6d_1c0b_93ae);

/// How far a producer's clock may lie behind and ahead of the stream's for its minute to count in the roll-ups.
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
    /// Takes the common fields.
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

    /// Writes the common columns. Comes last, because `attributes` is what the kind left over.
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

    /// The left-over members, those of a sent `attributes` object first so that nothing hides ours.
    fn attributes(&self, fields: &Fields<'_>, sanitized: bool, facts: Facts) -> Cow<'static, str> {
        if self.attributes.is_none() && !sanitized && facts.truncated_bytes == 0 && fields.left_over().next().is_none()
        {
            return Cow::Borrowed("{}");
        }
        let mut json = ObjectText::new();
        if let Some(sent) = self.attributes {
            // A set, because a megabyte of names on both sides would take seconds to compare pairwise.
            let ours: HashSet<&str> = fields.left_over().map(|(key, _)| key).collect();
            match Fields::parse(sent.get()) {
                // Merged where no name stands twice, whole where one does: nothing is lost.
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

    /// The minute in which the roll-ups count this record: when it happened, unless the producer's
    /// clock is so far off that the stream's is the better witness.
    pub(crate) fn minute(&self, published_at: DateTime<Utc>) -> DateTime<Utc> {
        let skew = self.created_at - published_at;
        let time = if (-MINUTE_BEHIND..=MINUTE_AHEAD).contains(&skew) { self.created_at } else { published_at };
        let micros = time.timestamp_micros();
        DateTime::from_timestamp_micros(micros - micros.rem_euclid(60_000_000)).unwrap_or(time)
    }
}

/// The id of a message that names none: the same one whenever the message is read again.
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

/// A UUID as it is, any other string as the UUIDv5 of it within its organization: two organizations
/// that both have an `order-17` must not be each other's duplicates.
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

/// The milliseconds inside a UUIDv7 (RFC 9562, section 5.7).
fn version_7_time(id: Uuid) -> Option<DateTime<Utc>> {
    if id.get_version_num() != 7 || id.get_variant() != Variant::RFC4122 {
        return None;
    }
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
}

/// Refuses what retention would remove at once, and what comes from a clock that is wrong. The
/// measure is the stream's time of the message and not today's, so that reading again ends the same way.
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
        // What is kept for ever still needs a partition, and a number of them that is bounded.
        None if created_at < DateTime::UNIX_EPOCH => refuse("before 1970".to_owned()),
        _ => Ok(()),
    }
}
