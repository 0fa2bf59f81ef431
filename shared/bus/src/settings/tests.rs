use std::collections::BTreeSet;

use async_nats::jetstream::stream::{self, Compression, Config, ConsumerLimits, PersistenceMode};
use harness::servers::start_nats;
use records::Kind;
use runtime::config::{Nats, Streams};
use serde_json::json;

use super::*;
use crate::{Bus, Ensured};

/// The classification of a value that differs from the one with which Watchbook creates a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Harmless,
    Named,
    Refused,
}
use Decision::{Harmless, Named, Refused};

/// Whether `setup --update` fixes it.
const MENDED: bool = true;
const LEFT: bool = false;

fn names(settings: &Settings) -> BTreeSet<&str> {
    settings.keys().map(String::as_str).collect()
}

fn table() -> BTreeSet<&'static str> {
    SETTINGS.iter().map(|setting| setting.name).collect()
}

/// Written without `..`, so that a setting of a newer client does not compile until it is classified.
#[test]
fn every_setting_that_the_client_knows_is_decided() {
    let of = stream::Source { name: "other".to_owned(), ..stream::Source::default() };
    let all = Config {
        name: "s".to_owned(),
        max_bytes: 1,
        max_messages: 1,
        max_messages_per_subject: 1,
        discard: stream::DiscardPolicy::New,
        discard_new_per_subject: true,
        subjects: vec!["a".to_owned()],
        retention: stream::RetentionPolicy::Limits,
        max_consumers: 1,
        max_age: Duration::from_secs(1),
        max_message_size: 1,
        storage: stream::StorageType::File,
        num_replicas: 1,
        no_ack: true,
        duplicate_window: Duration::from_secs(1),
        template_owner: "t".to_owned(),
        sealed: true,
        description: Some("d".to_owned()),
        allow_rollup: true,
        deny_delete: true,
        deny_purge: true,
        republish: Some(stream::Republish { source: "a".to_owned(), destination: "b".to_owned(), headers_only: false }),
        allow_direct: true,
        mirror_direct: true,
        mirror: Some(of.clone()),
        sources: Some(vec![of]),
        metadata: [("a".to_owned(), "b".to_owned())].into(),
        subject_transform: Some(stream::SubjectTransform { source: "a".to_owned(), destination: "b".to_owned() }),
        compression: Some(Compression::S2),
        consumer_limits: Some(ConsumerLimits { inactive_threshold: Duration::from_secs(1), max_ack_pending: 1 }),
        first_sequence: Some(1),
        placement: Some(stream::Placement { cluster: Some("c".to_owned()), tags: Vec::new() }),
        persist_mode: Some(PersistenceMode::Async),
        pause_until: Some(chrono::Utc::now()),
        allow_message_ttl: true,
        subject_delete_marker_ttl: Some(Duration::from_secs(1)),
        allow_atomic_publish: true,
        allow_message_schedules: true,
        allow_message_counter: true,
        allow_batch_publish: true,
    };
    let Ok(Value::Object(settings)) = serde_json::to_value(all) else { panic!("a configuration is an object") };
    assert_eq!(names(&settings), table());
}

