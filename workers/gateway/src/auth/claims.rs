//! What a token says.

use std::collections::BTreeSet;
use std::sync::Arc;

use records::subject;
use serde::Deserialize;

use super::{Caller, Organizations, Role};

/// A subject's length at the most: it stands in audit records, whose ids are bounded so.
const SUBJECT_BYTES: usize = 256;
/// Organizations of one token at the most. More fit into no header.
const ORGANIZATIONS: usize = 1_000;
/// In `orgs`: every organization.
const ALL: &str = "*";

/// The claims that we read; what `iss`, `aud`, `exp` and `nbf` say is checked before.
#[derive(Debug, Deserialize)]
pub(crate) struct Claims {
    pub(crate) sub: String,
    pub(crate) exp: u64,
    #[serde(default)]
    pub(crate) orgs: Vec<String>,
    pub(crate) role: Role,
}

impl Claims {
    /// Who calls, or what the token says that cannot be.
    pub(crate) fn caller(self) -> Result<Caller, &'static str> {
        if self.sub.is_empty() || self.sub.len() > SUBJECT_BYTES || self.sub.contains('\0') {
            return Err("`sub` has to be 1 to 256 bytes");
        }
        if self.orgs.len() > ORGANIZATIONS {
            return Err("`orgs` names more organizations than are taken");
        }
        let organizations = if self.orgs.iter().any(|name| name == ALL) {
            Organizations::All
        } else {
            if !self.orgs.iter().all(|name| subject::is_organization(name)) {
                return Err("`orgs` names what can be no organization");
            }
            // Records without an organization are seen by `*` alone: `_` names nobody.
            let named = self.orgs.into_iter().filter(|name| name != subject::NO_ORGANIZATION);
            Organizations::Set(Arc::new(named.collect::<BTreeSet<_>>()))
        };
        Ok(Caller { subject: self.sub.into(), role: self.role, organizations })
    }
}
