//! `GET /api/audit/export`: the whole list as CSV or as newline-delimited JSON.
//!
//! Each part is read in a transaction of its own, as fast as the caller reads the response: a slow caller costs no
//! more than the part that is being sent. The range ends before the export starts, so later events do not enter it.

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
/// The maximum number of concurrent exports. Each holds a part of a mebibyte until it is sent.
pub(crate) const AT_ONCE: u64 = 64;
/// The maximum for one caller, so that a caller that does not read leaves room for others.
pub(crate) const PER_CALLER: u64 = 8;
/// When to retry: an export may have ended by then.
const ENDED_AFTER: Duration = Duration::from_secs(10);
/// Returns the header that names the downloaded file.
const fn disposition(format: Format) -> &'static str {
    match format {
        Format::Csv => r#"attachment; filename="audit.csv""#,
        Format::Ndjson => r#"attachment; filename="audit.ndjson""#,
    }
}

/// The query parameters of an export, without the filters.
#[derive(Debug, Clone, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExportParams {
    /// The format: `csv` (the default) or `ndjson`.
    #[param(pattern = "^(csv|ndjson)$", value_type = Option<String>)]
    format: Format,
    /// The start of the range: an RFC 3339 time, a date such as `2026-06-15` for its midnight in UTC, or a time before
    /// now such as `-30m`, `-24h` or `-7d`.
    #[param(value_type = Option<String>, pattern = "^(-[0-9]{1,9}[smhd]|[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt].+)?)$")]
    from: Option<DateTime<Utc>>,
    /// The inclusive end of the range, in the same forms.
    #[param(value_type = Option<String>, pattern = "^(-[0-9]{1,9}[smhd]|[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt].+)?)$")]
    to: Option<DateTime<Utc>>,
    /// Export only events of this organization. The result is empty if the caller may not see it.
    #[param(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    organization_id: Option<String>,
    #[param(ignore)]
    asked_at: DateTime<Utc>,
}

/// All query parameters of an export.
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

/// Exports the audit log as one file, newest first, with the same filters as the list.
///
/// The export is recorded in the audit log before the response starts. A response that is cut off, because the gateway
/// stops or the database is unavailable, ends without the last chunk, so that clients can tell that it is incomplete.
#[utoipa::path(get, path = "/api/audit/export", params(ExportParams, Filters), responses((
    status = 200, description = "The log. In CSV an apostrophe is prepended to each cell that a spreadsheet would evaluate (it starts with a tab or a line break, or, after blanks, with one of `= + - @ ＝ ＋ － ＠`, and is not a plain number such as `-5.00`), and to each cell that starts with an apostrophe. To restore the stored text, remove one apostrophe from each cell that starts with one.",
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
            Problem::too_many("too-many-exports", "this caller has too many exports running", ENDED_AFTER)
        }
        QuotaExceeded::Total => Problem::unavailable("too many exports are running", ENDED_AFTER),
    })?;
    let how = json!({ "format": options.format.name() });
    filters
        .access_event("audit.export", ROUTE, &page, &checked, how)
        .write_before_response(&app, &caller, &context)
        .await?;
    let mut export = Export::of(checked.scope, filters.filter(), checked.page.span(), options.format);
    // An error in the first part can still become a problem response.
    let first = export.part(&app.reader).await.map_err(|error| Problem::of_database(&error))?;
    let first = Bytes::from(first.unwrap_or_default().text);
    let parts = stream::once(async { Ok(first) }).chain(stream::try_unfold((app, export, permit), next_part));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(options.format.content_type())),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static(disposition(options.format))),
    ];
    Ok((headers, Body::from_stream(parts)).into_response())
}

/// The rest of an export, and the permit that it holds until it ends.
type Rest = (App, Export, Permit);

/// Returns the next part of the body. An error cuts the response off.
async fn next_part((app, mut export, permit): Rest) -> io::Result<Option<(Bytes, Rest)>> {
    match app.stop.run_until_cancelled(export.part(&app.reader)).await {
        Some(Ok(part)) => Ok(part.map(|part| (part.text.into(), (app, export, permit)))),
        Some(Err(error)) => {
            tracing::warn!(error = store::describe(&error), "an export was cut off");
            Err(io::Error::other("the database is unavailable"))
        }
        None => Err(io::Error::other("the gateway is stopping")),
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
