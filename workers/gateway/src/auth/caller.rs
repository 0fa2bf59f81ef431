//! Roles, organizations, and what of them a query may see.

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

/// What a caller may do. Each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Also posts records.
    Producer,
    /// Also silences, acknowledges and replays.
    Operator,
    /// Everything.
    Admin,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Producer, Self::Operator, Self::Admin];

    /// As it stands in a token.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Producer => "producer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// Whose records a caller may see and post.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Organizations {
    /// Everybody's, and those of nobody.
    All,
    /// These organizations' and no others.
    Set(Arc<BTreeSet<String>>),
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's `sub`.
    pub subject: Arc<str>,
    /// What they may do.
    pub role: Role,
    /// Whose records.
    pub organizations: Organizations,
}

impl Caller {
    /// What of their organizations a query is about: all, or the one that it names.
    ///
    /// One that is not theirs is answered as one that does not exist: nothing is found, and no error tells.
    ///
    /// # Errors
    /// 400 for what can be nobody's organization, whoever asks.
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
        // Absent only on a route that is mounted as public and asks for a caller all the same: a mistake of ours.
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            tracing::error!(path = parts.uri.path(), "a public route asks who calls");
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
