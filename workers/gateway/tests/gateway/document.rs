//! Tests the OpenAPI document.

use gateway::auth::Access;

use crate::test_gateway::TestGateway;

#[tokio::test]
async fn every_route_is_described_and_nothing_else() {
    let gateway = TestGateway::start().await;
    let document = gateway.request("GET", "/api/openapi.json", &[], "").await;
    assert_eq!(document.status, 200);
    let document = document.json();
    let described: usize =
        document["paths"].as_object().unwrap().values().map(|item| item.as_object().unwrap().len()).sum();
    assert_eq!(described, gateway.routes.len());
    for route in &gateway.routes {
        let operation = &document["paths"][&route.path][route.method.as_str().to_lowercase()];
        assert!(operation["operationId"].is_string(), "{route:?}");
        let is_open = operation["security"].as_array().unwrap().is_empty();
        assert_eq!(is_open, route.access == Access::Public, "{route:?}");
        assert!(operation["responses"]["default"].is_object());
        // Every route that checks tokens can refuse too many bad ones.
        let looks_at_tokens = operation["responses"]["401"].is_object();
        assert_eq!(looks_at_tokens, !is_open || route.path == "/api/session" && route.method == "POST", "{route:?}");
        assert_eq!(operation["responses"]["429"].is_object(), looks_at_tokens, "{route:?}");
    }
    // Every reference has a target.
    let text = document.to_string();
    for reference in text.split(r##""$ref":"#"##).skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn who_has_the_document_is_not_sent_it_again() {
    let gateway = TestGateway::start().await;
    let ask = async |tags: &str| gateway.request("GET", "/api/openapi.json", &[("if-none-match", tags)], "").await;
    let first = ask("W/\"another\"").await;
    assert_eq!(first.status, 200);
    let tag = first.header("etag").to_owned();
    for tags in [tag.clone(), format!("\"x\", {tag}"), "*".to_owned()] {
        let again = ask(&tags).await;
        assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""), "{tags}");
        assert_eq!(again.header("etag"), tag);
    }
    gateway.finish().await;
}
