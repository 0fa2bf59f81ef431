//! Logged errors become error records.

use std::sync::Arc;
use std::time::Duration;

use publisher::{BufferOptions, Buffered, ErrorCounts, ErrorLayer, ErrorLayerOptions, Publisher};
use records::Kind;
use serde_json::json;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::SubscriberExt;

use crate::world::{BOUND, USERS, World, until};

/// Installs the layer as this thread's subscriber. On a current-thread runtime the buffer's task uses it too.
fn install(buffered: &Buffered) -> (DefaultGuard, Arc<ErrorCounts>) {
    let options = ErrorLayerOptions { ignored_targets: vec!["noise".to_owned()], ..ErrorLayerOptions::default() };
    let layer = ErrorLayer::new(buffered.clone(), options);
    let counts = layer.counts();
    (tracing::subscriber::set_default(tracing_subscriber::registry().with(layer)), counts)
}

#[tokio::test]
async fn an_error_event_becomes_a_record_with_its_spans() {
    let world = World::bare("").await;
    world.create(Kind::Errors, |_| {}).await;
    let buffered = world.publisher().await.for_organization("acme").unwrap().buffered(BufferOptions::default());
    let (_guard, counts) = install(&buffered);
    tracing::info_span!("request", trace_id = "t-1", endpoint = "/builds", tenant = 7).in_scope(|| {
        tracing::info_span!("build", run_id = "r-1", endpoint = "/builds/1").in_scope(|| {
            tracing::warn!("not an error");
            tracing::error!(error_type = "TimeoutError", project_id = "p-1", tries = 3, "the build {} failed", 1);
        });
    });
    tracing::error!(target: "my::service", stack = "at main", "bare");
    buffered.flush().await.unwrap();

    let bodies = world.bodies(Kind::Errors).await;
    let [full, bare] = &bodies[..] else { panic!("{bodies:?}") };
    for (field, value) in [
        ("trace_id", "t-1"),
        ("error_type", "TimeoutError"),
        ("message", "the build 1 failed"),
        ("endpoint", "/builds/1"),
        ("project_id", "p-1"),
        ("run_id", "r-1"),
        ("severity", "error"),
    ] {
        assert_eq!(full[field], value, "{field}");
    }
    assert_eq!(full["detail"]["spans"], json!(["request", "build"]));
    assert_eq!((&full["detail"]["tries"], &full["detail"]["tenant"]), (&json!(3), &json!(7)));
    assert_eq!((&bare["error_type"], &bare["stack"]), (&json!("my::service"), &json!("at main")));
    assert!(uuid::Uuid::parse_str(bare["trace_id"].as_str().unwrap()).is_ok());
    assert_eq!((counts.pushed(), counts.full(), counts.refused()), (2, 0, 0));
}

#[tokio::test]
async fn errors_under_one_root_span_share_a_trace() {
    let world = World::bare("").await;
    world.create(Kind::Errors, |_| {}).await;
    let buffered = world.publisher().await.buffered(BufferOptions::default());
    let (_guard, _) = install(&buffered);
    tracing::info_span!("root").in_scope(|| {
        tracing::info_span!("one").in_scope(|| tracing::error!("1"));
        tracing::info_span!("two").in_scope(|| tracing::error!("2"));
    });
    tracing::info_span!("root").in_scope(|| tracing::error!("3"));
    buffered.flush().await.unwrap();
    let bodies = world.bodies(Kind::Errors).await;
    let traces: Vec<_> = bodies.iter().map(|body| body["trace_id"].as_str().unwrap()).collect();
    assert!(traces[0] == traces[1] && traces[1] != traces[2], "{traces:?}");
}

#[tokio::test]
async fn errors_about_publishing_do_not_become_errors() {
    let world = World::bare("").await;
    let buffered = world.publisher().await.buffered(BufferOptions::default());
    let (_guard, counts) = install(&buffered);
    tracing::error!(target: "async_nats::connector", "a");
    tracing::error!(target: "publisher", "b");
    tracing::error!(target: "noise::inner", "c");
    tracing::error!("the only one");
    // There is no stream, so the buffer fails, logs an error and retries.
    until("publishing failed", async || buffered.stats().retries > 1).await;
    assert_eq!(counts.pushed(), 1);
    world.create(Kind::Errors, |_| {}).await;
    tokio::time::timeout(BOUND, buffered.flush()).await.unwrap().unwrap();
    assert_eq!(world.stored(Kind::Errors).await, 1);
}

#[tokio::test]
async fn logging_what_was_refused_is_not_the_next_error() {
    let world = World::bare(USERS).await;
    world.create(Kind::Errors, |_| {}).await;
    let builder = Publisher::builder().user_and_password("acme", "secret").organization("acme");
    let publisher = builder.connect(world.nats.url()).await.unwrap();
    let refused = |_| tracing::error!("the service logs what was refused");
    let options = BufferOptions { on_refused: Some(Arc::new(refused)), ..BufferOptions::default() };
    let buffered = publisher.buffered(options);
    let (_guard, counts) = install(&buffered);
    tracing::error!("this user may publish events only");
    tokio::time::timeout(BOUND, buffered.flush()).await.unwrap().unwrap();
    tokio::time::timeout(BOUND, buffered.flush()).await.unwrap().unwrap();
    assert_eq!((buffered.stats().refused, counts.pushed()), (1, 1));
}

#[tokio::test]
async fn a_full_buffer_neither_blocks_nor_forgets_to_count() {
    let world = World::bare("").await;
    let options = BufferOptions { max_records: 3, ..BufferOptions::default() };
    let buffered = world.publisher().await.buffered(options);
    let (guard, counts) = install(&buffered);
    for _ in 0..10 {
        tracing::error!("again");
    }
    assert_eq!((counts.pushed(), counts.full()), (3, 7));
    drop(guard);
    assert_eq!(buffered.close(Duration::ZERO).await.unwrap_err().left, 3);
}
