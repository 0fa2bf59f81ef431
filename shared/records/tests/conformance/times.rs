//! `created_at`, `received_at`, the accepted range, and the minute of the roll-ups.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use records::Kind;
use serde_json::{Value, json};

use crate::support::{Sent, now, time};

/// A UUIDv7 of 2026-06-15T11:59:58Z.
const VERSION_7: &str = "019ecb27-1a30-7a44-8f31-5f4c2b9d7e10";

fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[test]
fn the_first_time_that_is_given_counts() {
    let of_stream = "2026-06-15T12:00:00.000000Z";
    for &kind in Kind::ALL {
        for (members, created_at) in [
            (
                json!({ "created_at": "2026-06-15T10:00:00Z", "timestamp": "2026-06-15T11:00:00Z", "id": VERSION_7 }),
                "2026-06-15T10:00:00.000000Z",
            ),
            (
                json!({ "createdAt": "2026-06-15T10:00:00Z", "timestamp": "2026-06-15T11:00:00Z" }),
                "2026-06-15T10:00:00.000000Z",
            ),
            (json!({ "timestamp": "2026-06-15T11:00:00Z", "id": VERSION_7 }), "2026-06-15T11:00:00.000000Z"),
            (json!({ "created_at": null, "timestamp": "2026-06-15T11:00:00Z" }), "2026-06-15T11:00:00.000000Z"),
            (json!({ "created_at": null, "createdAt": "2026-06-15T11:00:00Z" }), "2026-06-15T11:00:00.000000Z"),
            (json!({ "id": VERSION_7 }), "2026-06-15T11:59:58.000000Z"),
            (json!({ "id": VERSION_7, "created_at": null, "timestamp": null }), "2026-06-15T11:59:58.000000Z"),
            (json!({ "id": "5f0c1a52-6d3e-4b7a-9c81-2e4d6f8a0b13" }), of_stream),
            (json!({ "id": "order-17" }), of_stream),
            (json!({}), of_stream),
        ] {
            let stored = Sent::with(kind, members.clone()).stored();
            assert_eq!(stored.get("created_at"), json!(created_at), "{kind} {members}");
            assert_eq!(stored.created_at, time(created_at));
        }
    }
}

#[test]
fn a_uuid_that_only_looks_like_version_7_tells_no_time() {
    // According to its variant, this is not a UUID of RFC 9562, so its version has no meaning.
    let stored = Sent::with(Kind::Events, json!({ "id": "ffffffff-ffff-7fff-ffff-ffffffffffff" })).stored();
    assert_eq!(stored.created_at, now());
}

#[test]
fn a_timestamp_beside_created_at_is_kept_as_an_attribute() {
    let stored =
        Sent::with(Kind::Events, json!({ "created_at": "2026-06-15T10:00:00Z", "timestamp": "2026-06-15T11:00:00Z" }))
            .stored();
    assert_eq!(stored.get("attributes"), json!({ "timestamp": "2026-06-15T11:00:00Z" }));
}

#[test]
fn offsets_are_understood_and_microseconds_kept() {
    for (sent, created_at) in [
        ("2026-06-15T12:00:00+02:00", "2026-06-15T10:00:00.000000Z"),
        ("2026-06-15T06:30:00.5-04:30", "2026-06-15T11:00:00.500000Z"),
        ("2026-06-15T11:00:00.123456Z", "2026-06-15T11:00:00.123456Z"),
        ("2026-06-15T11:00:00.999999999Z", "2026-06-15T11:00:00.999999Z"),
        ("2026-06-15t11:00:00z", "2026-06-15T11:00:00.000000Z"),
        ("2026-06-15T13:00:00+0200", "2026-06-15T11:00:00.000000Z"),
        ("2026-06-15 11:00:00.25+00", "2026-06-15T11:00:00.250000Z"),
        ("2026-06-15 11:00:00 UTC", "2026-06-15T11:00:00.000000Z"),
    ] {
        let stored = Sent::with(Kind::Metrics, json!({ "created_at": sent })).stored();
        assert_eq!(stored.get("created_at"), json!(created_at), "{sent}");
        assert_eq!(stored.created_at, time(created_at), "what the writer is told is what the row says");
    }
}

#[test]
fn the_streams_own_time_is_cut_to_microseconds_too() {
    for &kind in Kind::ALL {
        let stored = Sent::with(kind, json!({})).published_at("2026-06-15T12:00:05.123456789Z").stored();
        assert_eq!(stored.get("received_at"), json!("2026-06-15T12:00:05.123456Z"));
        assert_eq!(stored.get("created_at"), json!("2026-06-15T12:00:05.123456Z"));
        assert_eq!(stored.created_at, time("2026-06-15T12:00:05.123456Z"));
    }
}

