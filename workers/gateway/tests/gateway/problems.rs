//! Tests errors, which all have the same form, and the headers of every response.

use gateway::auth::Role;

use crate::test_gateway::TestGateway;
use crate::tokens::of;

#[tokio::test]
async fn what_no_route_answers_is_a_problem_too() {
    let gateway = TestGateway::start().await;
    let token = of(Role::Admin);
    gateway.get("/nowhere", &token).await.problem(404);
    gateway.get("/api/nonsense", &token).await.problem(404);
    gateway.post("/api/nonsense", &token, &[], "{}").await.problem(404);
    let wrong = gateway.request("PUT", "/api/events", &[], "").await;
    wrong.problem(405);
    assert!(wrong.header("allow").contains("POST"));
    gateway.request("BREW", "/api/me", &[], "").await.problem(405);
    gateway.finish().await;
}

#[tokio::test]
async fn unknown_parameters_are_named() {
    let gateway = TestGateway::start().await;
    let token = of(Role::Admin);
    for (query, field) in [("limit=5", "limit"), ("a=1&a=1", "a"), ("%00=1", "%00"), ("x=%ff", "x")] {
        let problem = gateway.get(&format!("/api/me?{query}"), &token).await.problem(400);
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
    }
    assert_eq!(gateway.get("/api/me?", &token).await.status, 200);
    gateway.finish().await;
}

#[tokio::test]
async fn answers_are_careful() {
    let gateway = TestGateway::start().await;
    for path in ["/api/me", "/nowhere"] {
        let answer = gateway.get(path, &of(Role::Viewer)).await;
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert!(answer.header("content-security-policy").contains("frame-ancestors 'none'"));
        assert!(!answer.header("x-request-id").is_empty());
    }
    let own = gateway.request("GET", "/nowhere", &[("x-request-id", "trace-7")], "").await;
    assert_eq!(own.problem(404)["request_id"], "trace-7");
    let odd = gateway.request("GET", "/nowhere", &[("x-request-id", "a b<script>")], "").await;
    assert!(!odd.header("x-request-id").contains('<'));
    assert!(odd.headers.get("access-control-allow-origin").is_none());
    gateway.finish().await;
}

#[tokio::test]
async fn the_probes_are_where_they_were() {
    let gateway = TestGateway::start().await;
    assert_eq!(gateway.request("GET", "/healthz", &[], "").await.status, 200);
    harness::eventually("the gateway is ready", async || {
        let ready = gateway.request("GET", "/readyz", &[], "").await;
        let report = ready.json();
        if report["parts"]["gateway"]["state"] == "active" { Ok(()) } else { Err(report.to_string()) }
    })
    .await;
    let metrics = gateway.request("GET", "/metrics", &[], "").await;
    assert!(metrics.header("content-type").starts_with("text/plain"));
    let line = r#"watchbook_http_requests_total{method="GET",route="/healthz",status="200"}"#;
    assert!(metrics.text.contains(line), "{}", metrics.text);
    gateway.get("/nowhere/at/all", "x").await;
    let metrics = gateway.request("GET", "/metrics", &[], "").await.text;
    assert!(metrics.contains(r#"route="other""#) && !metrics.contains("nowhere"));
    assert!(metrics.contains("watchbook_http_request_seconds_bucket"));
    gateway.finish().await;
}

#[tokio::test]
async fn pages_of_origins_that_are_allowed_may_call() {
    let mut settings = crate::test_gateway::settings();
    settings.gateway.cors_origins = vec!["https://console.example.com".to_owned()];
    let gateway = TestGateway::with(harness::World::builder("no binary").without_setup().start().await, settings).await;
    let preflight = async |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,content-type"),
        ];
        gateway.request("OPTIONS", "/api/events", &headers, "").await
    };
    let allowed = preflight("https://console.example.com").await;
    assert_eq!(allowed.header("access-control-allow-origin"), "https://console.example.com");
    assert!(allowed.headers.get("access-control-allow-credentials").is_none());
    assert!(!allowed.header("access-control-allow-headers").contains("csrf"));
    assert!(preflight("https://evil.example.com").await.headers.get("access-control-allow-origin").is_none());
    gateway.finish().await;
}
