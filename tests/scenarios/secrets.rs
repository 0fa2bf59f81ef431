//! Logs never contain bodies or secrets. `World::finish` checks this in every test. Here, everything that could leak
//! into a log happens at once, at the most verbose level.

use async_nats::HeaderMap;
use harness::messages::{MARKER, event, event_with, poison};
use harness::servers::start_nats;
use records::Kind;
use serde_json::json;

use crate::world;

const PASSWORD: &str = "password-of-the-nats-user";

#[tokio::test]
async fn whatever_goes_wrong_no_log_holds_a_body_or_a_secret() {
    let users = format!(
        "no_auth_user: admin
         authorization {{ users: [
           {{ user: admin, password: admin }}
           {{ user: worker, password: \"{PASSWORD}\" }}
         ] }}"
    );
    let nats = start_nats(|options| options.extra_config = users).await;
    for format in ["text", "json"] {
        let world = world().proxies().with("WATCHBOOK_WRITER__BATCH_ROWS", 20).start().await;
        let nats_url = nats.url().replace("nats://", &format!("nats://worker:{PASSWORD}@"));
        let secret = "a-secret-that-signs-tokens-of-the-gateway";
        let settings = [
            ("WATCHBOOK_LOG__FILTER", "trace"),
            ("WATCHBOOK_LOG__FORMAT", format),
            ("WATCHBOOK_JWT_SECRET", secret),
            ("NATS_URL", &nats_url),
        ];
        world.run_with(&["setup"], &settings, "").await.succeeded().does_not_print(PASSWORD);
        world.refuse_poison(Kind::Events).await;
        let worker = world.spawn_with("events", &settings);
        worker.ready().await;
        let producer = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
        let subject = world.subject(Kind::Events, "acme");
        let deep = event_with(2, json!({ "payload": "HERE" })).to_string().replacen(
            "\"HERE\"",
            &format!("{{\"deep\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000)),
            1,
        );
        let mut headers = HeaderMap::new();
        headers.insert("Authorization", MARKER);
        for body in [
            event(0).to_string(),
            event(0).to_string(),
            format!("{MARKER} is no JSON"),
            format!("\"{MARKER}\""),
            event_with(1, json!({ "actor_type": MARKER })).to_string(),
            event_with(1, json!({ "created_at": MARKER })).to_string(),
            event_with(1, json!({ "organization_id": MARKER })).to_string(),
            event(1).to_string().replacen("\"n\":1", "\"n\":1e200000", 1),
            // Postgres quotes the whole row in the error of a constraint.
            poison(Kind::Events, 1).to_string(),
            deep,
            event(3).to_string(),
        ] {
            producer.publish_with_headers(subject.clone(), headers.clone(), body.into()).await.unwrap().await.unwrap();
        }
        let settled = "SELECT stored + duplicates + dead_letters FROM watchbook.positions";
        let all = async || {
            let settled: (i64,) = world.try_query_one(settled).await?;
            if settled.0 == 11 { Ok(()) } else { Err(format!("{settled:?}")) }
        };
        harness::eventually("all eleven are settled", all).await;
        world.postgres_link().cut();
        worker.reports_ready(503, "Postgres").await;
        world.postgres_link().restore();
        worker.ready().await;
        assert!(worker.log().contains("async_nats"), "the filter holds: by default nobody hears the client");
        for hidden in [MARKER, PASSWORD, secret] {
            assert!(!worker.log().contains(hidden), "{hidden:?} is in the log:\n{}", worker.log());
            assert!(!worker.get("/readyz").await.body.contains(hidden));
            assert!(!worker.get("/metrics").await.body.contains(hidden));
        }
        world.execute("DELETE FROM watchbook.positions; DELETE FROM watchbook.dead_letters").await;
        world.rows_were_dropped();
        world.finish([worker]).await;
    }
}