#[test]
fn a_time_that_is_none_is_refused_as_created_at() {
    for name in ["created_at", "createdAt", "timestamp"] {
        for value in [
            json!("yesterday"),
            json!(""),
            json!("2026-06-15"),
            json!("2026-06-15T12:00:00"),
            json!("2026-13-15T12:00:00Z"),
            json!("2026-06-15T25:00:00Z"),
            json!("2026-06-15T11:00:60Z"),
            json!(1_781_524_800),
            json!({ "$date": 0 }),
        ] {
            let sent = Sent::with(Kind::Errors, json!({ name: value }));
            assert_eq!(sent.refused(), "invalid_field:created_at", "{name} {value}");
        }
    }
}

#[test]
fn the_accepted_range_ends_at_retention_and_a_day_ahead() {
    let micro = TimeDelta::microseconds(1);
    let at = |kind, time, keep| Sent::with(kind, json!({ "created_at": text(time) })).keep(keep);
    let out_of_range = "created_at_out_of_range:created_at";
    for &kind in Kind::ALL {
        for keep in [TimeDelta::hours(12), TimeDelta::days(1), TimeDelta::days(30), TimeDelta::days(3650)] {
            at(kind, now() - keep, Some(keep)).stored();
            assert_eq!(at(kind, now() - keep - micro, Some(keep)).refused(), out_of_range);
        }
        for keep in [None, Some(TimeDelta::days(30))] {
            let ahead = now() + TimeDelta::hours(24);
            at(kind, ahead, keep).stored();
            assert_eq!(at(kind, ahead + micro, keep).refused(), out_of_range);
        }
    }
}

#[test]
fn what_is_kept_for_ever_reaches_back_to_1970() {
    let at = |created_at| Sent::with(Kind::Audit, json!({ "created_at": created_at })).keep(None);
    let stored = at("1970-01-01T00:00:00Z").stored();
    assert_eq!(stored.get("created_at"), json!("1970-01-01T00:00:00.000000Z"));
    assert_eq!(at("1969-12-31T23:59:59.999999Z").refused(), "created_at_out_of_range:created_at");
    assert_eq!(at("0001-01-01T00:00:00Z").refused(), "created_at_out_of_range:created_at");
    assert_eq!(at("9999-12-31T23:59:59Z").refused(), "created_at_out_of_range:created_at");
}

#[test]
fn the_range_is_measured_from_the_streams_time_and_not_from_today() {
    let sent =
        Sent::with(Kind::Events, json!({ "created_at": "2001-02-03T04:05:06Z" })).published_at("2001-02-03T04:05:07Z");
    assert_eq!(sent.stored().get("created_at"), json!("2001-02-03T04:05:06.000000Z"));
}

#[test]
fn the_time_inside_an_id_must_be_in_range_as_well() {
    let sent = Sent::with(Kind::Events, json!({ "id": "ffffffff-ffff-7fff-bfff-ffffffffffff" }));
    assert_eq!(sent.refused(), "created_at_out_of_range:created_at");
}

#[test]
fn the_refusal_says_in_words_how_long_the_kind_is_kept() {
    for (keep, words) in [(TimeDelta::days(30), "30 days"), (TimeDelta::hours(36), "36 h")] {
        let sent = Sent::with(Kind::Events, json!({ "created_at": "2020-01-01T00:00:00Z" })).keep(Some(keep));
        let reject = sent.encode().unwrap_err();
        assert!(reject.detail.contains(words), "{reject}");
    }
}

#[test]
fn the_roll_ups_count_at_the_minute_of_the_better_clock() {
    let published = "2026-06-15T12:00:30.000000789Z";
    for (created_at, minute, why) in [
        (json!("2026-06-15T12:00:29.999999Z"), "2026-06-15T12:00:00Z", "the same minute"),
        (json!("2026-06-15T11:59:59.999999Z"), "2026-06-15T11:59:00Z", "the minute before"),
        (json!("2026-06-15T11:45:31Z"), "2026-06-15T11:45:00Z", "less than 15 minutes behind"),
        (json!("2026-06-15T11:45:29Z"), "2026-06-15T12:00:00Z", "more than 15 minutes behind"),
        (json!("2026-06-15T12:01:30Z"), "2026-06-15T12:01:00Z", "60 seconds ahead"),
        (json!("2026-06-15T12:01:31Z"), "2026-06-15T12:00:00Z", "more than 60 seconds ahead"),
        (Value::Null, "2026-06-15T12:00:00Z", "only the stream's clock"),
    ] {
        for &kind in Kind::ALL {
            let stored = Sent::with(kind, json!({ "created_at": created_at })).published_at(published).stored();
            assert_eq!(stored.minute, time(minute), "{kind}: {why}");
        }
    }
    let border = Sent::with(Kind::Events, json!({ "created_at": "2026-06-15T11:45:00Z" })).stored();
    assert_eq!(border.minute, time("2026-06-15T11:45:00Z"), "exactly 15 minutes behind");
}
