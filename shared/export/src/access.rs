//! The audit event for reading the audit log.

use serde_json::{Value, json};
use store::queries::Span;
use store::queries::audit::AuditFilter;
use store::scoped_read::Scope;

/// A read of the audit log. It is recorded in the log of the organization that is read. If several are read, or one
/// that the caller may not see, it is recorded in the platform's log: nobody can write into the logs of others.
#[derive(Debug, Clone)]
pub struct AuditAccess<'l> {
    /// The kind of access and its name, such as `route` and `/api/audit`.
    pub via: (&'static str, &'static str),
    /// The requested organization, whether the caller may see it or not.
    pub named: Option<&'l str>,
    /// The organizations whose records are read.
    pub scope: &'l Scope,
    /// The filter.
    pub filter: &'l AuditFilter,
    /// The time range.
    pub span: Span,
    /// Other options of the request.
    pub options: Value,
}

impl AuditAccess<'_> {
    /// The type of the target in the audit event.
    pub const TARGET_TYPE: &'static str = "audit_log";

    /// Returns the organization in whose log the event is recorded; `None` for the platform's log.
    pub fn organization_id(&self) -> Option<String> {
        match self.scope {
            Scope::Organizations(names) if names.len() == 1 => names.first().cloned(),
            _ => None,
        }
    }

    /// Returns the organization whose log is read; `*` for all or several.
    pub fn target_id(&self) -> String {
        let named = self.named.map(str::to_owned);
        named.or_else(|| self.organization_id()).unwrap_or_else(|| "*".to_owned())
    }

    /// Returns the metadata of the audit event: access, filters, range, organizations and options.
    pub fn metadata(&self) -> Value {
        let seen = match self.scope {
            Scope::All => json!("*"),
            Scope::Organizations(names) => json!(names),
        };
        let (via, which) = self.via;
        json!({
            via: which, "filters": self.filter, "from": self.span.from, "to": self.span.to, "organizations": seen,
            "how": self.options,
        })
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn it_stands_in_the_log_that_was_looked_at() {
        let span = Span { from: DateTime::UNIX_EPOCH, to: DateTime::UNIX_EPOCH };
        let filter = AuditFilter { actor_id: Some("u-1".to_owned()), ..AuditFilter::default() };
        let of = |names: &[&str]| Scope::Organizations(names.iter().map(|name| (*name).to_owned()).collect());
        for (scope, named, organization, target) in [
            (of(&["acme"]), None, Some("acme"), "acme"),
            (of(&["acme", "umbra"]), None, None, "*"),
            (of(&[]), Some("globex"), None, "globex"),
            (Scope::All, None, None, "*"),
        ] {
            let (via, scope, filter) = (("route", "/x"), &scope, &filter);
            let access = AuditAccess { via, named, scope, filter, span, options: json!({}) };
            assert_eq!(access.organization_id().as_deref(), organization, "{scope:?}");
            assert_eq!(access.target_id(), target, "{scope:?}");
            let told = access.metadata();
            assert_eq!((&told["route"], &told["filters"]), (&json!("/x"), &json!({ "actor_id": "u-1" })));
        }
    }
}
