//! `GET /api/audit` and `GET /api/organizations/{org}/audit`: the audit log. Reading it is itself audited.

use axum::Json;
use axum::extract::{Path, State};
use chrono::TimeDelta;
use export::AuditAccess;
use records::audit::Address;
use serde_json::{Value, json};
use store::queries::audit::{self, AuditFilter, AuditRow};
use store::scoped_read::Scope;
use utoipa::IntoParams;

use super::listing::{CheckedPage, TimeLimits};
use crate::app::App;
use crate::audited_action::AuditedAction;
use crate::auth::Caller;
use crate::page::{List, Page};
use crate::problem::{Fault, Problem};
use crate::query::{FromQuery, Parameters, Query};
use crate::request_context::RequestContext;

const ALL: &str = "/api/audit";
const OF_ORGANIZATION: &str = "/api/organizations/{org}/audit";
/// The default range: a quarter, as auditors understand it.
const DEFAULT_RANGE: TimeDelta = TimeDelta::days(90);
/// The longest range. The log is kept for ever and partitioned by month: ten years are 120 partitions, and an index
/// shows at once which of them have no matching rows.
pub(super) const LONGEST: TimeDelta = TimeDelta::days(3660);

/// Filters for audit events.
#[derive(Debug, Clone, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filters {
    /// Return only events of this actor.
    #[param(max_length = 256)]
    actor_id: Option<String>,
    /// Return only events of this type of actor: `user`, `system` or `api_key`.
    #[param(pattern = "^(user|system|api_key)$")]
    actor_type: Option<&'static str>,
    /// Return only events with this action, such as `project.delete`.
    #[param(max_length = 256)]
    action: Option<String>,
    /// Return only events with this type of target.
    #[param(max_length = 256)]
    target_type: Option<String>,
    /// Return only events with this target.
    #[param(max_length = 256)]
    target_id: Option<String>,
    /// Return only events with this status: `SUCCESS` or `FAILURE`.
    #[param(pattern = "^(SUCCESS|FAILURE)$")]
    status: Option<&'static str>,
    /// Return only events from this IP address or network (CIDR).
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
            organization_id: None, // the scope of the transaction restricts it
            actor_id: self.actor_id.clone(),
            actor_type: self.actor_type.map(str::to_owned),
            action: self.action.clone(),
            target_type: self.target_type.clone(),
            target_id: self.target_id.clone(),
            status: self.status.map(str::to_owned),
            ip_address: self.ip_address,
        }
    }

    /// Returns the default and the longest range for these filters.
    pub(super) fn limits(&self, scope: &Scope) -> TimeLimits {
        let longest = self.filter().longest(scope);
        TimeLimits { default: longest.map_or(DEFAULT_RANGE, |longest| longest.min(DEFAULT_RANGE)), longest }
    }

    /// Returns the audit event for this read of the audit log.
    pub(super) fn access_event(
        &self,
        action: &'static str,
        route: &'static str,
        page: &Page,
        checked: &CheckedPage,
        more: Value,
    ) -> AuditedAction {
        let access = AuditAccess {
            via: ("route", route),
            named: page.organization_id.as_deref(),
            scope: &checked.scope,
            filter: &self.filter(),
            span: checked.page.span(),
            options: more,
        };
        AuditedAction {
            organization_id: access.organization_id(),
            action,
            target_type: AuditAccess::TARGET_TYPE,
            target_id: access.target_id(),
            reason: None,
            metadata: access.metadata(),
        }
    }
}

/// The query parameters of the list.
#[derive(Debug)]
pub(crate) struct ListParams {
    page: Page,
    filters: Filters,
}

impl FromQuery for ListParams {
    fn from_query(parameters: &mut Parameters) -> Self {
        Self { page: Page::within(LONGEST, parameters), filters: Filters::from_query(parameters) }
    }
}

/// Lists the audit events of all organizations that the caller may see, newest first.
///
/// The read is recorded in the audit log before the response starts.
#[utoipa::path(get, path = "/api/audit", params(Page, Filters), responses(
    (status = 200, description = "A page of audit events.", body = List<AuditRow>),
))]
pub(crate) async fn all(
    State(app): State<App>,
    Query(params): Query<ListParams>,
    caller: Caller,
    context: RequestContext,
) -> Result<Json<List<AuditRow>>, Problem> {
    list(&app, &caller, &context, ALL, &params).await
}

/// Lists the audit events of one organization, newest first.
///
/// The read is recorded in the audit log before the response starts.
#[utoipa::path(get, path = "/api/organizations/{org}/audit",
    params(("org" = String, Path, description = "The organization's id.", pattern = "^[A-Za-z0-9_-]{1,64}$"), Page, Filters),
    responses((status = 200, description = "A page of audit events.", body = List<AuditRow>)))]
pub(crate) async fn of_one(
    State(app): State<App>,
    Path(organization): Path<String>,
    Query(mut params): Query<ListParams>,
    caller: Caller,
    context: RequestContext,
) -> Result<Json<List<AuditRow>>, Problem> {
    if params.page.organization_id.as_ref().is_some_and(|named| *named != organization) {
        let reason = "differs from the organization in the path";
        return Err(Problem::parameters(vec![Fault::of("organization_id", reason)]));
    }
    // A cursor is valid for the log of one organization only.
    params.page.filters = format!("{}:{organization};{}", organization.len(), params.page.filters);
    params.page.organization_id = Some(organization);
    list(&app, &caller, &context, OF_ORGANIZATION, &params).await
}

async fn list(
    app: &App,
    caller: &Caller,
    context: &RequestContext,
    route: &'static str,
    params: &ListParams,
) -> Result<Json<List<AuditRow>>, Problem> {
    let ListParams { page, filters } = params;
    let limits = filters.limits(&page.scope(caller)?);
    let checked = CheckedPage::of(app, caller, route, page, limits)?;
    let options = json!({ "limit": page.limit, "is_first": page.cursor.is_none() });
    filters
        .access_event("audit.read", route, page, &checked, options)
        .write_before_response(app, caller, context)
        .await?;
    checked.answer(app, async |transaction, page| audit::list(transaction, &filters.filter(), page).await).await
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
        assert_eq!(described, names_of::<ListParams>());
    }

    #[test]
    fn a_search_without_an_index_looks_back_for_days_and_others_for_years() {
        let limits =
            |query: &str, scope: &Scope| Parameters::of(query).read::<ListParams>().unwrap().filters.limits(scope);
        let slow = limits("status=FAILURE", &Scope::All);
        assert_eq!(slow.longest, Some(slow.default));
        for (query, scope) in [
            ("", Scope::All),
            ("status=FAILURE&actor_id=u-1", Scope::All),
            ("status=FAILURE", Scope::Organizations(vec!["acme".to_owned()])),
        ] {
            assert_eq!(
                (limits(query, &scope).default, limits(query, &scope).longest),
                (DEFAULT_RANGE, None),
                "{query}"
            );
        }
        for wrong in ["ip_address=x", "ip_address=10.0.0.0/33", "status=success", "actor_type=robot", "actor=x"] {
            assert!(Parameters::of(wrong).read::<ListParams>().is_err(), "{wrong}");
        }
    }
}
