//! Fuzzes `encode`: every message becomes one row or one rejection, as the property tests check it. Each line of the
//! input is a body, so the fixtures can be used as seeds.
//!
//! ```sh
//! cargo install cargo-fuzz
//! cd shared/records
//! mkdir -p fuzz/corpus/encode
//! cargo +nightly fuzz run encode fuzz/corpus/encode src/*/fixtures -- -max_len=1024 -max_total_time=600
//! ```

#![no_main]

#[path = "../../tests/conformance/support/copy.rs"]
mod copy;
#[path = "../../tests/conformance/support/property.rs"]
mod property;

use chrono::{DateTime, TimeDelta, Utc};
use libfuzzer_sys::fuzz_target;
use records::{Fixtures, Headers, Kind, Message, subject};

fuzz_target!(|data: &[u8]| {
    let published_at: DateTime<Utc> = Fixtures::PUBLISHED_AT.parse().unwrap();
    for body in data.split(|b| *b == b'\n') {
        for &kind in Kind::ALL {
            for header in
                [None, Some(("content-type", "application/cloudevents+json")), Some(("ce-specversion", "1.0"))]
            {
                let message = Message {
                    kind,
                    prefix: "watchbook",
                    subject: &subject::for_record("watchbook", kind, Some(Fixtures::ORGANIZATION), "fuzz"),
                    stream: "FUZZ",
                    sequence: 1,
                    published_at,
                    headers: &header
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value.to_owned()))
                        .collect::<Headers>(),
                    body,
                };
                property::holds(&message, kind.spec().keep_days.map(|days| TimeDelta::days(days.into())));
            }
        }
    }
});
