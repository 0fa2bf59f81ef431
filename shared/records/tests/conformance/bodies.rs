//! Bodies: compressed, with a byte order mark, or in another format than JSON.

use std::io::Write;

use records::Kind;
use serde_json::{Value, json};

use crate::support::{Sent, minimal};

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn zstd(body: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(body, 3).unwrap()
}

fn detail(sent: &Sent) -> String {
    sent.encode().unwrap_err().detail
}

#[test]
fn a_byte_order_mark_is_passed_by() {
    for &kind in Kind::ALL {
        let plain = Value::Object(minimal(kind)).to_string();
        let marked = Sent::body(kind, format!("\u{feff}{plain}"));
        assert_eq!(marked.stored(), Sent::body(kind, plain).stored());
    }
    let twice = Sent::body(Kind::Events, "\u{feff}\u{feff}{\"event_type\":\"x\"}");
    assert_eq!(twice.refused(), "invalid_json:");
}

#[test]
fn compressed_bodies_are_the_same_records() {
    for &kind in Kind::ALL {
        let plain = Value::Object(minimal(kind)).to_string();
        let stored = Sent::body(kind, plain.as_str()).stored();
        for (coding, packed) in [
            ("gzip", gzip(plain.as_bytes())),
            ("GZIP", gzip(plain.as_bytes())),
            ("zstd", zstd(plain.as_bytes())),
            ("gzip, zstd", zstd(&gzip(plain.as_bytes()))),
            ("identity", plain.clone().into_bytes()),
        ] {
            let sent = Sent::body(kind, packed).header("Content-Encoding", coding);
            assert_eq!(sent.stored(), stored, "{kind} {coding}");
        }
    }
}

#[test]
fn a_compressed_cloudevent_is_a_cloudevent() {
    let event =
        json!({ "specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": { "payload": { "a": 1 } } });
    let sent = Sent::body(Kind::Events, zstd(event.to_string().as_bytes()))
        .header("Content-Encoding", "zstd")
        .header("Content-Type", "application/cloudevents+json");
    let stored = sent.stored();
    assert_eq!((stored.get("event_type"), stored.get("payload")), (json!("t"), json!({ "a": 1 })));
}

#[test]
fn what_unpacks_to_more_than_a_message_is_too_large() {
    for &kind in Kind::ALL {
        for (coding, pack) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd)] {
            let mut body = Value::Object(minimal(kind)).to_string().into_bytes();
            body.resize(1024 * 1024, b' ');
            Sent::body(kind, pack(&body)).header("Content-Encoding", coding).stored();
            body.resize(1024 * 1024 + 1, b' ');
            assert_eq!(Sent::body(kind, pack(&body)).header("Content-Encoding", coding).refused(), "too_large:");
        }
    }
    let bomb = gzip(&vec![b' '; 256 * 1024 * 1024]);
    assert!(bomb.len() < 1024 * 1024, "a bomb fits into a message");
    assert_eq!(Sent::body(Kind::Events, bomb).header("Content-Encoding", "gzip").refused(), "too_large:");
}

#[test]
fn a_coding_that_is_unknown_or_untrue_is_named() {
    for (coding, body, word) in [
        ("br", b"{}".to_vec(), "expected gzip, zstd or identity"),
        ("gzip", b"{}".to_vec(), "Content-Encoding says gzip"),
        ("zstd", gzip(b"{}"), "Content-Encoding says zstd"),
    ] {
        let sent = Sent::body(Kind::Events, body).header("Content-Encoding", coding);
        assert_eq!(sent.refused(), "invalid_json:", "{coding}");
        assert!(detail(&sent).contains(word), "{coding}: {}", detail(&sent));
    }
}

#[test]
fn what_is_no_object_is_called_by_its_name() {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    for (body, word) in [
        (Vec::new(), "empty"),
        (b" \n".to_vec(), "empty"),
        (b"\xef\xbb\xbf".to_vec(), "empty"),
        (b"[{\"event_type\":\"x\"}]".to_vec(), "list"),
        (b"\"{}\"".to_vec(), "string"),
        (b"17".to_vec(), "number"),
        (gzip(b"{\"event_type\":\"x\"}"), "gzip"),
        (zstd(b"{\"event_type\":\"x\"}"), "zstd"),
        (utf16("{\"event_type\":\"x\"}"), "UTF-16"),
        (utf16("\u{feff}{\"event_type\":\"x\"}"), "UTF-16"),
        (b"\x81\xaaevent_type\xa1x".to_vec(), "binary"),
    ] {
        let sent = Sent::body(Kind::Events, body.clone());
        assert_eq!(sent.refused(), "invalid_json:", "{body:?}");
        assert!(detail(&sent).contains(word), "{body:?}: {}", detail(&sent));
    }
}
