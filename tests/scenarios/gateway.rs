//! The gateway as a worker: when it runs, and its tokens.

use records::Kind;

use crate::world;

const SECRET: (&str, &str) = ("WATCHBOOK_JWT_SECRET", "a secret of the tests, at least 32 bytes long");

#[tokio::test]
async fn without_a_way_to_check_tokens_there_is_no_gateway() {
    let world = world().start().await;
    let all = world.workers("all").await;
    all.logged("running without the gateway").await;
    let document = all.get("/api/openapi.json").await;
    assert_eq!(document.status, 404, "{document:?}");
    for (settings, why) in [(&[][..], "WATCHBOOK_JWT_SECRET"), (&[SECRET, ("WATCHBOOK_HTTP_ADDR", "off")], "off")] {
        let refused = world.run_with(&["run", "--workers", "gateway"], settings, "").await;
        refused.ended_with(1).prints("no gateway").prints(why);
    }
    world.finish([all]).await;
}

#[tokio::test]
async fn with_a_secret_it_answers_where_the_probes_do() {
    let world = world().start().await;
    let gateway = world.spawn_with("all", &[SECRET]);
    gateway.ready().await;
    gateway.reports_ready(200, "\"gateway\"").await;
    let document = gateway.get("/api/openapi.json").await;
    assert!(document.status == 200 && document.body.contains(&format!("/api/{}", Kind::Audit)), "{document:?}");
    assert_eq!(gateway.get("/api/me").await.status, 401);
    world.finish([gateway]).await;
}

#[tokio::test]
async fn tokens_are_made_with_the_secret_that_is_there() {
    let world = world().without_setup().start().await;
    let create =
        ["token", "create", "--sub", "me", "--org", "acme", "--org", "umbra", "--role", "producer", "--ttl", "30m"];
    let made = world.run_with(&create, &[SECRET], "").await;
    assert_eq!(made.succeeded().output.trim().split('.').count(), 3, "a token and nothing else: {}", made.output);
    world.run(&create).await.ended_with(1).prints("no secret to sign with");
    let kept = world.directory().join("jwt_secret");
    std::fs::write(&kept, SECRET.1).unwrap();
    let directory = world.directory().to_str().unwrap().to_owned();
    let found = world.run(&[&create[..], &["--data-dir", &directory]].concat()).await;
    assert_eq!(found.succeeded().output.trim().split('.').count(), 3);
    for wrong in [
        &["--sub", "me", "--org", "acme", "--role", "god"][..],
        &["--sub", "me", "--org", "a b", "--role", "viewer"],
        &["--sub", "", "--org", "acme", "--role", "viewer"],
        &["--sub", "me", "--org", "acme", "--role", "viewer", "--ttl", "0s"],
    ] {
        world.run_with(&[&["token", "create"], wrong].concat(), &[SECRET], "").await.ended_with(2);
    }
    // A token without organizations would see nothing, whatever its role.
    for role in ["viewer", "producer", "operator", "admin"] {
        let nobodys = world.run_with(&["token", "create", "--sub", "me", "--role", role], &[SECRET], "").await;
        assert_eq!(nobodys.ended_with(2).prints("--org <ORG|'*'>").output, "");
    }
    let all = world.run_with(&["token", "create", "--sub", "me", "--role", "admin", "--org", "*"], &[SECRET], "").await;
    all.succeeded();
    let centuries = [&create[..create.len() - 1], &["9000y"]].concat();
    world.run_with(&centuries, &[SECRET], "").await.ended_with(1).prints("--ttl");
    world.finish([]).await;
}
