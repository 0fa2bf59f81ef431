//! The table of routes, with the required role and the OpenAPI description of each.
//!
//! Routes can only be mounted through [`Routes`]. A route cannot be mounted without an [`Access`], and a mounted route
//! is guarded, described, and part of the table that the tests iterate over.

use axum::Router;
use axum::http::{HeaderValue, Method, header};
use axum::middleware::from_fn_with_state;
use axum::routing::MethodRouter;
use records::Kind;
use serde_json::{Map, Value, json};
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{Predicate, SizeAbove};
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::{Access, Guard, Role, guard};
use crate::middleware::{REQUEST_ID, wrap_request};
use crate::rate_limit::Budget;
use crate::{live, openapi, publish, queries, sessions};

/// The path of the OpenAPI document.
const DOCUMENT: &str = "/api/openapi.json";
/// Minimum size of a compressed response, in bytes. Below it, compression costs as much as it saves.
const COMPRESSED_ABOVE: u16 = 1024;

/// One route of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The HTTP method.
    pub method: Method,
    /// The path template, such as `/api/errors/{trace_id}`.
    pub path: String,
    /// The required role.
    pub access: Access,
}

/// Returns every route of the gateway. **Add the line of a new query here.**
pub(crate) fn all(app: &App) -> Routes {
    let (public, viewer) = (Access::Public, Access::AtLeast(Role::Viewer));
    let operator = Access::AtLeast(Role::Operator);
    let mut routes = Routes::new(app.clone())
        .add(public, routes!(sessions::begin, sessions::end))
        .add(viewer, routes!(queries::me::me))
        .add(viewer, routes!(queries::events::list_events))
        .add(viewer, routes!(queries::errors::list_errors))
        .add(viewer, routes!(queries::errors::list_error_groups))
        .add(viewer, routes!(queries::errors::list_errors_of_trace))
        .add(viewer, routes!(queries::metrics::list_metrics))
        .add(viewer, routes!(queries::logs::list_logs))
        .add(viewer, routes!(queries::executions::list_executions))
        .add(viewer, routes!(queries::executions::execution_stats))
        .add(viewer, routes!(queries::executions::execution_trends))
        .add(viewer, routes!(queries::executions::execution_stats_of_user))
        .add(viewer, routes!(queries::executions::health_of_strategy))
        .add(viewer, routes!(queries::audit::all))
        .add(viewer, routes!(queries::audit::of_one))
        .add(viewer, routes!(queries::export::export))
        .add(viewer, routes!(queries::alerts::all))
        .add(viewer, routes!(queries::alerts::rules))
        .add(viewer, routes!(queries::alerts::one))
        .add(operator, routes!(queries::alerts::acknowledge))
        .add(viewer, routes!(queries::silences::all))
        .add(operator, routes!(queries::silences::add, queries::silences::end))
        .add(viewer, routes!(queries::retention::retention))
        .add(viewer, routes!(queries::dead_letters::all))
        .add(viewer, routes!(queries::dead_letters::one))
        .add(operator, routes!(queries::dead_letters::discard))
        .add(operator, routes!(queries::dead_letters::replay));
    for &kind in Kind::ALL {
        let (path, operation) = publish::describe(kind);
        let access = Access::AtLeast(Role::Producer);
        routes = routes.schema(kind.name(), openapi::schema_of(kind)).mount(
            access,
            Budget::Publishing,
            Described { path, method: "post", operation },
            publish::route(kind),
        );
        let (path, operation) = live::describe(kind);
        let described = Described { path, method: "get", operation };
        routes = routes.mount(viewer, Budget::Requests, described, live::route(kind));
    }
    routes
}

/// The mounted routes.
#[derive(Debug)]
pub struct Routes {
    app: App,
    router: Router<App>,
    table: Vec<Route>,
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
}

/// A method of a path with its OpenAPI operation.
#[derive(Debug)]
pub(crate) struct Described {
    path: String,
    method: &'static str,
    operation: Value,
}

