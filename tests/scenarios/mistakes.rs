//! Mistakes of operators: each error names the problem and the fix, reveals no secret, and ends the process with a
//! failure.

use harness::servers::start_nats;
use harness::{Finished, World};
use records::Kind;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::world;

/// Runs the workers with these settings. They must exit.
async fn refused(world: &World, settings: &[(&str, &str)]) -> Finished {
    let finished = world.run_with(&["run", "--workers", "events"], settings, "").await;
    finished.ended_with(1);
    finished
}

/// Returns a URL with user and password.
fn signed_in(url: &str, user: &str, password: &str) -> String {
    url.replace("nats://", &format!("nats://{user}:{password}@"))
}

#[tokio::test]
async fn a_nats_url_that_leads_nowhere() {
    let world = world().start().await;
    // A port that was free a moment ago, so that nothing listens on it.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let url = format!("nats://127.0.0.1:{port}");
    for command in [&["run"][..], &["setup"], &["status"], &["tail", "events"], &["publish", "events"]] {
        let finished = world.run_with(command, &[("NATS_URL", &url)], "").await;
        finished.ended_with(1).prints(&url).prints("Is it running, and is NATS_URL right?");
    }
    let nowhere = refused(&world, &[("NATS_URL", "nats://no-such-host.invalid:4222")]).await;
    nowhere.prints("no-such-host.invalid").prints("NATS_URL");
    let bare = world.run_bare(&["run"]).await;
    bare.ended_with(1).prints("set NATS_URL");
    world.finish([]).await;
}

const USERS: &str = r#"
no_auth_user: admin
authorization { users: [
  { user: admin, password: admin }
  { user: reader, password: hunter2, permissions: { publish: "_INBOX.>", subscribe: "_INBOX.>" } }
  { user: maker, password: hunter3, permissions: { publish: { deny: "$JS.API.STREAM.CREATE.>" } } }
  { user: looker, password: hunter4, permissions: { publish: { deny: "$JS.API.CONSUMER.>" } } }
] }
"#;

#[tokio::test]
async fn a_wrong_password_for_nats() {
    let world = world().nats(start_nats(|options| options.extra_config = USERS.to_owned()).await).start().await;
    let url = signed_in(&world.nats_url(), "reader", "opensesame");
    let finished = refused(&world, &[("NATS_URL", &url)]).await;
    finished.prints("refuses the sign-in").prints("user and password").does_not_print("opensesame");
    // The same through the settings file.
    let finished =
        refused(&world, &[("WATCHBOOK_NATS__USER", "reader"), ("WATCHBOOK_NATS__PASSWORD", "opensesame")]).await;
    finished.prints("refuses the sign-in").does_not_print("opensesame");
    let finished = refused(&world, &[("NATS_CREDS", "/nowhere/watchbook.creds")]).await;
    finished.prints("/nowhere/watchbook.creds");
    world.finish([]).await;
}

#[tokio::test]
async fn a_missing_permission_in_nats() {
    let world = world().nats(start_nats(|options| options.extra_config = USERS.to_owned()).await).start().await;
    let url = signed_in(&world.nats_url(), "reader", "hunter2");
    let finished = refused(&world, &[("NATS_URL", &url)]).await;
    finished
        .prints("may not")
        .prints("$JS.API.STREAM.INFO")
        .prints(&world.stream(Kind::Events))
        .does_not_print("hunter2");

    world.jetstream().delete_stream(world.stream(Kind::Logs)).await.unwrap();
    let url = signed_in(&world.nats_url(), "maker", "hunter3");
    let finished = world.run_with(&["setup"], &[("NATS_URL", &url)], "").await;
    finished.ended_with(1).prints("may not").prints("$JS.API.STREAM.CREATE").does_not_print("hunter3");

    // A missing permission that shows only while reading is reported by /readyz and does not end the process, because
    // it can be granted later.
    let url = signed_in(&world.nats_url(), "looker", "hunter4");
    let worker = world.spawn_with("events", &[("NATS_URL", &url)]);
    worker.reports_ready(503, "events").await;
    worker.logged("$JS.API.CONSUMER.").await;
    assert!(!worker.log().contains("hunter4"), "{}", worker.log());
    world.finish([worker]).await;
}

