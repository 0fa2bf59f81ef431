//! Adds and releases holds, with their audit events.

use chrono::{DateTime, Utc};
use self_audit::AuditEvent;
use serde_json::json;
use store::holds::{self, Hold};
use store::{Connection, Dataset, PgConnection};
use uuid::Uuid;

/// A request for a hold.
#[derive(Debug, Clone)]
pub struct NewHold {
    /// The organization whose records are held; `None` for all, `_` for records without an organization.
    pub organization_id: Option<String>,
    /// The kind, or `dead_letters`; `None` for all.
    pub kind: Option<String>,
    /// Start of the time range, inclusive; `None` for no bound.
    pub starts_at: Option<DateTime<Utc>>,
    /// End of the time range, exclusive; `None` for no bound.
    pub ends_at: Option<DateTime<Utc>>,
    /// Time at which the hold expires; `None` if it lasts until it is released.
    pub expires_at: Option<DateTime<Utc>>,
    /// The reason, for people; at most 4 KiB.
    pub reason: String,
    /// The actor; 1 to 256 bytes.
    pub created_by: String,
}

impl NewHold {
    /// Returns what is wrong with the request, as texts for people.
    pub fn problems(&self, now: DateTime<Utc>) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, problem: String| {
            if !ok {
                problems.push(problem);
            }
        };
        if let (Some(starts_at), Some(ends_at)) = (self.starts_at, self.ends_at) {
            check(starts_at < ends_at, format!("it ends ({ends_at}) before it begins ({starts_at})"));
        }
        check(self.expires_at.is_none_or(|expires_at| expires_at > now), "it would be over already".to_owned());
        check(!self.reason.trim().is_empty(), "say why: whoever releases it has to know".to_owned());
        check(self.reason.len() <= records::limits::TEXT_BYTES, "the reason is longer than 4 KiB".to_owned());
        check(
            !self.created_by.is_empty() && self.created_by.len() <= records::limits::ID_BYTES,
            "a name is 1 to 256 bytes".to_owned(),
        );
        if let Some(organization) = &self.organization_id {
            check(
                records::subject::is_organization(organization) || organization == records::subject::NO_ORGANIZATION,
                format!("`{organization}` is no organization: 1 to 64 of A-Z a-z 0-9 _ -, or `_` for none"),
            );
        }
        if let Some(kind) = &self.kind {
            let is_known = Dataset::named(kind).is_some_and(Dataset::has_records);
            let known: Vec<_> = Dataset::all().filter(|dataset| dataset.has_records()).map(Dataset::name).collect();
            check(is_known, format!("unknown kind `{kind}`: expected one of {}", known.join(", ")));
        }
        problems
    }
}

/// Adds a hold, with its audit event.
///
/// # Errors
/// If a statement fails.
pub async fn add(connection: &mut PgConnection, new: NewHold, now: DateTime<Utc>) -> store::Result<Hold> {
    let hold = Hold {
        id: Uuid::now_v7(),
        organization_id: new.organization_id,
        kind: new.kind,
        starts_at: new.starts_at,
        ends_at: new.ends_at,
        reason: new.reason,
        created_by: new.created_by,
        created_at: now,
        expires_at: new.expires_at,
        released_at: None,
        released_by: None,
    };
    let mut transaction = connection.begin().await?;
    holds::insert(&mut transaction, &hold).await?;
    write_audit_event(&mut transaction, &hold, "retention.hold", &hold.created_by).await?;
    transaction.commit().await?;
    Ok(hold)
}

/// Releases a hold, with its audit event. Returns `None` if no hold in force has this id.
///
/// # Errors
/// If a statement fails.
pub async fn release(connection: &mut PgConnection, id: Uuid, by: &str) -> store::Result<Option<Hold>> {
    let mut transaction = connection.begin().await?;
    let Some(hold) = holds::release(&mut transaction, id, by).await? else { return Ok(None) };
    write_audit_event(&mut transaction, &hold, "retention.release", by).await?;
    transaction.commit().await?;
    Ok(Some(hold))
}

async fn write_audit_event(
    transaction: &mut PgConnection,
    hold: &Hold,
    action: &'static str,
    by: &str,
) -> store::Result<()> {
    let event = AuditEvent {
        organization_id: hold.organization_id.as_deref(),
        actor_id: by,
        action,
        target_type: "retention_hold",
        target_id: hold.id.to_string(),
        reason: Some(&hold.reason),
        problem: None,
        metadata: json!({
            "organization_id": hold.organization_id, "kind": hold.kind, "starts_at": hold.starts_at,
            "ends_at": hold.ends_at, "expires_at": hold.expires_at,
        }),
        ..AuditEvent::default()
    };
    self_audit::audit(transaction, &event).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new() -> NewHold {
        NewHold {
            organization_id: None,
            kind: None,
            starts_at: None,
            ends_at: None,
            expires_at: None,
            reason: "a lawsuit".to_owned(),
            created_by: "ann".to_owned(),
        }
    }

    #[test]
    fn a_hold_that_cannot_be_is_refused_in_words() {
        let now: DateTime<Utc> = "2026-11-25T12:00:00Z".parse().unwrap();
        let hour = chrono::TimeDelta::hours(1);
        assert_eq!(new().problems(now), Vec::<String>::new());
        for (hold, word) in [
            (NewHold { starts_at: Some(now), ends_at: Some(now - hour), ..new() }, "before it begins"),
            (NewHold { starts_at: Some(now), ends_at: Some(now), ..new() }, "before it begins"),
            (NewHold { expires_at: Some(now), ..new() }, "over already"),
            (NewHold { reason: " ".to_owned(), ..new() }, "say why"),
            (NewHold { created_by: String::new(), ..new() }, "a name"),
            (NewHold { kind: Some("metric_hours".to_owned()), ..new() }, "unknown kind"),
            (NewHold { kind: Some("evnts".to_owned()), ..new() }, "events, errors"),
            (NewHold { organization_id: Some("a b".to_owned()), ..new() }, "no organization"),
        ] {
            let problems = hold.problems(now);
            assert!(problems.len() == 1 && problems[0].contains(word), "{problems:?}");
        }
        assert!(
            NewHold { organization_id: Some("_".to_owned()), kind: Some("dead_letters".to_owned()), ..new() }
                .problems(now)
                .is_empty()
        );
    }
}
