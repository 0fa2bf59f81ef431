//! Request bodies: each is bounded, and so are all together, compressed or not.
//!
//! A compressed body is decompressed as it arrives, so it is never in memory in both forms. Its decompressed size is
//! charged to the caller's quota and has the same limit as any other body. Decoders are bounded as well: a gzip window
//! is 32 KiB, and a zstd window at most 8 MiB (RFC 9659), of which a decoder fills no more than it has decompressed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use records::limits::ZSTD_WINDOW_LOG;
use runtime::config::Gateway;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

use crate::app::App;
use crate::problem::{Fault, Problem};
use crate::quota::{Permit, QuotaExceeded};

/// How long a body may take to arrive: enough for the largest one over a slow connection.
const BODY_WITHIN: Duration = Duration::from_secs(20);
/// `Retry-After` when there is no memory for a body: other bodies should have arrived by then.
const ARRIVED_AFTER: Duration = Duration::from_secs(1);
/// Bytes that are decompressed before yielding to other requests: some tens of microseconds of work.
const CHUNK: usize = 64 * 1024;
/// Memory of a decoder besides the zstd window: its tables and buffers.
const DECODER_BYTES: u64 = 512 * 1024;
/// A byte order mark, which some senders write before JSON. It is ignored (RFC 8259, section 8.1).
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A body with its permit for memory, which is released when it is dropped.
#[derive(Debug)]
pub(crate) struct Body {
    /// The content, decompressed and without a byte order mark.
    pub(crate) bytes: Bytes,
    _permit: Permit,
}

/// The compression of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// RFC 1952, with one or more members.
    Gzip,
    /// RFC 8878, with one or more frames.
    Zstd,
}

/// Returns the quota of one caller for all of its bodies: half of the memory for all bodies, so that a slow sender
/// leaves room for others, but at least the size of the largest body.
pub(crate) fn max_bytes_per_caller(settings: &Gateway) -> u64 {
    (settings.memory.as_u64() / 2).max(settings.max_body_bytes.as_u64())
}

/// Reads a JSON body, for routes that accept neither other types nor compression.
///
/// # Errors
/// 415 for another type or a compressed body; and the errors of [`read`].
pub(crate) async fn read_json(app: &App, caller: &Arc<str>, request: Request, limit: u64) -> Result<Body, Problem> {
    const JSON: &str = "application/json";
    match media_type(request.headers()) {
        Some(media_type) if media_type.eq_ignore_ascii_case(JSON) => {}
        _ => return Err(unsupported_type(&[JSON], "")),
    }
    if !codings(request.headers()).is_ok_and(|codings| codings.is_empty()) {
        let detail = "the header Content-Encoding is invalid: this route does not accept compressed bodies";
        return Err(unsupported_coding(
            "identity",
            "expected none: this route does not accept compressed bodies",
            detail,
        ));
    }
    read(app, caller, request, limit, None).await
}

/// Returns the media type of a body, without its parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<&str> {
    let written = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(written.split(';').next().unwrap_or_default().trim())
}