#[tokio::test]
async fn jetstream_is_switched_off() {
    let world = world().start().await;
    let server = start_nats(|options| options.jetstream = false).await;
    let url = server.url();
    for command in [&["run"][..], &["setup"]] {
        let finished = world.run_with(command, &[("NATS_URL", &url)], "").await;
        finished.ended_with(1).prints("JetStream is switched off").prints("-js");
    }
    world.finish([]).await;
}

/// A minimal nats-server that only sends its version.
async fn old_server(version: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (read, mut write) = stream.into_split();
                let info = format!(
                    "INFO {{\"server_id\":\"OLD\",\"server_name\":\"old\",\"version\":\"{version}\",\"proto\":1,\
                     \"host\":\"127.0.0.1\",\"port\":{port},\"headers\":true,\"max_payload\":1048576,\"jetstream\":true}}\r\n"
                );
                write.write_all(info.as_bytes()).await?;
                let mut lines = BufReader::new(read).lines();
                while let Some(line) = lines.next_line().await? {
                    if line.starts_with("PING") {
                        write.write_all(b"PONG\r\n").await?;
                    }
                }
                std::io::Result::Ok(())
            });
        }
    });
    format!("nats://127.0.0.1:{port}")
}

#[tokio::test]
async fn a_server_that_is_too_old() {
    let world = world().start().await;
    let url = old_server("2.9.25").await;
    for command in [&["run"][..], &["setup"]] {
        let finished = world.run_with(command, &[("NATS_URL", &url)], "").await;
        finished.ended_with(1).prints("2.9.25").prints("needs 2.12 or newer");
    }
    world.finish([]).await;
}

