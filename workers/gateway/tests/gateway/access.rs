//! Tests every route with every role and every kind of bad token.

use std::num::NonZeroU32;

use chrono::Utc;
use gateway::auth::{Access, Role};
use harness::World;
use serde_json::json;

use crate::test_gateway::{Answer, TestGateway, settings};
use crate::tokens::{broken, claims, of, sign};

/// Returns a path that matches the template.
fn path(template: &str) -> String {
    let part = |part: &str| {
        if part.starts_with('{') { "00000000-0000-0000-0000-000000000000".to_owned() } else { part.to_owned() }
    };
    let path = template.split('/').map(part).collect::<Vec<_>>().join("/");
    // A live response never ends, so the request has an invalid parameter.
    if path.starts_with("/api/live/") { format!("{path}?nonsense=1") } else { path }
}

async fn call(gateway: &TestGateway, method: &str, template: &str, authorization: Option<&str>) -> Answer {
    let headers = authorization.map(|value| ("authorization", value));
    let headers: Vec<_> = headers.into_iter().chain([("content-type", "application/json")]).collect();
    // No route accepts this body, so an authorized request changes nothing.
    gateway.request(method, &path(template), &headers, if method == "GET" { "" } else { "nothing" }).await
}

/// Starts a gateway that allows as many bad tokens as these tests send.
async fn patient() -> TestGateway {
    let mut settings = settings();
    settings.gateway.refusal_burst = NonZeroU32::MAX;
    TestGateway::with(World::builder("no binary").without_setup().start().await, settings).await
}

