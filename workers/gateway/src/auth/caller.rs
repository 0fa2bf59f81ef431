//! Callers: their role, their organizations, and the scope of their queries.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use records::subject;
use serde::{Deserialize, Serialize};
use store::scoped_read::Scope;
use utoipa::ToSchema;

use crate::problem::{Fault, Problem};

/// The role of a caller. Each role includes the permissions of the roles before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Queries and live streams.
    Viewer,
    /// Also publishes records.
    Producer,
    /// Also silences, acknowledges, replays and discards.
    Operator,
    /// All routes.
    Admin,
}

impl Role {
    /// All roles, the lowest first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Producer, Self::Operator, Self::Admin];

    /// Returns the role's name in tokens.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Producer => "producer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// The organizations whose records a caller may see and publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Organizations {
    /// All organizations, and records without an organization.
    All,
    /// Only these organizations.
    Set(Arc<BTreeSet<String>>),
}

/// The subject of a verified token, with its role and organizations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's `sub`.
    pub subject: Arc<str>,
    /// The role.
    pub role: Role,
    /// The organizations.
    pub organizations: Organizations,
}

impl Caller {
    /// Returns the organizations that a query covers: all of the caller's, or the one that it names.
    ///
    /// An organization that is not the caller's gives an empty scope, as if it did not exist: the query finds nothing,
    /// and there is no error.
    ///
    /// # Errors
    /// 400 for an invalid organization name, for every caller.
    pub fn scope(&self, organization_id: Option<&str>) -> Result<Scope, Problem> {
        let Some(organization) = organization_id else {
            return Ok(match &self.organizations {
                Organizations::All => Scope::All,
                Organizations::Set(own) => Scope::Organizations(own.iter().cloned().collect()),
            });
        };
        if !subject::is_organization(organization) {
            let reason = "expected 1 to 64 of A-Z a-z 0-9 _ -";
            return Err(Problem::parameters(vec![Fault::of("organization_id", reason)]));
        }
        let is_theirs = match &self.organizations {
            Organizations::All => true,
            Organizations::Set(own) => own.contains(organization),
        };
        let asked = is_theirs.then(|| organization.to_owned());
        Ok(Scope::Organizations(asked.into_iter().collect()))
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Absent only if a route is mounted as public and its handler takes a caller, which is a bug.
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            tracing::error!(path = parts.uri.path(), "a public route has a caller as an argument, which is a bug");
            Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn caller(organizations: Organizations) -> Caller {
        Caller { subject: "s".into(), role: Role::Viewer, organizations }
    }

    fn set(names: &[&str]) -> Arc<BTreeSet<String>> {
        Arc::new(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn a_foreign_organization_is_one_that_does_not_exist() {
        let own = caller(Organizations::Set(set(&["acme", "umbra"])));
        assert_eq!(own.scope(None).unwrap(), Scope::Organizations(names(&["acme", "umbra"])));
        assert_eq!(own.scope(Some("acme")).unwrap(), Scope::Organizations(names(&["acme"])));
        for foreign in ["globex", "no-such-organization", "_", "ACME"] {
            assert_eq!(own.scope(Some(foreign)).unwrap(), Scope::Organizations(names(&[])), "{foreign}");
        }
        let all = caller(Organizations::All);
        assert_eq!(all.scope(None).unwrap(), Scope::All);
        assert_eq!(all.scope(Some("acme")).unwrap(), Scope::Organizations(names(&["acme"])));
        for wrong in ["", "a.b", "a b", "'; --", "*", "a\0"] {
            assert!(own.scope(Some(wrong)).is_err() && all.scope(Some(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn each_role_may_what_those_before_it_may() {
        assert!(Role::ALL.is_sorted());
        for role in Role::ALL {
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{}\"", role.name()));
        }
    }
}
