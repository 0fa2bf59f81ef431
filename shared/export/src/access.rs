//! What the audit log says of whoever looks at it.

use serde_json::{Value, json};
use store::queries::Span;
use store::queries::audit::AuditFilter;
use store::scoped_read::Scope;

/// Somebody looks at the audit log. It stands in the log of the organization that they look at. Where these are several,
/// or one that they may not see, it is the platform's: nobody can write into the log of others.
#[derive(Debug, Clone)]
pub struct AuditAccess<'l> {
    /// By which way: what it is called, and which one, such as `route` and `/api/audit`.
    pub via: (&'static str, &'static str),
    /// The organization that was asked for, whether it may be seen or not.
    pub named: Option<&'l str>,
    /// Whose records are seen.
    pub scope: &'l Scope,
    /// Which of them.
    pub filter: &'l AuditFilter,
    /// Of which time.
    pub span: Span,
    /// How else it was asked.
    pub options: Value,
}

impl AuditAccess<'_> {
    /// To what kind of thing it is done.
    pub const TARGET_TYPE: &'static str = "audit_log";

    /// In whose log it stands; `None` for the platform's own.
    pub fn organization_id(&self) -> Option<String> {
        match self.scope {
            Scope::Organizations(names) if names.len() == 1 => names.first().cloned(),
            _ => None,
        }
    }

    /// Whose log is looked at; `*` for those of all, or of several.
    pub fn target_id(&self) -> String {
        let named = self.named.map(str::to_owned);
        named.or_else(|| self.organization_id()).unwrap_or_else(|| "*".to_owned())
    }

    /// What was asked.
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
