//! HTTP: publishing, queries, live streams.
//!
//! A request goes this way: `server` accepts its connection, `middleware` gives it an id and a time-out and catches what
//! goes wrong, [`auth`] lets it through to its route, and one file answers it.
//!
//! - [`routes`]: the table of all routes, the only way to mount one
//! - [`auth`]: tokens, sessions, roles, and whose records a caller may see
//! - [`problem`]: every error, as RFC 9457 says it
//! - [`query`], [`page`], [`cursor`]: parameters, parts of lists, and where they go on
//! - `publish`: `POST /api/{kind}`
//! - `queries`: one file a query
//! - `live`: `GET /api/live/{kind}`
//! - `request_context`, `audited_action`: with what somebody asks, and what they did, as audit records
//! - `rate_limit`, `concurrency_limit`, `quota`, `body`, `response_memory`: how much callers may ask for, how much of it at once, and how much memory
//!   that and its answers take
//! - `gateway`: the life of a gateway, with what it needs of NATS and Postgres
//!
//! # Adding a query
//!
//! 1. A file in `queries`: a handler with `#[utoipa::path]`, and what it answers with `ToSchema`. What it is asked
//!    with is a struct with `IntoParams` and [`query::FromQuery`], taken as [`query::Query`]; lists read
//!    [`page::Page`] into it. [`query::names_of`] compares what is read with what is described.
//! 2. Its line in `routes::all`, with the least role that it needs. That guards it, describes it, and puts it into
//!    the table that the tests walk.
//! 3. In the handler: [`auth::Caller`] is an argument. `queries::listing` does what all queries share: `list` answers
//!    a page, `ask` anything else, on behalf of the caller and in a reading that sees nothing of others; `TimeLimits` says
//!    how far back. Text in a path is read with [`query::path_text`], and [`page::Page::about`] binds cursors to it.
//!    [`problem::Problem::of_database`] is what outages become, and queries that take too long.
//! 4. Its case in the tests `what_is_described_is_what_is_read` and `answers_are_as_they_are_described`, and its line in
//!    `tests/gateway/isolation.rs`, without which it fails: there each answer is compared before and after others have
//!    something.

mod app;
mod audited_action;
pub mod auth;
mod body;
mod concurrency_limit;
pub mod cursor;
mod gateway;
mod live;
mod metrics;
mod middleware;
mod openapi;
pub mod page;
pub mod problem;
mod publish;
mod queries;
pub mod query;
mod quota;
mod rate_limit;
mod request_context;
mod response_memory;
pub mod routes;
mod server;
mod sessions;
mod settings;

pub use gateway::{Gateway, Listening};
pub use metrics::describe as describe_metrics;
pub use middleware::RequestId;
pub use settings::{KeyTimes, Keys, READS_WITHIN, Settings};
