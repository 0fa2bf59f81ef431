//! What of a kind somebody watches: what they may see, and of that what they ask for.

use std::collections::BTreeMap;

use records::Kind;
use store::scoped_read::Scope;

use super::event::Event;
use super::field::{Content, fields};
use crate::auth::Caller;
use crate::problem::Problem;
use crate::query::Parameters;

/// What of a kind somebody watches.
#[derive(Debug)]
pub(super) struct LiveFilter {
    kind: Kind,
    /// Its organizations in order.
    scope: Scope,
    /// Places in [`fields`], and what has to stand there.
    equal: Vec<(usize, Content)>,
}

impl LiveFilter {
    /// Reads what is asked for.
    ///
    /// # Errors
    /// 400 with each parameter that is at fault.
    pub(super) fn read(parameters: Parameters, kind: Kind, caller: &Caller) -> Result<Self, Problem> {
        let (organization, equal) = parameters.read_with(|parameters| {
            let organization = parameters.text("organization_id");
            let named = fields(kind).iter().enumerate();
            (organization, named.filter_map(|(place, field)| Some((place, field.read(parameters)?))).collect())
        })?;
        let mut scope = caller.scope(organization.as_deref())?;
        if let Scope::Organizations(own) = &mut scope {
            own.sort_unstable();
        }
        Ok(Self { kind, scope, equal })
    }

    /// Whether an event is for them. Whose it is says its subject alone.
    pub(super) fn matches(&self, event: &Event) -> bool {
        let may_see = match &self.scope {
            Scope::All => true,
            // They are in order, and may be a thousand, of each of many who watch.
            Scope::Organizations(own) => {
                event.organization.as_ref().is_some_and(|organization| own.binary_search(organization).is_ok())
            }
        };
        may_see
            && self
                .equal
                .iter()
                .all(|(place, filter)| event.content(*place).is_some_and(|content| filter.admits(content)))
    }

    /// Whose records they see.
    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// What they ask for, by the names of fields.
    pub(super) fn filters(&self) -> BTreeMap<&'static str, String> {
        let fields = fields(self.kind);
        self.equal.iter().filter_map(|(place, filter)| Some((fields.get(*place)?.name(), filter.to_string()))).collect()
    }

    /// Whether they see everything there is, and so may know how much that is.
    pub(super) fn sees_all(&self) -> bool {
        self.scope == Scope::All
    }
}