#[tokio::test]
async fn a_stream_with_settings_that_lose_records() {
    let world = world().start().await;
    let name = world.stream(Kind::Events);
    let sound = world.jetstream().get_stream(&name).await.unwrap().cached_info().config.clone();
    let mut dangerous = sound.clone();
    dangerous.discard = async_nats::jetstream::stream::DiscardPolicy::Old;
    dangerous.max_age = std::time::Duration::from_secs(3_600);
    world.jetstream().update_stream(&dangerous).await.unwrap();
    world.publish_records(Kind::Events, 0..10).await;

    let finished = refused(&world, &[]).await;
    finished.prints(&name).prints("can lose records").prints("watchbook setup --update");
    let finished = world.run(&["setup"]).await;
    finished
        .ended_with(1)
        .prints(&name)
        .prints("discard is old, expected new")
        .prints("max_age is 3600s, expected unlimited");
    world.run(&["doctor"]).await.ended_with(1).prints("discard is old");
    let unchanged = world.jetstream().get_stream(&name).await.unwrap().cached_info().config.clone();
    assert_eq!(unchanged.max_age, dangerous.max_age, "a plain setup changes nothing that is there");

    world.run(&["setup", "--update"]).await.succeeded().prints("changed: discard");
    world.run(&["setup"]).await.succeeded();
    let worker = world.workers("events").await;
    world.settled_as(Kind::Events, [10, 0, 0, 0]).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_stream_that_lets_producers_purge_it() {
    let world = world().start().await;
    let name = world.stream(Kind::Events);
    let info = async || world.jetstream().get_stream(&name).await.unwrap().cached_info().clone();
    let sound = info().await.config;
    let purgeable = async_nats::jetstream::stream::Config { allow_rollup: true, ..sound.clone() };
    world.jetstream().update_stream(&purgeable).await.unwrap();
    world.publish_records(Kind::Events, 0..100).await;
    assert_eq!(info().await.state.messages, 100);
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Rollup", "all");
    let body = harness::messages::event(100).to_string();
    let sent = world.jetstream().publish_with_headers(world.subject(Kind::Events, "acme"), headers, body.into()).await;
    sent.unwrap().await.unwrap();
    assert_eq!(info().await.state.messages, 1, "one message of a producer removed a hundred that nobody had read");

    let finished = refused(&world, &[]).await;
    finished.prints(&name).prints("allow_rollup_hdrs is true, expected false").prints("watchbook setup --update");
    for command in [&["setup"][..], &["doctor"]] {
        let finished = world.run(command).await;
        finished.ended_with(1).prints(&name).prints("allow_rollup_hdrs is true").prints("watchbook setup --update");
    }
    world.run(&["setup", "--update"]).await.succeeded().prints("changed: allow_rollup_hdrs");
    let worker = world.workers("events").await;
    world.settled_as(Kind::Events, [1, 0, 0, 100]).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_stream_that_lets_producers_expire_records_has_to_be_replaced() {
    let world = world().start().await;
    let name = world.stream(Kind::Events);
    let sound = world.jetstream().get_stream(&name).await.unwrap().cached_info().config.clone();
    let expiring = async_nats::jetstream::stream::Config { allow_message_ttl: true, ..sound };
    world.jetstream().update_stream(&expiring).await.unwrap();

    refused(&world, &[])
        .await
        .prints("allow_msg_ttl is true, expected false")
        .prints(&format!("nats stream rm {name}"));
    for command in [&["setup"][..], &["setup", "--update"], &["doctor"]] {
        let finished = world.run(command).await;
        finished.ended_with(1).prints("allow_msg_ttl is true").prints(&format!("nats stream rm {name}"));
    }
    world.jetstream().delete_stream(&name).await.unwrap();
    world.run(&["setup"]).await.succeeded();
    let worker = world.workers("events").await;
    world.publish_records(Kind::Events, 0..10).await;
    world.settled_as(Kind::Events, [10, 0, 0, 0]).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn a_stream_of_another_size_is_named_and_used() {
    let world = world().start().await;
    let settings = [("WATCHBOOK_STREAMS__MAX_BYTES", "128MiB")];
    let finished = world.run_with(&["setup"], &settings, "").await;
    finished.ended_with(1).prints("max_bytes is 67108864, expected 134217728").prints("watchbook setup --update");
    let worker = world.spawn_with("events", &settings);
    worker.ready().await;
    worker.logged("the stream differs from the settings").await;
    world.publish_records(Kind::Events, 0..10).await;
    world.settled_as(Kind::Events, [10, 0, 0, 0]).await;
    world.finish([worker]).await;
}

#[tokio::test]
async fn each_kind_has_a_stream_of_its_own_size() {
    let (key, mib) = ("WATCHBOOK_STREAMS__LOGS__MAX_BYTES", 1 << 20);
    let world = world().with(key, "128MiB").start().await;
    let size = async |kind| {
        let stream = world.jetstream().get_stream(world.stream(kind)).await.unwrap();
        stream.cached_info().config.max_bytes / mib
    };
    assert_eq!((size(Kind::Logs).await, size(Kind::Events).await), (128, 64));
    world.run(&["setup"]).await.succeeded();
    let shown = world.run(&["config", "show"]).await;
    shown.succeeded().prints("[streams.logs]\nmax_bytes = \"128.0 MiB\"").does_not_print("[streams.events]");

    let other = [(key, "96MiB")];
    let finished = world.run_with(&["setup"], &other, "").await;
    let differs = format!("stream {}: differs: max_bytes is 134217728, expected 100663296", world.stream(Kind::Logs));
    finished.ended_with(1).prints(&differs).prints(&format!("stream {}: as it should be", world.stream(Kind::Events)));
    assert_eq!(size(Kind::Logs).await, 128, "a plain setup changes nothing that is there");
    world.run_with(&["setup", "--update"], &other, "").await.succeeded();
    assert_eq!((size(Kind::Logs).await, size(Kind::Events).await), (96, 64));

    let file = world.directory().join("watchbook.toml");
    std::fs::write(&file, "[streams]\nmax_bytes = \"1GiB\"\n\n[streams.lgs]\nmax_bytes = \"1GiB\"\n").unwrap();
    world.run(&["config", "check"]).await.ended_with(1).prints("watchbook.toml:4").prints("lgs");
    std::fs::write(&file, "[streams.logs]\nreplay_window = \"29d\"\n").unwrap();
    let finished = world.run(&["run", "--workers", "logs"]).await;
    finished.ended_with(1).prints("watchbook.toml:2: streams.logs.replay_window: longer than `max_bytes` can hold");
    std::fs::remove_file(&file).unwrap();
    world.finish([]).await;
}

#[tokio::test]
async fn a_stream_that_is_missing_and_a_database_that_is_not_set_up() {
    let world = world().start().await;
    let name = world.stream(Kind::Events);
    world.jetstream().delete_stream(&name).await.unwrap();
    refused(&world, &[]).await.prints(&name).prints("watchbook setup");
    let fresh = world.database_url().replace(&format!("/{}", world.name()), "/postgres");
    refused(&world, &[("DATABASE_URL", &fresh)]).await.prints("migrations are pending").prints("watchbook setup");
    world.run(&["setup"]).await.succeeded();
    world.finish([]).await;
}

#[tokio::test]
async fn a_database_that_cannot_be_reached() {
    let world = world().start().await;
    let url = world.database_url();
    let password = url.split([':', '@']).nth(2).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let own_port = url.rsplit_once(':').unwrap().1.split('/').next().unwrap();
    for (wrong, words) in [
        (url.replace(password, "opensesame"), "password authentication failed"),
        (url.replace(&format!("/{}", world.name()), "/no_such_database"), "no_such_database"),
        (url.replace(&format!(":{own_port}/"), &format!(":{port}/")), "is it running"),
        ("mysql://root@localhost/x".to_owned(), "postgres://user:password@host"),
    ] {
        for command in [&["run"][..], &["setup"], &["status"], &["dead", "list"], &["migrate", "status"]] {
            let finished = world.run_with(command, &[("DATABASE_URL", &wrong)], "").await;
            finished.ended_with(1).prints(words).prints("DATABASE_URL");
            finished.does_not_print("opensesame").does_not_print(password);
        }
    }
    world.finish([]).await;
}

#[tokio::test]
async fn an_address_that_somebody_else_has() {
    let world = world().start().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(&world, &[("WATCHBOOK_HTTP_ADDR", &address)]).await.prints(&address).prints("WATCHBOOK_HTTP_ADDR");
    world.finish([]).await;
}

#[tokio::test]
async fn rules_that_cannot_be_meant() {
    let world = world().start().await;
    let rule = |more: &str| {
        format!(
            "[[rules]]\nname = \"rate\"\nsource = \"executions\"\nfailed_when = \"success == false\"\nwindow = \"1h\"\nthreshold = \"30%\"\n{more}"
        )
    };
    for (file, place, problem) in [
        (rule("").replace("success ==", "sucess =="), ":4:", "sucess"),
        (rule("").replace("30%", "100%"), ":6:", "100"),
        (rule("recover_below = \"40%\"\n"), ":7:", "recover_below"),
        (rule("group_by = [\"colour\"]\n"), ":7:", "colour"),
        (rule("annotations = { summary = \"{{ labels.colour }}\" }\n"), ":7:", "colour"),
        (rule("[[routes]]\nto = [\"nobody\"]\n"), ":8:", "nobody"),
        (
            rule("[[receivers]]\nname = \"ops\"\nslack = { url_env = \"NO_SUCH_VARIABLE\" }\n"),
            ":9:",
            "NO_SUCH_VARIABLE",
        ),
        (rule("[[receivers]]\nname = \"ops\"\nwebhook = { ulr = \"http://x/\" }\n"), ":9:", "ulr"),
    ] {
        std::fs::write(world.directory().join("watchbook.toml"), &file).unwrap();
        for command in [&["run", "--workers", "alerts"][..], &["config", "check"]] {
            let refused = world.run(command).await;
            refused.ended_with(1).prints(&format!("watchbook.toml{place}")).prints(problem);
        }
    }
    world.finish([]).await;
}
