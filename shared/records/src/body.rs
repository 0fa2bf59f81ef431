//! Decompresses the body of a message, and names formats other than JSON.

use std::borrow::Cow;
use std::io::{self, Read};

use flate2::bufread::MultiGzDecoder;

use crate::headers::Headers;
use crate::limits::{CONTENT_CODINGS, MESSAGE_BYTES, ZSTD_WINDOW_LOG};
use crate::{Reason, Reject};

/// The header that names the codings of a body, as in HTTP (RFC 9110, section 8.4).
const CONTENT_ENCODING: &str = "Content-Encoding";

/// Returns the body without its content codings.
///
/// # Errors
/// `too_large` if the body is larger than [`MESSAGE_BYTES`] before or after decompression, `invalid_json` if a coding
/// is not supported or the body is damaged.
pub(crate) fn unpack<'b>(body: &'b [u8], headers: &Headers) -> Result<Cow<'b, [u8]>, Reject> {
    if body.len() > MESSAGE_BYTES {
        let detail = format!("{} bytes, the limit is {MESSAGE_BYTES}", body.len());
        return Err(Reject::message(Reason::TooLarge, detail));
    }
    if headers.is_empty() {
        return Ok(Cow::Borrowed(body));
    }
    let mut unpacked = Cow::Borrowed(body);
    // Codings are listed in the order in which they were applied.
    for (at, coding) in headers.get(CONTENT_ENCODING).into_iter().flat_map(|codings| codings.rsplit(',')).enumerate() {
        if at == CONTENT_CODINGS {
            let detail = format!("more than {CONTENT_CODINGS} codings in {CONTENT_ENCODING}, the limit");
            return Err(Reject::message(Reason::InvalidJson, detail));
        }
        unpacked = match coding.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => unpacked,
            // A gzip body may have several members, and a zstd body several frames.
            "gzip" | "x-gzip" => Cow::Owned(read("gzip", MultiGzDecoder::new(&*unpacked))?),
            "zstd" => Cow::Owned(read("zstd", zstd_decoder(&unpacked).map_err(|error| damaged("zstd", &error))?)?),
            _ => {
                let detail = format!("unsupported {CONTENT_ENCODING}: expected gzip, zstd or identity");
                return Err(Reject::message(Reason::InvalidJson, detail));
            }
        };
    }
    Ok(unpacked)
}

fn zstd_decoder(body: &[u8]) -> io::Result<impl Read> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(body)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(decoder)
}

/// Reads at most [`MESSAGE_BYTES`], and one byte more to notice a larger body.
fn read(coding: &str, decoder: impl Read) -> Result<Vec<u8>, Reject> {
    let mut unpacked = Vec::new();
    let limit = MESSAGE_BYTES as u64 + 1;
    decoder.take(limit).read_to_end(&mut unpacked).map_err(|error| damaged(coding, &error))?;
    if unpacked.len() > MESSAGE_BYTES {
        let detail = format!("unpacks to more than {MESSAGE_BYTES} bytes, the limit");
        return Err(Reject::message(Reason::TooLarge, detail));
    }
    Ok(unpacked)
}

fn damaged(coding: &str, error: &io::Error) -> Reject {
    Reject::message(Reason::InvalidJson, format!("{CONTENT_ENCODING} says {coding}, and unpacking failed: {error}"))
}

/// Describes a text that does not begin like a JSON object, without quoting it.
pub(crate) fn describe(text: &str) -> &'static str {
    let text = text.trim_ascii();
    match text.as_bytes().first() {
        None => "an empty body",
        Some(b'[') => "a list: publish each of its records as a message of its own",
        Some(b'"') => "a string: was the object encoded twice?",
        Some(b'-' | b'0'..=b'9') => "a number or a text that begins with a digit",
        Some(b'<') => "XML or HTML",
        _ if matches!(text, "null" | "true" | "false") => "null, true or false",
        _ => "text that is not JSON",
    }
}

