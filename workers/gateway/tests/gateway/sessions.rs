//! Tests browsers: the cookie, and the protection against cross-site requests.

use gateway::auth::Role;
use serde_json::json;

use crate::test_gateway::TestGateway;
use crate::tokens::{broken, claims, of, sign};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_browser_signs_in_and_out() {
    let gateway = TestGateway::start().await;
    let token = of(Role::Producer);
    let answer = gateway.request("POST", "/api/session", &[JSON], &json!({ "token": token }).to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["role"], "producer");
    let cookie = answer.header("set-cookie").to_owned();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && !cookie.contains("Secure"),
        "{cookie}"
    );
    let pair = cookie.split(';').next().unwrap();
    assert_eq!(gateway.request("GET", "/api/me", &[("cookie", pair)], "").await.status, 200);
    gateway.request("DELETE", "/api/session", &[("cookie", pair)], "").await.problem(403);
    let end = gateway.request("DELETE", "/api/session", &[("cookie", pair), ("x-watchbook-csrf", "1")], "").await;
    assert_eq!((end.status.as_u16(), end.text.as_str()), (204, ""));
    assert!(end.header("set-cookie").contains("Max-Age=0"));
    gateway.finish().await;
}

#[tokio::test]
async fn behind_tls_the_cookie_is_secure() {
    let gateway = TestGateway::start().await;
    let headers = [JSON, ("host", "watchbook.example.com"), ("origin", "https://watchbook.example.com")];
    let answer =
        gateway.request("POST", "/api/session", &headers, &json!({ "token": of(Role::Viewer) }).to_string()).await;
    let cookie = answer.header("set-cookie");
    assert!(cookie.starts_with("__Host-") && cookie.contains("; Secure"), "{cookie}");
    gateway.finish().await;
}

#[tokio::test]
async fn no_session_begins_with_a_bad_token_or_from_a_foreign_page() {
    let gateway = TestGateway::start().await;
    for (name, token) in broken() {
        let answer = gateway.request("POST", "/api/session", &[JSON], &json!({ "token": token }).to_string()).await;
        assert_eq!(answer.status, 401, "{name}");
        assert!(answer.headers.get("set-cookie").is_none());
    }
    let body = json!({ "token": of(Role::Admin) }).to_string();
    for foreign in [("origin", "https://evil.example.com"), ("sec-fetch-site", "cross-site")] {
        gateway.request("POST", "/api/session", &[JSON, foreign], &body).await.problem(403);
    }
    gateway.request("POST", "/api/session", &[("content-type", "text/plain")], &body).await.problem(415);
    gateway.request("POST", "/api/session", &[JSON], &" ".repeat(20_000)).await.problem(413);
    let many: Vec<_> = (0..300).map(|n| format!("organization-{n}")).collect();
    let long = sign(&claims("admin", &many.iter().map(String::as_str).collect::<Vec<_>>()));
    gateway.request("POST", "/api/session", &[JSON], &json!({ "token": long }).to_string()).await.problem(400);
    for wrong in ["", "{}", "[]", r#"{"token":1}"#, r#"{"token":"x","more":1}"#] {
        let problem = gateway.request("POST", "/api/session", &[JSON], wrong).await.problem(400);
        assert_eq!(problem["errors"][0]["field"], "token");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_foreign_page_posts_nothing_with_the_cookie() {
    let gateway = TestGateway::start().await;
    let cookie = format!("watchbook_session={}", of(Role::Producer));
    let own = format!("http://{}", gateway.address);
    let post = async |more: &[(&str, &str)]| {
        let headers = [&[JSON, ("cookie", cookie.as_str())], more].concat();
        // It passes the protection, and is rejected for its content: 400.
        gateway.request("POST", "/api/events", &headers, "[]").await.status.as_u16()
    };
    let csrf = ("x-watchbook-csrf", "1");
    assert_eq!(post(&[]).await, 403);
    assert_eq!(post(&[("x-watchbook-csrf", "")]).await, 403);
    assert_eq!(post(&[csrf, ("origin", "https://evil.example.com")]).await, 403);
    assert_eq!(post(&[csrf, ("sec-fetch-site", "same-site")]).await, 403);
    assert_eq!(post(&[csrf]).await, 400);
    assert_eq!(post(&[csrf, ("origin", &own), ("sec-fetch-site", "same-origin")]).await, 400);
    gateway.finish().await;
}
