//! `GET /api/audit` and `GET /api/organizations/{org}/audit`: who did what to what. Whoever reads it stands in it.

use axum::Json;
use axum::extract::{Path, State};
use chrono::TimeDelta;
use export::Look;
use records::audit::Address;
use serde_json::{Value, json};
use store::questions::audit::{self, AuditFilter, AuditRow};
use store::reading::Scope;
use utoipa::IntoParams;

use super::listing::{Checked, Reach};
use crate::app::App;
use crate::asker::Asker;
use crate::auth::Caller;
use crate::deeds::Done;
use crate::page::{List, Page};
use crate::problem::{Fault, Problem};
use crate::query::{FromQuery, Parameters, Query};

const ALL: &str = "/api/audit";
const OF_ONE: &str = "/api/organizations/{org}/audit";
/// How far back is looked unless asked: what an auditor calls a quarter.
const USUAL: TimeDelta = TimeDelta::days(90);
/// A range at the most: the log is kept for ever and cut by month, so ten years are 120 parts of a table, of which an
/// index tells at once where they have nothing.
pub(super) const LONGEST: TimeDelta = TimeDelta::days(3660);

/// Which deeds are asked for.
#[derive(Debug, Clone, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filters {
    /// Only of this actor.
    #[param(max_length = 256)]
    actor_id: Option<String>,
    /// Only of such actors: `user`, `system` or `api_key`.
    #[param(pattern = "^(user|system|api_key)$")]
    actor_type: Option<&'static str>,
    /// Only this, such as `project.delete`.
    #[param(max_length = 256)]
    action: Option<String>,
    /// Only to such things.
    #[param(max_length = 256)]
    target_type: Option<String>,
    /// Only to this thing.
    #[param(max_length = 256)]
    target_id: Option<String>,
    /// Only with this end: `SUCCESS` or `FAILURE`.
    #[param(pattern = "^(SUCCESS|FAILURE)$")]
    status: Option<&'static str>,
    /// Only from this address, or from one in this network.
    #[param(max_length = 64, value_type = Option<String>)]
    ip_address: Option<Address>,
}

impl FromQuery for Filters {
    fn from_query(parameters: &mut Parameters) -> Self {
        Self {
            actor_id: parameters.text("actor_id"),
            actor_type: parameters.one_of("actor_type", &["user", "system", "api_key"]),
            action: parameters.text("action"),
            target_type: parameters.text("target_type"),
            target_id: parameters.text("target_id"),
            status: parameters.one_of("status", &["SUCCESS", "FAILURE"]),
            ip_address: parameters.address("ip_address"),
        }
    }
}

impl Filters {
    pub(super) fn filter(&self) -> AuditFilter {
        AuditFilter {
            organization_id: None, // the reading is of those alone that are asked for
            actor_id: self.actor_id.clone(),
            actor_type: self.actor_type.map(str::to_owned),
            action: self.action.clone(),
            target_type: self.target_type.clone(),
            target_id: self.target_id.clone(),
            status: self.status.map(str::to_owned),
            ip_address: self.ip_address,
        }
    }

    /// How far back these may look, and do unless asked.
    pub(super) fn reach(&self, scope: &Scope) -> Reach {
        let longest = self.filter().longest(scope);
        Reach { usual: longest.map_or(USUAL, |longest| longest.min(USUAL)), longest }
    }

    /// That somebody looks at these deeds, as a deed.
    pub(super) fn looked_at(
        &self,
        action: &'static str,
        route: &'static str,
        page: &Page,
        checked: &Checked,
        more: Value,
    ) -> Done {
        let look = Look {
            way: ("route", route),
            named: page.organization_id.as_deref(),
            scope: &checked.scope,
            filter: &self.filter(),
            span: checked.page.span(),
            how: more,
        };
        Done {
            organization_id: look.organization_id(),
            action,
            target_type: Look::TARGET_TYPE,
            target_id: look.target_id(),
            reason: None,
            metadata: look.metadata(),
        }
    }
}