/// Every setting of nats-server with a value that differs from Watchbook's, the other settings that the server requires
/// with it, its classification, and whether `setup --update` fixes it.
fn deviations() -> Vec<(&'static str, Value, Value, Decision, bool)> {
    let none = || json!({});
    vec![
        ("description", json!("x"), none(), Harmless, LEFT),
        ("metadata", json!({"team": "x"}), none(), Harmless, LEFT),
        ("duplicate_window", json!(1_000_000_000), none(), Harmless, LEFT),
        ("placement", json!({"cluster": "x"}), none(), Harmless, LEFT),
        ("compression", json!("s2"), none(), Harmless, LEFT),
        ("first_seq", json!(100), none(), Harmless, LEFT),
        ("allow_direct", json!(true), none(), Harmless, LEFT),
        ("allow_batched", json!(true), none(), Harmless, LEFT),
        ("deny_delete", json!(true), none(), Harmless, LEFT),
        ("max_consumers", json!(3), none(), Named, MENDED),
        ("max_msgs", json!(5), none(), Named, MENDED),
        ("max_bytes", json!(1_000_000), none(), Named, MENDED),
        ("max_msg_size", json!(1_000), none(), Named, MENDED),
        ("allow_atomic", json!(false), none(), Named, MENDED),
        ("sources", json!([{"name": "OTHER"}]), none(), Named, MENDED),
        ("subject_transform", json!({"src": "watchbook.events.>", "dest": "elsewhere.>"}), none(), Named, MENDED),
        ("republish", json!({"src": ">", "dest": "copy.>"}), none(), Named, MENDED),
        ("discard_new_per_subject", json!(true), json!({"max_msgs_per_subject": 5}), Named, MENDED),
        ("deny_purge", json!(true), none(), Named, LEFT),
        ("sealed", json!(true), none(), Named, LEFT),
        ("subjects", json!(["somewhere.else"]), none(), Refused, MENDED),
        ("retention", json!("interest"), none(), Refused, MENDED),
        ("retention", json!("workqueue"), none(), Refused, LEFT),
        ("max_age", json!(3_600_000_000_000_u64), none(), Refused, MENDED),
        ("max_msgs_per_subject", json!(5), none(), Refused, MENDED),
        ("discard", json!("old"), none(), Refused, MENDED),
        ("no_ack", json!(true), none(), Refused, MENDED),
        ("allow_rollup_hdrs", json!(true), none(), Refused, MENDED),
        ("consumer_limits", json!({"inactive_threshold": 1_000_000_000}), none(), Refused, MENDED),
        ("subject_delete_marker_ttl", json!(60_000_000_000_u64), none(), Refused, LEFT),
        ("mirror", json!({"name": "OTHER"}), json!({"subjects": [], "allow_atomic": false}), Refused, MENDED),
        (
            "mirror_direct",
            json!(true),
            json!({"mirror": {"name": "OTHER"}, "subjects": [], "allow_atomic": false}),
            Harmless,
            LEFT,
        ),
        ("storage", json!("memory"), none(), Refused, LEFT),
        ("allow_msg_ttl", json!(true), none(), Refused, LEFT),
        ("allow_msg_counter", json!(true), json!({"discard": "old"}), Refused, LEFT),
        ("allow_msg_schedules", json!(true), json!({"discard": "old"}), Refused, LEFT),
        ("persist_mode", json!("async"), json!({"allow_atomic": false}), Refused, LEFT),
    ]
}

/// Settings that cannot be changed on a single server.
const NOT_HERE: [&str; 4] = ["name", "num_replicas", "pause_until", "template_owner"];

async fn created(bus: &Bus, request: &str, settings: &Settings) -> Settings {
    let name = settings.get("name").and_then(Value::as_str).unwrap();
    let answer = bus.jetstream().request(format!("STREAM.{request}.{name}"), settings).await;
    let mut answer: Settings = answer.unwrap();
    let Some(Value::Object(settings)) = answer.remove("config") else { panic!("{settings:?}: {answer:?}") };
    settings
}

