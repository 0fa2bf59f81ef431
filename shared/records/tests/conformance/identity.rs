//! `id`: the producer's, or derived from the message's position in its stream.

use records::{Kind, REPLAY_ID_HEADER, REPLAY_TIME_HEADER};
use serde_json::json;
use uuid::Uuid;

use crate::support::{Sent, now, time};

#[test]
fn a_uuid_is_taken_as_it_is_in_every_spelling() {
    let plain = "5f0c1a52-6d3e-4b7a-9c81-2e4d6f8a0b13";
    for &kind in Kind::ALL {
        for spelling in [
            plain.to_owned(),
            plain.to_uppercase(),
            plain.replace('-', ""),
            format!("{{{plain}}}"),
            format!("urn:uuid:{plain}"),
        ] {
            let stored = Sent::with(kind, json!({ "id": spelling })).stored();
            assert_eq!(stored.get("id"), json!(plain), "{spelling}");
            assert_eq!(stored.id.to_string(), plain);
        }
    }
}

#[test]
fn another_string_becomes_the_same_version_5_uuid_every_time() {
    for &kind in Kind::ALL {
        let order = || Sent::with(kind, json!({ "id": "order-17" }));
        let id = order().stored().id;
        assert_eq!(id.get_version_num(), 5);
        assert_eq!(order().sequence(99).published_at("2026-06-15T13:00:00Z").stored().id, id);
        assert_ne!(Sent::with(kind, json!({ "id": "order-18" })).stored().id, id);
    }
}

#[test]
fn the_same_string_of_two_organizations_is_two_records() {
    let of =
        |organization| Sent::with(Kind::Events, json!({ "id": "order-17" })).organization(organization).stored().id;
    let ids = [of(Some("acme")), of(Some("globex")), of(None)];
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
}

#[test]
fn an_absent_id_is_the_same_whenever_the_message_is_read_again() {
    for &kind in Kind::ALL {
        for members in [json!({}), json!({ "id": null })] {
            let sent = Sent::with(kind, members);
            assert_eq!(sent.stored(), sent.stored());
            assert_eq!(sent.stored().id.get_version_num(), 5);
        }
    }
}

#[test]
fn an_absent_id_tells_messages_apart_by_stream_sequence_and_time() {
    let ids = [
        Sent::with(Kind::Events, json!({})).stored().id,
        Sent::with(Kind::Events, json!({})).sequence(18).stored().id,
        // A recreated stream counts from 1 again.
        Sent::with(Kind::Events, json!({})).published_at("2026-06-15T12:00:00.000000001Z").stored().id,
        Sent::with(Kind::Metrics, json!({})).stored().id,
    ];
    for (at, id) in ids.iter().enumerate() {
        assert!(!ids[at + 1..].contains(id), "{ids:?}");
    }
}

#[test]
fn an_id_that_is_no_id_is_refused() {
    for &kind in Kind::ALL {
        for (id, refused) in [
            (json!(""), "invalid_field:id"),
            (json!(17), "invalid_field:id"),
            (json!(true), "invalid_field:id"),
            (json!(["a"]), "invalid_field:id"),
            (json!({ "$oid": "a" }), "invalid_field:id"),
            (json!("i".repeat(257)), "too_large:id"),
        ] {
            assert_eq!(Sent::with(kind, json!({ "id": id })).refused(), refused, "{kind} {id}");
        }
        Sent::with(kind, json!({ "id": "i".repeat(256) })).stored();
    }
}

#[test]
fn a_replay_keeps_the_identity_of_the_original() {
    for &kind in Kind::ALL {
        let original = Sent::with(kind, json!({})).published_at("2026-06-15T09:30:00.123456789Z");
        let (id, created_at) = original.read(|message| message.replay_identity());
        assert_eq!((id, created_at), (original.stored().id, original.stored().created_at));

        let replay = Sent::with(kind, json!({}))
            .sequence(4711)
            .header(REPLAY_ID_HEADER, &id.to_string())
            .header(&REPLAY_TIME_HEADER.to_lowercase(), &created_at.to_rfc3339());
        let stored = replay.stored();
        assert_eq!((stored.id, stored.created_at), (id, created_at));
        assert_eq!(stored.get("received_at"), json!("2026-06-15T12:00:00.000000Z"), "received now, not then");
        assert_eq!(replay.read(|message| message.replay_identity()), (id, created_at), "a replay of a replay too");
    }
}

#[test]
fn what_the_body_says_goes_before_the_replay_headers() {
    let stored = Sent::with(Kind::Events, json!({ "id": "order-17", "created_at": "2026-06-15T11:00:00Z" }))
        .header(REPLAY_ID_HEADER, &Uuid::nil().to_string())
        .header(REPLAY_TIME_HEADER, "2026-06-15T08:00:00Z")
        .stored();
    assert_eq!(stored.id, Sent::with(Kind::Events, json!({ "id": "order-17" })).stored().id);
    assert_eq!(stored.created_at, time("2026-06-15T11:00:00Z"));
}

#[test]
fn replay_headers_that_say_nothing_are_passed_over() {
    let plain = Sent::with(Kind::Events, json!({}));
    let odd = plain.clone().header(REPLAY_ID_HEADER, "none").header(REPLAY_TIME_HEADER, "yesterday");
    assert_eq!(odd.stored(), plain.stored());
    assert_eq!(plain.stored().created_at, now());
}