/// What a list of deeds is asked with.
#[derive(Debug)]
pub(crate) struct Asked {
    page: Page,
    filters: Filters,
}

impl FromQuery for Asked {
    fn from_query(parameters: &mut Parameters) -> Self {
        Self { page: Page::within(LONGEST, parameters), filters: Filters::from_query(parameters) }
    }
}

/// The audit log, newest first: of all organizations that the caller may see.
///
/// That it was read is written into it before anything is answered.
#[utoipa::path(get, path = "/api/audit", params(Page, Filters), responses(
    (status = 200, description = "A part of the log.", body = List<AuditRow>),
))]
pub(crate) async fn all(
    State(app): State<App>,
    Query(asked): Query<Asked>,
    caller: Caller,
    asker: Asker,
) -> Result<Json<List<AuditRow>>, Problem> {
    list(&app, &caller, &asker, ALL, &asked).await
}

/// The audit log of one organization, newest first.
///
/// That it was read is written into it before anything is answered.
#[utoipa::path(get, path = "/api/organizations/{org}/audit",
    params(("org" = String, Path, description = "The organization.", pattern = "^[A-Za-z0-9_-]{1,64}$"), Page, Filters),
    responses((status = 200, description = "A part of its log.", body = List<AuditRow>)))]
pub(crate) async fn of_one(
    State(app): State<App>,
    Path(organization): Path<String>,
    Query(mut asked): Query<Asked>,
    caller: Caller,
    asker: Asker,
) -> Result<Json<List<AuditRow>>, Problem> {
    if asked.page.organization_id.as_ref().is_some_and(|named| *named != organization) {
        let reason = "is another one than that of the path";
        return Err(Problem::parameters(vec![Fault::of("organization_id", reason)]));
    }
    // A cursor of one organization's log is none of another's.
    asked.page.filters = format!("{}:{organization};{}", organization.len(), asked.page.filters);
    asked.page.organization_id = Some(organization);
    list(&app, &caller, &asker, OF_ONE, &asked).await
}

async fn list(
    app: &App,
    caller: &Caller,
    asker: &Asker,
    route: &'static str,
    asked: &Asked,
) -> Result<Json<List<AuditRow>>, Problem> {
    let Asked { page, filters } = asked;
    let reach = filters.reach(&page.scope(caller)?);
    let checked = Checked::of(app, caller, route, page, reach)?;
    let how = json!({ "limit": page.limit, "is_first": page.cursor.is_none() });
    filters.looked_at("audit.read", route, page, &checked, how).write_first(app, caller, asker).await?;
    checked.answer(app, async |reading, page| audit::list(reading, &filters.filter(), page).await).await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::query::names_of;

    #[test]
    fn what_is_described_is_what_is_read() {
        let described = [Page::into_params(|| None), Filters::into_params(|| None)].concat();
        let described: BTreeSet<_> = described.iter().map(|param| param.name.as_str()).collect();
        assert_eq!(described, names_of::<Asked>());
    }

    #[test]
    fn a_search_without_an_index_looks_back_for_days_and_others_for_years() {
        let reach = |query: &str, scope: &Scope| Parameters::of(query).read::<Asked>().unwrap().filters.reach(scope);
        let slow = reach("status=FAILURE", &Scope::All);
        assert_eq!(slow.longest, Some(slow.usual));
        for (query, scope) in [
            ("", Scope::All),
            ("status=FAILURE&actor_id=u-1", Scope::All),
            ("status=FAILURE", Scope::Organizations(vec!["acme".to_owned()])),
        ] {
            assert_eq!((reach(query, &scope).usual, reach(query, &scope).longest), (USUAL, None), "{query}");
        }
        for wrong in ["ip_address=x", "ip_address=10.0.0.0/33", "status=success", "actor_type=robot", "actor=x"] {
            assert!(Parameters::of(wrong).read::<Asked>().is_err(), "{wrong}");
        }
    }
}
