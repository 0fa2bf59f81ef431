//! What of a kind somebody watches: what they may see, and of that what they ask for.

use std::collections::BTreeMap;

use records::Kind;
use store::reading::Scope;

use super::event::Event;
use crate::auth::Caller;
use crate::problem::Problem;
use crate::query::Parameters;

/// What of a kind somebody watches.
#[derive(Debug)]
pub(super) struct Wanted {
    kind: Kind,
    scope: Scope,
    /// Places in [`fields`], and what has to stand there.
    equal: Vec<(usize, String)>,
}

/// The fields of a kind by which it can be filtered: those by which its list can be.
pub(super) const fn fields(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Events => &["project_id", "run_id", "user_id", "event_type"],
        Kind::Errors => &["trace_id", "project_id", "run_id", "error_type", "severity", "endpoint"],
        Kind::Metrics => &["container_id"],
        Kind::Logs => &["container_id", "stream"],
        Kind::Audit => &["actor_id", "actor_type", "action", "target_type", "target_id", "status", "ip_address"],
        Kind::Executions => &["user_id", "strategy_id", "execution_type", "success"],
        Kind::Directory => &["entity", "entity_id"],
    }
}

impl Wanted {
    /// Reads what is asked for.
    ///
    /// # Errors
    /// 400 with each parameter that is at fault.
    pub(super) fn read(parameters: Parameters, kind: Kind, caller: &Caller) -> Result<Self, Problem> {
        let (organization, equal) = parameters.read_with(|parameters| {
            let organization = parameters.text("organization_id");
            let named = fields(kind).iter().enumerate();
            (organization, named.filter_map(|(place, name)| Some((place, parameters.text(name)?))).collect())
        })?;
        Ok(Self { kind, scope: caller.scope(organization.as_deref())?, equal })
    }

    /// Whether an event is for them. Whose it is says its subject alone.
    pub(super) fn has(&self, event: &Event) -> bool {
        let may_see = match &self.scope {
            Scope::All => true,
            Scope::Organizations(own) => {
                event.organization.as_ref().is_some_and(|organization| own.contains(organization))
            }
        };
        may_see && self.equal.iter().all(|(place, text)| event.field(*place) == Some(text))
    }

    /// Whose records they see.
    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// What they ask for, by the names of fields.
    pub(super) fn filters(&self) -> BTreeMap<&'static str, &str> {
        let names = fields(self.kind);
        self.equal.iter().filter_map(|(place, text)| Some((*names.get(*place)?, text.as_str()))).collect()
    }

    /// Whether they see everything there is, and so may know how much that is.
    pub(super) fn sees_all(&self) -> bool {
        self.scope == Scope::All
    }
}