impl Routes {
    fn new(app: App) -> Self {
        Self { app, router: Router::new(), table: Vec::new(), paths: Map::new(), schemas: openapi::own_schemas() }
    }

    /// Mounts handlers with `#[utoipa::path]`, as returned by `utoipa_axum::routes!`.
    #[must_use]
    pub fn add(mut self, access: Access, (schemas, paths, handlers): UtoipaMethodRouter<App>) -> Self {
        self.schemas
            .extend(schemas.into_iter().filter_map(|(name, schema)| Some((name, serde_json::to_value(schema).ok()?))));
        for (path, item) in paths.paths {
            let Ok(Value::Object(item)) = serde_json::to_value(item) else { continue };
            for (method, operation) in item {
                self.describe(access, &path, &method, operation);
            }
            let guarded = self.guarded(access, Budget::Requests, handlers.clone());
            self.router = self.router.route(&path, guarded);
        }
        self
    }

    /// Mounts a handler with a hand-written description.
    fn mount(mut self, access: Access, budget: Budget, described: Described, handler: MethodRouter<App>) -> Self {
        self.describe(access, &described.path, described.method, described.operation);
        let guarded = self.guarded(access, budget, handler);
        self.router = self.router.route(&described.path, guarded);
        self
    }

    fn schema(mut self, name: &str, schema: Value) -> Self {
        self.schemas.insert(name.to_owned(), schema);
        self
    }

    fn guarded(&self, access: Access, budget: Budget, handlers: MethodRouter<App>) -> MethodRouter<App> {
        let state = Guard { app: self.app.clone(), access, budget };
        handlers.route_layer(from_fn_with_state(state, guard))
    }

    fn describe(&mut self, access: Access, path: &str, method: &str, operation: Value) {
        // A path item has other members besides methods, such as parameters.
        let Ok(parsed) = Method::from_bytes(method.to_ascii_uppercase().as_bytes()) else { return };
        self.table.push(Route { method: parsed, path: path.to_owned(), access });
        let item = self.paths.entry(path).or_insert_with(|| json!({}));
        item[method] = openapi::with_common_answers(operation, access);
    }

    /// Returns the table of all routes, including the OpenAPI document's.
    pub fn table(&self) -> Vec<Route> {
        let document = Route { method: Method::GET, path: DOCUMENT.to_owned(), access: Access::Public };
        self.table.iter().cloned().chain([document]).collect()
    }

    /// Builds the router, with the routes of `probes`.
    pub(crate) fn into_router(mut self, probes: Router) -> Router {
        self.describe(Access::Public, DOCUMENT, "get", openapi::of_document());
        let document = openapi::document(self.paths, self.schemas).to_string();
        let compressed = CompressionLayer::new().compress_when(SizeAbove::new(COMPRESSED_ABOVE).and(is_json));
        let within = self.app.settings.gateway.request_timeout;
        let cors = cors(&self.app.settings.gateway.cors_origins);
        let router = self.router.with_state(self.app).route(DOCUMENT, openapi::serve(document)).merge(probes);
        let router = router.fallback(async || crate::problem::Problem::not_found());
        let router = router.layer(from_fn_with_state(within, wrap_request)).layer(compressed);
        match cors {
            Some(cors) => router.layer(cors),
            None => router,
        }
    }
}

/// Returns whether a response is compressed. Streams are not: a compressor would delay their events.
fn is_json(
    _: axum::http::StatusCode,
    _: axum::http::Version,
    headers: &axum::http::HeaderMap,
    _: &axum::http::Extensions,
) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json")
}

/// Returns the CORS layer for pages of other origins, which send their own token. They may send neither cookies nor
/// the CSRF header.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    let sent = [
        header::AUTHORIZATION,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        publish::ORGANIZATION,
        publish::IDEMPOTENCY_KEY,
        live::LAST_EVENT_ID,
        REQUEST_ID,
    ];
    Some(
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            .allow_headers(sent.into_iter().chain(publish::ATTRIBUTES).collect::<Vec<_>>())
            .expose_headers([REQUEST_ID, header::RETRY_AFTER]),
    )
}