/// Returns the format of a body that is not JSON text, if its first bytes identify it.
pub(crate) fn recognize(body: &[u8]) -> Option<&'static str> {
    Some(match body {
        [0x1f, 0x8b, ..] => "gzip: set the header `Content-Encoding: gzip`",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd: set the header `Content-Encoding: zstd`",
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => "UTF-32: JSON is exchanged as UTF-8",
        [b'{' | b'[', 0, 0, 0, ..] | [0, 0, 0, b'{' | b'[', ..] => "UTF-32: JSON is exchanged as UTF-8",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "UTF-16: JSON is exchanged as UTF-8",
        [b'{' | b'[', 0, ..] | [0, b'{' | b'[', ..] => "UTF-16: JSON is exchanged as UTF-8",
        [0xef, 0xbb, 0xbf, ..] => return None, // UTF-8 with a byte order mark
        // MessagePack, CBOR and Protocol Buffers begin with such bytes; JSON cannot.
        [first, ..] if !first.is_ascii() || (first.is_ascii_control() && !first.is_ascii_whitespace()) => {
            "a binary format: JSON text in UTF-8 is expected"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn headers(coding: &str) -> Headers {
        Headers::from_iter([("content-encoding".to_owned(), coding.to_owned())])
    }

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(body: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(body, 19).unwrap()
    }

    fn reason(body: &[u8], coding: &str) -> Result<Vec<u8>, Reason> {
        unpack(body, &headers(coding)).map(Cow::into_owned).map_err(|reject| reject.reason)
    }

    #[test]
    fn bodies_are_unpacked_as_the_header_says() {
        let body = br#"{"event_type":"x"}"#;
        for (packed, coding) in [
            (gzip(body), "gzip"),
            (gzip(body), "GZip"),
            (gzip(body), "x-gzip"),
            (zstd(body), "zstd"),
            (body.to_vec(), "identity"),
            (body.to_vec(), ""),
            (zstd(&gzip(body)), "gzip, zstd"),
            ([gzip(&body[..5]), gzip(&body[5..])].concat(), "gzip"),
            ([zstd(&body[..5]), zstd(&body[5..])].concat(), "zstd"),
        ] {
            assert_eq!(reason(&packed, coding).as_deref(), Ok(body.as_slice()), "{coding}");
        }
    }

    #[test]
    fn damaged_and_unknown_codings_are_refused() {
        let body = br#"{"event_type":"x"}"#.repeat(100);
        for (packed, coding) in [
            (body.clone(), "gzip"),
            (body.clone(), "zstd"),
            (gzip(&body), "zstd"),
            (gzip(&body)[..40].to_vec(), "gzip"),
            (zstd(&body)[..20].to_vec(), "zstd"),
            (Vec::new(), "gzip"),
            (body.clone(), "br"),
            (gzip(&gzip(&gzip(&body))), "gzip, gzip, gzip"),
        ] {
            assert_eq!(reason(&packed, coding), Err(Reason::InvalidJson), "{coding}");
        }
    }

    #[test]
    fn a_bomb_is_too_large() {
        let spaces = |bytes: usize| vec![b' '; bytes];
        for (coding, pack) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd)] {
            assert_eq!(reason(&pack(&spaces(MESSAGE_BYTES)), coding).map(|body| body.len()), Ok(MESSAGE_BYTES));
            assert_eq!(reason(&pack(&spaces(MESSAGE_BYTES + 1)), coding), Err(Reason::TooLarge));
            assert_eq!(reason(&pack(&spaces(64 * MESSAGE_BYTES)), coding), Err(Reason::TooLarge));
        }
    }

    #[test]
    fn a_zstd_window_that_takes_much_memory_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(ZSTD_WINDOW_LOG + 1).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.write_all(b"{}").unwrap();
        assert_eq!(reason(&encoder.finish().unwrap(), "zstd"), Err(Reason::InvalidJson));
    }

    #[test]
    fn what_is_no_object_is_named() {
        for (text, word) in [
            ("", "empty"),
            (" \r\n", "empty"),
            ("[]", "list"),
            ("\"{}\"", "twice"),
            ("1", "number"),
            ("null", "null"),
            ("<a/>", "XML"),
            ("level=info", "not JSON"),
        ] {
            assert!(describe(text).contains(word), "{text:?}: {}", describe(text));
        }
        for (body, word) in [
            (gzip(b"{}"), "gzip"),
            (zstd(b"{}"), "zstd"),
            (b"\xff\xfe{\0}\0".to_vec(), "UTF-16"),
            (b"\xfe\xff\0{\0}".to_vec(), "UTF-16"),
            (b"{\0}\0".to_vec(), "UTF-16"),
            (b"\0{\0}".to_vec(), "UTF-16"),
            (b"{\0\0\0}\0\0\0".to_vec(), "UTF-32"),
            (b"\x81\xa5hello".to_vec(), "binary"),
            (b"\x08\x01".to_vec(), "binary"),
        ] {
            assert!(recognize(&body).is_some_and(|name| name.contains(word)), "{body:?}: {:?}", recognize(&body));
        }
        for body in [b"".as_slice(), b"{}", b" {}", b"\n[]", b"x"] {
            assert_eq!(recognize(body), None, "{body:?}");
        }
    }
}
