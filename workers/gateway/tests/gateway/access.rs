//! Every route, with every role and every kind of broken token.

use gateway::auth::{Access, Role};

use crate::stand::{Answer, Stand, settings};
use crate::tokens::{broken, claims, of, sign};

/// A path that a template stands for.
fn path(template: &str) -> String {
    let part = |part: &str| {
        if part.starts_with('{') { "00000000-0000-0000-0000-000000000000".to_owned() } else { part.to_owned() }
    };
    let path = template.split('/').map(part).collect::<Vec<_>>().join("/");
    // An answer that goes on for ever would never be read: it is asked for what nobody can be given.
    if path.starts_with("/api/live/") { format!("{path}?nonsense=1") } else { path }
}

async fn call(stand: &Stand, method: &str, template: &str, authorization: Option<&str>) -> Answer {
    let headers = authorization.map(|value| ("authorization", value));
    let headers: Vec<_> = headers.into_iter().chain([("content-type", "application/json")]).collect();
    // No body that any route takes: who gets through changes nothing.
    stand.ask(method, &path(template), &headers, if method == "GET" { "" } else { "nothing" }).await
}

#[tokio::test]
async fn nobody_gets_through_without_a_good_token() {
    let stand = Stand::start().await;
    let guarded: Vec<_> = stand.routes.iter().filter(|route| route.access != Access::Public).collect();
    assert!(guarded.len() >= 8, "{guarded:?}");
    for route in guarded {
        let none = call(&stand, route.method.as_str(), &route.path, None).await;
        none.problem(401);
        assert_eq!(none.header("www-authenticate"), r#"Bearer realm="watchbook""#);
        for (name, token) in broken() {
            let answer = call(&stand, route.method.as_str(), &route.path, Some(&format!("Bearer {token}"))).await;
            assert_eq!(answer.status, 401, "{name} on {route:?}: {answer:?}");
            answer.problem(401);
            assert!(answer.header("www-authenticate").contains(r#"error="invalid_token""#), "{name}");
            assert!(!answer.text.contains(&token) || token.len() < 20, "the answer repeats the token");
        }
        for scheme in ["Basic YTpi", "Bearer", "Bearer ", "bearer"] {
            call(&stand, route.method.as_str(), &route.path, Some(scheme)).await.problem(401);
        }
    }
    stand.finish().await;
}

#[tokio::test]
async fn each_route_asks_for_its_role() {
    let stand = Stand::start().await;
    for route in &stand.routes {
        for role in Role::ALL {
            let bearer = format!("bearer {}", of(role));
            let answer = call(&stand, route.method.as_str(), &route.path, Some(&bearer)).await;
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
    stand.finish().await;
}

#[tokio::test]
async fn a_caller_is_who_the_token_says() {
    let stand = Stand::start().await;
    let me = stand.get("/api/me", &sign(&claims("viewer", &["umbra", "acme", "_"]))).await.json();
    assert_eq!(me, serde_json::json!({ "subject": "a viewer", "role": "viewer", "organizations": ["acme", "umbra"] }));
    let me = stand.get("/api/me", &sign(&claims("admin", &["acme", "*"]))).await.json();
    assert_eq!(me["organizations"], serde_json::json!(["*"]));
    let mut nobody = claims("viewer", &[]);
    nobody.as_object_mut().unwrap().remove("orgs");
    assert_eq!(stand.get("/api/me", &sign(&nobody)).await.json()["organizations"], serde_json::json!([]));
    let mut many = claims("viewer", &[]);
    many["aud"] = serde_json::json!(["others", "watchbook"]);
    assert_eq!(stand.get("/api/me", &sign(&many)).await.status, 200);
    stand.finish().await;
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let mut settings = settings();
    settings.gateway.requests_per_second = std::num::NonZeroU32::MIN;
    settings.gateway.request_burst = std::num::NonZeroU32::MIN;
    let stand = Stand::with(harness::World::builder("no binary").without_setup().start().await, settings).await;
    let token = of(Role::Viewer);
    let mut answers = Vec::new();
    // More at once than a second gives back, however slow this machine is: the first that is refused ends it.
    loop {
        let answer = stand.get("/api/me", &token).await;
        answers.push(answer.status.as_u16());
        if answer.status == 429 {
            answer.problem(429);
            assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
            break;
        }
    }
    assert_eq!(answers[0], 200);
    assert_eq!(stand.get("/api/me", &of(Role::Admin)).await.status, 200, "another caller has a budget of their own");
    stand.finish().await;
}
