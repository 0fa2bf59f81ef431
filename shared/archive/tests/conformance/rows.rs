//! Rows to archive.

use std::io;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};

/// Chunk lengths unrelated to lines, slices and upload parts.
const ODD: [usize; 5] = [1, 7, 4_099, 70_001, 300_007];

/// The alphabet of the noise: six bits per byte, so that three quarters remain after compression.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Returns at least `bytes` bytes of NDJSON, the same on every call.
pub(crate) fn ndjson(bytes: usize) -> Bytes {
    let mut text = Vec::with_capacity(bytes + 512);
    let mut state: u64 = 4711;
    while text.len() < bytes {
        text.extend(b"{\"noise\":\"");
        for _ in 0..40 {
            // Knuth's generator. Its upper bits are random enough.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.extend([58, 52, 46, 40, 34].map(|shift| LETTERS[(state >> shift) as usize % 64]));
        }
        text.extend(b"\"}\n");
    }
    text.into()
}

/// Returns `text` in chunks of odd lengths.
pub(crate) fn pieces(text: &Bytes) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    let (mut rest, mut lengths) = (text.clone(), ODD.iter().cycle());
    stream::iter(std::iter::from_fn(move || {
        let length = (*lengths.next()?).min(rest.len());
        (length > 0).then(|| Ok(rest.split_to(length)))
    }))
}

/// Returns `text`, followed by an error.
pub(crate) fn failing(text: &Bytes) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    pieces(text).chain(stream::iter([Err(io::Error::other("the connection was cut"))]))
}
