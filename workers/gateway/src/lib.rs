//! HTTP: publishing, queries, live streams.
//!
//! The path of a request: `server` accepts the connection, `middleware` adds a request id and a time-out and catches
//! panics, [`auth`] authorizes it, and the handler in one file responds.
//!
//! - [`routes`]: the table of all routes; the only way to mount a route
//! - [`auth`]: tokens, sessions, roles, and the organizations of a caller
//! - [`problem`]: errors as problem details (RFC 9457)
//! - [`query`], [`page`], [`cursor`]: query parameters, pages of lists, and cursors
//! - `publish`: `POST /api/{kind}`
//! - `queries`: one file for each resource
//! - `live`: `GET /api/live/{kind}`
//! - `request_context`, `audited_action`: the client's address and user agent; audit events for the actions of callers
//! - `rate_limit`, `concurrency_limit`, `quota`: how often callers may send requests, and how many queries run at once
//! - `body`, `response_memory`: the memory for request bodies and for unsent responses
//! - `gateway`: starts, runs and stops a gateway
//!
//! # Adding a query
//!
//! 1. Add a file in `queries` with a handler that has `#[utoipa::path]`, and a response type that has `ToSchema`. The
//!    parameters are a struct that has `IntoParams` and implements [`query::FromQuery`]; the handler takes it as
//!    [`query::Query`]. Lists include [`page::Page`]. A test compares the parameters that are read
//!    ([`query::names_of`]) with those that are described.
//! 2. Add a line to `routes::all` with the minimum role. This guards the route, describes it, and adds it to the table
//!    that the tests iterate over.
//! 3. Write the handler with [`auth::Caller`] as an argument. `queries::listing` contains the parts that queries share:
//!    `list` returns a page and `run_query` any other result, both in a transaction that sees only records of the
//!    caller's organizations; `TimeLimits` bounds the time range. Read text in a path with [`query::path_text`], and
//!    bind cursors to it with [`page::Page::about`]. [`problem::Problem::of_database`] maps outages and statement
//!    time-outs.
//! 4. Add a case to the tests `what_is_described_is_what_is_read` and `answers_are_as_they_are_described`. Add a line
//!    to `tests/gateway/isolation.rs`, which fails without it: that test compares each response before and after other
//!    organizations have records.

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