/// Returns 415 for an unsupported type. `Accept` lists the supported ones (RFC 9110, section 12.5.1).
pub(crate) fn unsupported_type(types: &[&str], why: &str) -> Problem {
    let expected = format!("expected {}{why}", types.join(", "));
    let detail = format!("the header Content-Type is invalid: {expected}");
    let (status, name) = (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type");
    Problem::new(status, name, "Unsupported Media Type", detail)
        .with_faults(vec![Fault::of("Content-Type", expected)], 0)
        .with_header(header::ACCEPT, types.join(", "))
}

/// Reads the compression of a body from `Content-Encoding`; `None` if it is not compressed.
///
/// # Errors
/// 415 for an unsupported coding, or several codings.
pub(crate) fn coding(headers: &HeaderMap) -> Result<Option<Coding>, Problem> {
    let refuse = || {
        let detail = "the header Content-Encoding is invalid: expected gzip or zstd, once, or none";
        Err(unsupported_coding("gzip, zstd", "expected gzip or zstd, once, or none", detail))
    };
    match codings(headers).as_deref() {
        Ok([]) => Ok(None),
        // `x-gzip` is an older name of the same coding (RFC 9110, section 8.4.1.3).
        Ok([one]) if one.eq_ignore_ascii_case("gzip") || one.eq_ignore_ascii_case("x-gzip") => Ok(Some(Coding::Gzip)),
        Ok([one]) if one.eq_ignore_ascii_case("zstd") => Ok(Some(Coding::Zstd)),
        _ => refuse(),
    }
}

/// Returns the codings of a body, without `identity`, which means no coding.
fn codings(headers: &HeaderMap) -> Result<Vec<&str>, header::ToStrError> {
    let mut codings = Vec::new();
    for value in headers.get_all(header::CONTENT_ENCODING) {
        codings.extend(value.to_str()?.split(',').map(str::trim));
    }
    codings.retain(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity"));
    Ok(codings)
}

/// Returns 415 for an unsupported coding. `Accept-Encoding` lists the supported ones (RFC 9110, section 12.5.3).
fn unsupported_coding(usage: &str, reason: &str, detail: &'static str) -> Problem {
    let (status, name) = (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-content-encoding");
    Problem::new(status, name, "Unsupported Content-Encoding", detail)
        .with_faults(vec![Fault::of("Content-Encoding", reason)], 0)
        .with_header(header::ACCEPT_ENCODING, usage)
}

/// Reads a caller's body of at most `limit` bytes, if there is memory for it. For a compressed body, the limit applies
/// before and after decompression.
///
/// # Errors
/// 413 for a larger body, 400 if it cannot be decompressed, 408 if it takes too long to arrive, 429 if the caller's
/// quota is exceeded, and 503 if the memory for all bodies is used up.
pub(crate) async fn read(
    app: &App,
    caller: &Arc<str>,
    request: Request,
    limit: u64,
    coding: Option<Coding>,
) -> Result<Body, Problem> {
    let body = request.into_body();
    let hint = body.size_hint();
    if hint.lower() > limit {
        return Err(too_large(limit));
    }
    let most = match coding {
        None => hint.upper().map_or(limit, |upper| upper.min(limit)),
        Some(_) => DECODER_BYTES.min(limit),
    };
    let mut permit = app.body_memory.acquire(caller, most).map_err(no_room)?;
    let bytes = async {
        match coding {
            None => collect(body, hint.lower(), limit).await,
            Some(coding) => {
                let chunks = body.into_data_stream().map_err(io::Error::other);
                let largest_share = max_bytes_per_caller(&app.settings.gateway);
                unpack(StreamReader::new(chunks), coding, limit, &mut permit, largest_share).await
            }
        }
    };
    let bytes = tokio::time::timeout(BODY_WITHIN, bytes).await;
    let mut bytes = bytes.map_err(|_| Problem::of_status(StatusCode::REQUEST_TIMEOUT))??;
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes = bytes.slice(BYTE_ORDER_MARK.len()..);
    }
    Ok(Body { bytes, _permit: permit })
}

async fn collect(body: axum::body::Body, expected: u64, limit: u64) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::with_capacity(usize::try_from(expected).unwrap_or_default());
    let mut stream = body.into_data_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Problem::of_status(StatusCode::BAD_REQUEST))?;
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(too_large(limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// Decompresses a body as it arrives. `permit` grows with the decompressed size, up to `largest_share`.
async fn unpack(
    packed: impl AsyncBufRead + Unpin,
    coding: Coding,
    limit: u64,
    permit: &mut Permit,
    largest_share: u64,
) -> Result<Bytes, Problem> {
    // Without this, the number of empty members and frames would be unbounded.
    let packed = packed.take(limit + 1);
    let (unpacked, is_too_much) = match coding {
        Coding::Gzip => {
            let mut decoder = GzipDecoder::new(packed);
            decoder.multiple_members(true);
            let permit = |bytes: u64| permit.set((DECODER_BYTES + bytes).min(largest_share));
            let unpacked = fill(&mut decoder, limit, permit).await;
            (unpacked, decoder.get_ref().limit() == 0)
        }
        Coding::Zstd => {
            let mut decoder = ZstdDecoder::with_params(packed, &[DParameter::window_log_max(ZSTD_WINDOW_LOG)]);
            decoder.multiple_members(true);
            // Twice the bytes: the decoder's window holds at most what it has decompressed so far.
            let permit = |bytes: u64| permit.set((DECODER_BYTES + 2 * bytes).min(largest_share));
            let unpacked = fill(&mut decoder, limit, permit).await;
            (unpacked, decoder.get_ref().limit() == 0)
        }
    };
    if is_too_much {
        return Err(too_large(limit));
    }
    let unpacked = unpacked.map_err(|error| match error {
        Unfilled::TooLarge => too_large(limit),
        Unfilled::NoRoom(refusal) => no_room(refusal),
        Unfilled::Unreadable(error) => unreadable(coding, &error),
    })?;
    // The decoder has been dropped. Shrinking is never refused.
    permit.set((unpacked.capacity() as u64).min(largest_share)).ok();
    Ok(unpacked.into())
}

/// The reason why a body could not be read.
#[derive(Debug)]
enum Unfilled {
    TooLarge,
    NoRoom(QuotaExceeded),
    Unreadable(io::Error),
}

/// Reads to the end, or until there are more than `limit` bytes. Never holds more than one byte above the limit, and
/// calls `permit` before it allocates.
async fn fill(
    mut from: impl AsyncRead + Unpin,
    limit: u64,
    mut permit: impl FnMut(u64) -> Result<(), QuotaExceeded>,
) -> Result<Vec<u8>, Unfilled> {
    let most = usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    loop {
        if bytes.len() == bytes.capacity() {
            let more = (bytes.capacity() * 2).max(CHUNK).min(most);
            permit(more as u64).map_err(Unfilled::NoRoom)?;
            bytes.reserve_exact(more - bytes.len());
        }
        let read = from.read_buf(&mut (&mut bytes).limit(CHUNK)).await.map_err(Unfilled::Unreadable)?;
        if bytes.len() as u64 > limit {
            return Err(Unfilled::TooLarge);
        }
        if read == 0 {
            return Ok(bytes);
        }
        tokio::task::yield_now().await;
    }
}

fn unreadable(coding: Coding, error: &io::Error) -> Problem {
    let name = match coding {
        Coding::Gzip => "gzip",
        Coding::Zstd => "zstd with a window of at most 8 MiB",
    };
    let reason = format!("cannot be decompressed as {name}: {error}");
    let detail = "the body does not match its Content-Encoding, or is truncated";
    Problem::new(StatusCode::BAD_REQUEST, "bad-body", "The body cannot be read", detail)
        .with_faults(vec![Fault::of("body", reason)], 0)
}

fn no_room(refusal: QuotaExceeded) -> Problem {
    match refusal {
        QuotaExceeded::Caller => {
            let detail = "the bodies of this caller exceed its memory quota: send fewer at once";
            Problem::too_many("too-many-bodies", detail, ARRIVED_AFTER)
        }
        QuotaExceeded::Total => Problem::unavailable("too many bodies are in progress", ARRIVED_AFTER),
    }
}

fn too_large(limit: u64) -> Problem {
    let detail = format!("the body is larger than {limit} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload-too-large", "Payload Too Large", detail)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use async_compression::tokio::bufread::GzipEncoder;
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::quota::Quota;

    const LIMIT: u64 = 4 << 20;

    async fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        GzipEncoder::new(bytes).read_to_end(&mut packed).await.unwrap();
        packed
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 3).unwrap()
    }

    /// The decoder needs the window that the frame's header names.
    fn zstd_with_window(bytes: &[u8], log: u32) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.set_parameter(zstd::zstd_safe::CParameter::WindowLog(log)).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    async fn unpacked(packed: &[u8], coding: Coding, room_for: u64) -> Result<Bytes, u16> {
        let quota = Quota::new(room_for, room_for);
        let mut permit = quota.acquire(&"c".into(), 0).unwrap();
        // In chunks, as a body arrives.
        let chunks = packed.chunks(1_000).map(|chunk| Ok::<_, io::Error>(Bytes::copy_from_slice(chunk)));
        let packed = StreamReader::new(futures::stream::iter(chunks.collect::<Vec<_>>()));
        let unpacked = unpack(packed, coding, LIMIT, &mut permit, LIMIT * 4).await;
        if let Ok(bytes) = &unpacked {
            assert!(permit.units() >= bytes.len() as u64 && permit.units() <= 2 * bytes.len() as u64 + CHUNK as u64);
        }
        unpacked.map_err(|problem| problem.status().as_u16())
    }

    #[tokio::test]
    async fn what_was_packed_comes_out_again() {
        let largest: Vec<u8> = (0..LIMIT).map(|n| (n * n % 251) as u8).collect();
        for bytes in [&b""[..], b"{}", &largest[..100_000], &largest] {
            assert_eq!(unpacked(&gzip(bytes).await, Coding::Gzip, LIMIT * 4).await.as_deref(), Ok(bytes));
            assert_eq!(unpacked(&zstd(bytes), Coding::Zstd, LIMIT * 4).await.as_deref(), Ok(bytes));
            assert_eq!(unpacked(&zstd_with_window(bytes, 23), Coding::Zstd, LIMIT * 4).await.as_deref(), Ok(bytes));
        }
        // Several members or frames form one body.
        let members = [gzip(b"[{}").await, gzip(b"").await, gzip(b",{}]").await].concat();
        assert_eq!(unpacked(&members, Coding::Gzip, LIMIT).await.as_deref(), Ok(&b"[{},{}]"[..]));
        let skippable = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc".to_vec();
        let frames = [zstd(b"[{}"), skippable, zstd(b""), zstd(b",{}]")].concat();
        assert_eq!(unpacked(&frames, Coding::Zstd, LIMIT).await.as_deref(), Ok(&b"[{},{}]"[..]));
    }

    #[tokio::test]
    async fn what_is_cut_or_broken_is_refused() {
        let bytes: Vec<u8> = (0..50_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
        for (packed, coding) in [
            (gzip(&bytes).await, Coding::Gzip),
            ([gzip(b"[]").await, gzip(&bytes).await].concat(), Coding::Gzip),
            (zstd(&bytes), Coding::Zstd),
            ([zstd(b"[]"), zstd(&bytes)].concat(), Coding::Zstd),
        ] {
            let len = packed.len();
            for end in [0, 1, 5, 12, len / 2, len - 9, len - 4, len - 1] {
                let unpacked = unpacked(&packed[..end], coding, LIMIT * 4).await;
                assert_eq!(unpacked, Err(400), "{coding:?}, {end} of {len}");
            }
            let behind = [&packed[..], b"garbage behind it"].concat();
            assert_eq!(unpacked(&behind, coding, LIMIT * 4).await, Err(400), "{coding:?}");
            assert_eq!(unpacked(b"{\"event_type\":\"x\"}", coding, LIMIT * 4).await, Err(400), "{coding:?}");
        }
        // A changed byte, which the checksum of gzip detects.
        let mut packed = gzip(&bytes).await;
        let middle = packed.len() / 2;
        packed[middle] ^= 0x10;
        assert_eq!(unpacked(&packed, Coding::Gzip, LIMIT * 4).await, Err(400));
        // A window above the limit, however small the content is.
        assert_eq!(unpacked(&zstd_with_window(b"{}", 24), Coding::Zstd, LIMIT * 4).await, Err(400));
    }

    #[tokio::test]
    async fn a_bomb_ends_at_the_limit() {
        let many = vec![0; 64 << 20];
        for (packed, coding) in [(gzip(&many).await, Coding::Gzip), (zstd(&many), Coding::Zstd)] {
            assert!(packed.len() < 100 * 1024, "{} bytes", packed.len());
            assert_eq!(unpacked(&packed, coding, LIMIT * 4).await, Err(413), "{coding:?}");
            // If other bodies use the memory, it is refused before it allocates.
            assert_eq!(unpacked(&packed, coding, LIMIT / 2).await, Err(429), "{coding:?}");
        }
        let nothing = gzip(b"").await;
        let members = nothing.repeat(LIMIT as usize / nothing.len() + 1);
        assert_eq!(unpacked(&members, Coding::Gzip, LIMIT).await, Err(413), "much of nothing");
    }

    #[tokio::test]
    async fn no_more_is_held_than_there_was_room_for() {
        let mut asked = 0;
        let permit = |bytes| {
            asked = bytes;
            Ok(())
        };
        let ended = fill(tokio::io::repeat(b'x'), LIMIT, permit).await;
        assert!(matches!(ended, Err(Unfilled::TooLarge)), "{ended:?}");
        assert_eq!(asked, LIMIT + 1);
    }

    #[test]
    fn codings_are_named_by_their_header() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_ENCODING, HeaderValue::from_str(value).unwrap());
            }
            coding(&headers).map_err(|problem| format!("{problem:?}"))
        };
        for none in [&[][..], &["identity"], &[""], &["Identity, identity"]] {
            assert_eq!(of(none), Ok(None), "{none:?}");
        }
        for gzip in [&["gzip"][..], &["GZIP"], &["x-gzip"], &["identity", "gzip"], &[" gzip ,"]] {
            assert_eq!(of(gzip), Ok(Some(Coding::Gzip)), "{gzip:?}");
        }
        assert_eq!(of(&["zstd"]), Ok(Some(Coding::Zstd)));
        for wrong in [&["br"][..], &["deflate"], &["gzip, gzip"], &["gzip", "zstd"], &["compress"], &["gzip;q=1"]] {
            let refused = of(wrong).unwrap_err();
            assert!(refused.contains("Content-Encoding") && refused.contains("accept-encoding"), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_never_more_than_refused(garbage in proptest::collection::vec(any::<u8>(), 0..300), head in 0_usize..3) {
            let heads = [&b""[..], b"\x1f\x8b\x08\0\0\0\0\0\0\xff", b"\x28\xb5\x2f\xfd"];
            let packed = [heads[head], &garbage[..]].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for coding in [Coding::Gzip, Coding::Zstd] {
                let unpacked = runtime.block_on(unpacked(&packed, coding, LIMIT * 4));
                prop_assert!(matches!(unpacked, Ok(_) | Err(400)), "{:?}", unpacked);
            }
        }
    }
}