#[tokio::test]
async fn nobody_gets_through_without_a_good_token() {
    let gateway = patient().await;
    let (public, guarded): (Vec<_>, Vec<_>) =
        gateway.routes.iter().partition(|route| matches!(route.access, Access::Public));
    let public: Vec<_> = public.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    assert_eq!(public, ["DELETE /api/session", "POST /api/session", "GET /api/openapi.json"]);
    for route in guarded {
        let none = call(&gateway, route.method.as_str(), &route.path, None).await;
        none.problem(401);
        assert_eq!(none.header("www-authenticate"), r#"Bearer realm="watchbook""#);
        for (name, token) in broken() {
            let answer = call(&gateway, route.method.as_str(), &route.path, Some(&format!("Bearer {token}"))).await;
            assert_eq!(answer.status, 401, "{name} on {route:?}: {answer:?}");
            answer.problem(401);
            assert!(answer.header("www-authenticate").contains(r#"error="invalid_token""#), "{name}");
            assert!(!answer.text.contains(&token) || token.len() < 20, "the answer repeats the token");
            // The same token in a browser's cookie, sent by a page of the same origin.
            let cookie = format!("watchbook_session={token}");
            let headers =
                [("cookie", cookie.as_str()), ("x-watchbook-csrf", "1"), ("content-type", "application/json")];
            let answer = gateway.request(route.method.as_str(), &path(&route.path), &headers, "").await;
            assert_eq!(answer.status, 401, "{name} in a cookie on {route:?}: {answer:?}");
        }
        for scheme in ["Basic YTpi", "Bearer", "Bearer ", "bearer"] {
            call(&gateway, route.method.as_str(), &route.path, Some(scheme)).await.problem(401);
        }
    }
    gateway.finish().await;
}

#[tokio::test]
async fn each_route_asks_for_its_role() {
    let gateway = TestGateway::start().await;
    for route in &gateway.routes {
        for role in Role::ALL {
            let bearer = format!("bearer {}", of(role));
            let answer = call(&gateway, route.method.as_str(), &route.path, Some(&bearer)).await;
            match route.access {
                Access::AtLeast(least) if role < least => {
                    let problem = answer.problem(403);
                    assert!(problem["detail"].as_str().unwrap().contains(least.name()), "{problem}");
                    assert!(answer.header("www-authenticate").contains("insufficient_scope"));
                }
                _ => assert!(
                    !matches!(answer.status.as_u16(), 401 | 403 | 500..) || route.path == "/api/session",
                    "{role:?} on {route:?}: {answer:?}"
                ),
            }
        }
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_caller_is_who_the_token_says() {
    let gateway = TestGateway::start().await;
    let me = gateway.get("/api/me", &sign(&claims("viewer", &["umbra", "acme", "_"]))).await.json();
    assert_eq!(me, json!({ "subject": "a viewer", "role": "viewer", "organizations": ["acme", "umbra"] }));
    let me = gateway.get("/api/me", &sign(&claims("admin", &["acme", "*"]))).await.json();
    assert_eq!(me["organizations"], json!(["*"]));
    let mut nobody = claims("viewer", &[]);
    nobody.as_object_mut().unwrap().remove("orgs");
    assert_eq!(gateway.get("/api/me", &sign(&nobody)).await.json()["organizations"], json!([]));
    for (orgs, organizations) in [("acme", "acme"), ("*", "*")] {
        let mut one = claims("viewer", &[]);
        one["orgs"] = json!(orgs);
        assert_eq!(gateway.get("/api/me", &sign(&one)).await.json()["organizations"], json!([organizations]));
    }
    let mut fractions = claims("viewer", &[]);
    let now = Utc::now().timestamp() as f64;
    for (claim, seconds) in [("exp", now + 3_600.5), ("nbf", now - 3_600.5), ("iat", now - 0.123)] {
        fractions[claim] = json!(seconds);
    }
    assert_eq!(gateway.get("/api/me", &sign(&fractions)).await.status, 200);
    let mut many = claims("viewer", &[]);
    many["aud"] = json!(["others", "watchbook"]);
    assert_eq!(gateway.get("/api/me", &sign(&many)).await.status, 200);
    gateway.finish().await;
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let mut settings = settings();
    settings.gateway.requests_per_second = NonZeroU32::MIN;
    settings.gateway.request_burst = NonZeroU32::MIN;
    let gateway = TestGateway::with(World::builder("no binary").without_setup().start().await, settings).await;
    let token = of(Role::Viewer);
    let mut answers = Vec::new();
    // More requests at once than a second's refill, even on a slow machine. The first refusal ends the loop.
    loop {
        let answer = gateway.get("/api/me", &token).await;
        answers.push(answer.status.as_u16());
        if answer.status == 429 {
            answer.problem(429);
            assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
            break;
        }
    }
    assert_eq!(answers[0], 200);
    // Signing in counts as a request like any other.
    let sign_in = json!({ "token": token }).to_string();
    while gateway.request("POST", "/api/session", &[("content-type", "application/json")], &sign_in).await.status != 429
    {
    }
    assert_eq!(gateway.get("/api/me", &of(Role::Admin)).await.status, 200, "another caller has a budget of their own");
    gateway.finish().await;
}

#[tokio::test]
async fn who_brings_bad_tokens_is_told_when_to_come_back_and_nobody_else_is() {
    const JSON: (&str, &str) = ("content-type", "application/json");
    let mut settings = settings();
    settings.gateway.refusals_per_second = NonZeroU32::MIN;
    settings.gateway.refusal_burst = NonZeroU32::MIN;
    let gateway = TestGateway::with(World::builder("no binary").without_setup().start().await, settings).await;
    let (good, bad) = (of(Role::Viewer), json!({ "token": "bad" }).to_string());
    assert_eq!(gateway.get("/api/me", "bad").await.status, 401);
    for (method, path, headers, body) in [
        ("GET", "/api/me", vec![("authorization", "Bearer bad")], ""),
        ("GET", "/api/me", vec![("authorization", "Basic YTpi")], ""),
        ("GET", "/api/me", vec![], ""),
        ("POST", "/api/session", vec![JSON], bad.as_str()),
    ] {
        // More requests at once than a second's refill, even on a slow machine.
        let refused = loop {
            let answer = gateway.request(method, path, &headers, body).await;
            if answer.status != 401 {
                break answer;
            }
        };
        refused.problem(429);
        assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
        assert_eq!(gateway.get("/api/me", &good).await.status, 200, "a good token pays for nobody");
        let sign_in = json!({ "token": good }).to_string();
        assert_eq!(gateway.request("POST", "/api/session", &[JSON], &sign_in).await.status, 200);
    }
    gateway.finish().await;
}
