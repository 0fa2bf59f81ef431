//! `GET /api/audit/export`: the same as the list, all of it, as CSV or as lines of JSON.
//!
//! It is read part by part, each in a reading of its own, as fast as the caller takes it: nothing is held for one who is
//! slow but the part under way. The range ends before the export began, so what is done meanwhile does not come into it.

use std::io;
use std::time::Duration;

use ::export::{Export, Format};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt, stream};
use serde_json::json;
use utoipa::IntoParams;

use super::audit::{Filters, LONGEST};
use super::listing::CheckedPage;
use crate::app::App;
use crate::auth::Caller;
use crate::page::{MAX_ITEMS, Page};
use crate::problem::Problem;
use crate::query::{FromQuery, Parameters, Query};
use crate::quota::{Permit, QuotaExceeded};
use crate::request_context::RequestContext;

const ROUTE: &str = "/api/audit/export";
/// Exports at once: each holds a part of a mebibyte for as long as it is not read.
pub(crate) const AT_ONCE: u64 = 64;
/// And those of one caller, so that who does not read leaves others theirs.
pub(crate) const PER_CALLER: u64 = 8;
/// When one may have ended.
const ENDED_AFTER: Duration = Duration::from_secs(10);
/// Under which name a browser keeps it.
const fn disposition(format: Format) -> &'static str {
    match format {
        Format::Csv => r#"attachment; filename="audit.csv""#,
        Format::Ndjson => r#"attachment; filename="audit.ndjson""#,
    }
}

/// What an export is asked with, beside the filters.
#[derive(Debug, Clone, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExportParams {
    /// `csv` or `ndjson`.
    #[param(pattern = "^(csv|ndjson)$", value_type = Option<String>)]
    format: Format,
    /// From then on: a time of RFC 3339, a date such as `2026-06-15` for its midnight in UTC, or a time before now such
    /// as `-30m`, `-24h` or `-7d`.
    #[param(value_type = Option<String>, pattern = "^(-[0-9]{1,9}[smhd]|[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt].+)?)$")]
    from: Option<DateTime<Utc>>,
    /// Until then, in the same forms; what happened at that moment is in it.
    #[param(value_type = Option<String>, pattern = "^(-[0-9]{1,9}[smhd]|[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt].+)?)$")]
    to: Option<DateTime<Utc>>,
    /// Of this organization alone. One that the caller may not see has nothing.
    #[param(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    organization_id: Option<String>,
    #[param(ignore)]
    asked_at: DateTime<Utc>,
}

/// All that an export is asked with.
#[derive(Debug)]
pub(crate) struct ExportRequest {
    options: ExportParams,
    filters: Filters,
}

impl FromQuery for ExportRequest {
    fn from_query(parameters: &mut Parameters) -> Self {
        let options = ExportParams {
            format: parameters.one_of("format", &Format::NAMES).and_then(Format::named).unwrap_or(Format::Csv),
            from: parameters.time("from"),
            to: parameters.time("to"),
            organization_id: parameters.text("organization_id"),
            asked_at: parameters.now(),
        };
        Self { options, filters: Filters::from_query(parameters) }
    }
}

/// The audit log in one piece, newest first, with the filters of the list.
///
/// That it was exported is written into the log before anything is answered. An answer that is broken off, because the
/// gateway stops or the database is away, ends without the last chunk, so that no client takes it for complete.
#[utoipa::path(get, path = "/api/audit/export", params(ExportParams, Filters), responses((
    status = 200, description = "The log. In CSV a cell has one apostrophe before it where a spreadsheet would calculate it (it begins with a tab or a line break, or, behind blanks, with one of `= + - @ ＝ ＋ － ＠`, and is no plain number such as `-5.00`), and where it begins with an apostrophe itself: one taken off each cell that begins with one gives back what is stored.",
    content((String = "text/csv"), (String = "application/x-ndjson")),
)))]
pub(crate) async fn export(
    State(app): State<App>,
    Query(ExportRequest { options, filters }): Query<ExportRequest>,
    caller: Caller,
    context: RequestContext,
) -> Result<Response, Problem> {
    let page = Page {
        limit: MAX_ITEMS,
        cursor: None,
        from: options.from,
        to: options.to,
        organization_id: options.organization_id,
        filters: String::new(),
        longest: LONGEST,
        asked_at: options.asked_at,
    };
    let limits = filters.limits(&page.scope(&caller)?);
    let checked = CheckedPage::of(&app, &caller, ROUTE, &page, limits)?;
    let permit = app.export_quota.acquire(&caller.subject, 1).map_err(|refusal| match refusal {
        QuotaExceeded::Caller => {
            Problem::too_many("too-many-exports", "this caller has as many exports under way as it may", ENDED_AFTER)
        }
        QuotaExceeded::Total => Problem::unavailable("as many exports are under way as there is room for", ENDED_AFTER),
    })?;
    let how = json!({ "format": options.format.name() });
    filters
        .access_event("audit.export", ROUTE, &page, &checked, how)
        .write_before_response(&app, &caller, &context)
        .await?;
    let mut export = Export::of(checked.scope, filters.filter(), checked.page.span(), options.format);
    // What goes wrong with the first part can still be said.
    let first = export.part(&app.reader).await.map_err(|error| Problem::of_database(&error))?;
    let first = Bytes::from(first.unwrap_or_default().text);
    let parts = stream::once(async { Ok(first) }).chain(stream::try_unfold((app, export, permit), next_part));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(options.format.content_type())),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static(disposition(options.format))),
    ];
    Ok((headers, Body::from_stream(parts)).into_response())
}

/// What is still to be exported, and the place that it takes until then.
type Rest = (App, Export, Permit);

/// The next part for a body. Errors break the answer off.
async fn next_part((app, mut export, permit): Rest) -> io::Result<Option<(Bytes, Rest)>> {
    match app.stop.run_until_cancelled(export.part(&app.reader)).await {
        Some(Ok(part)) => Ok(part.map(|part| (part.text.into(), (app, export, permit)))),
        Some(Err(error)) => {
            tracing::warn!(error = store::describe(&error), "an export was broken off");
            Err(io::Error::other("the database does not answer"))
        }
        None => Err(io::Error::other("the gateway stops")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::query::names_of;

    #[test]
    fn what_is_described_is_what_is_read() {
        let described = [ExportParams::into_params(|| None), Filters::into_params(|| None)].concat();
        let described: BTreeSet<_> = described.iter().map(|param| param.name.as_str()).collect();
        assert_eq!(described, names_of::<ExportRequest>());
    }
}