#[tokio::test]
async fn every_setting_of_the_server_is_decided() {
    let server = start_nats(|_| {}).await;
    let bus = Bus::connect(&Nats::default(), &server.url(), "test").await.unwrap();
    let (kind, streams) = (Kind::Events, Streams { max_bytes: bytesize::ByteSize::mib(64), ..Streams::default() });
    let Value::Object(other) = json!({"name": "OTHER", "subjects": ["other.>"]}) else { panic!() };
    created(&bus, "CREATE", &other).await;
    let wanted = bus.wanted_settings(kind, &streams);
    let mut covered: BTreeSet<_> = NOT_HERE.into();
    for (name, value, beside, decision, mended) in deviations() {
        let mut settings = wanted.clone();
        settings.insert(name.to_owned(), value.clone());
        settings.extend(beside.as_object().unwrap().clone());
        let answer = if name == "sealed" {
            // A stream cannot be created sealed.
            settings.remove(name);
            created(&bus, "CREATE", &settings).await;
            settings.insert(name.to_owned(), value.clone());
            created(&bus, "UPDATE", &settings).await
        } else {
            created(&bus, "CREATE", &settings).await
        };
        assert_ne!(value_of(&answer, name), value_of(&wanted, name), "the server took no notice of {name}: {answer:?}");
        let unknown: Vec<_> = names(&answer).difference(&table()).copied().map(str::to_owned).collect();
        assert!(unknown.is_empty(), "not decided: {unknown:?}");

        let found = async || {
            let state = bus.stream_state(kind).await.unwrap();
            let differences = bus.stream_differences(kind, &state, &streams);
            differences.into_iter().find(|difference| difference.setting == name)
        };
        let difference = found().await;
        let decided = match &difference {
            None => Harmless,
            Some(difference) if difference.dangerous => Refused,
            Some(_) => Named,
        };
        assert_eq!(decided, decision, "{name} = {value}");
        bus.ensure_stream(kind, &streams, true).await.unwrap();
        if difference.is_some() {
            assert_eq!(found().await.is_none(), mended, "{name} = {value} after `setup --update`");
        }
        bus.delete_stream(kind).await.unwrap();
        covered.insert(name);
    }
    assert_eq!(covered, table(), "a setting is not tried");
}

#[test]
fn a_setting_that_this_build_does_not_know_is_named_where_it_is_in_use() {
    let known = json!({"max_bytes": 5});
    let with = |value: Value| {
        let Value::Object(mut settings) = known.clone() else { panic!() };
        settings.insert("allow_forgetting".to_owned(), value);
        let Value::Object(wanted) = known.clone() else { panic!() };
        let found = differences(&settings, &wanted);
        found.into_iter().find(|difference| difference.mend == Mend::Unknown).map(|difference| difference.to_string())
    };
    for unset in [json!(false), json!(0), json!(-1), json!(""), json!(null), json!([]), json!({})] {
        assert_eq!(with(unset.clone()), None, "{unset}");
    }
    let said = with(json!(true)).unwrap();
    assert!(said.starts_with("allow_forgetting is true, expected false"), "{said}");
}

#[test]
fn a_mend_changes_what_differs_and_nothing_else() {
    let object = |value: Value| if let Value::Object(settings) = value { settings } else { panic!("{value}") };
    let wanted = object(json!({"subjects": ["w.events.>"], "discard": "new", "max_bytes": 10, "max_age": 0}));
    let is = object(json!({
        "subjects": ["mine.>"], "discard": "old", "max_bytes": 10, "max_age": 5, "metadata": {"team": "x"},
        "duplicate_window": 7, "allow_rollup_hdrs": true, "max_msgs": -1
    }));
    let found = differences(&is, &wanted);
    let mended = mended(&is, &wanted, &found);
    assert_eq!(
        Value::Object(mended.clone()),
        json!({
            "subjects": ["mine.>", "w.events.>"], "discard": "new", "max_bytes": 10, "metadata": {"team": "x"},
            "duplicate_window": 7, "max_msgs": -1
        })
    );
    assert_eq!(differences(&mended, &wanted), []);
}

#[tokio::test]
async fn a_stream_that_is_as_setup_makes_it_has_no_differences() {
    let server = start_nats(|_| {}).await;
    let bus = Bus::connect(&Nats::default(), &server.url(), "test").await.unwrap();
    let streams = Streams { max_bytes: bytesize::ByteSize::mib(64), ..Streams::default() };
    for &kind in Kind::ALL {
        assert_eq!(bus.ensure_stream(kind, &streams, false).await.unwrap(), Ensured::Created);
        assert_eq!(bus.ensure_stream(kind, &streams, false).await.unwrap(), Ensured::Unchanged);
    }
}
