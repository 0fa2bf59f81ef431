//! The filter of a live stream: the organizations that the reader may see, and the fields that it filters by.

use std::collections::BTreeMap;

use records::Kind;
use store::scoped_read::Scope;

use super::event::Event;
use super::field::{Content, fields};
use crate::auth::Caller;
use crate::problem::Problem;
use crate::query::Parameters;

/// The filter of a live stream.
#[derive(Debug)]
pub(super) struct LiveFilter {
    kind: Kind,
    /// The organizations, sorted.
    scope: Scope,
    /// Indexes in [`fields`], with the values that must match.
    equal: Vec<(usize, Content)>,
}

impl LiveFilter {
    /// Reads the filter from the query parameters.
    ///
    /// # Errors
    /// 400 that names each invalid or unknown parameter.
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

    /// Returns whether an event matches. Its organization is that of its subject, whatever the body contains.
    pub(super) fn matches(&self, event: &Event) -> bool {
        let may_see = match &self.scope {
            Scope::All => true,
            // Binary search: there may be many readers, with up to a thousand organizations each.
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

    /// Returns the organizations that the reader sees.
    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Returns the values that must match, by field name.
    pub(super) fn filters(&self) -> BTreeMap<&'static str, String> {
        let fields = fields(self.kind);
        self.equal.iter().filter_map(|(place, filter)| Some((fields.get(*place)?.name(), filter.to_string()))).collect()
    }

    /// Returns whether the reader sees all organizations. Only then may it learn how many records there are.
    pub(super) fn sees_all(&self) -> bool {
        self.scope == Scope::All
    }
}
