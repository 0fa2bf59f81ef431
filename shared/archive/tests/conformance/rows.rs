//! Rows to archive.

use std::io;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};

/// Lengths of pieces that have nothing to do with lines, slices or pieces of an upload.
const ODD: [usize; 5] = [1, 7, 4_099, 70_001, 300_007];

/// What noise is made of: six bits in a byte, so that three quarters are left after compression.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// `bytes` of NDJSON, and a little more, which is the same each time.
pub(crate) fn ndjson(bytes: usize) -> Bytes {
    let mut text = Vec::with_capacity(bytes + 512);
    let mut state: u64 = 4711;
    while text.len() < bytes {
        text.extend(b"{\"noise\":\"");
        for _ in 0..40 {
            // Knuth's generator: its upper bits are noise enough.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.extend([58, 52, 46, 40, 34].map(|shift| LETTERS[(state >> shift) as usize % 64]));
        }
        text.extend(b"\"}\n");
    }
    text.into()
}

/// `text` in pieces of odd lengths.
pub(crate) fn pieces(text: &Bytes) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    let (mut rest, mut lengths) = (text.clone(), ODD.iter().cycle());
    stream::iter(std::iter::from_fn(move || {
        let length = (*lengths.next()?).min(rest.len());
        (length > 0).then(|| Ok(rest.split_to(length)))
    }))
}

/// `text`, and then an error.
pub(crate) fn failing(text: &Bytes) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    pieces(text).chain(stream::iter([Err(io::Error::other("the connection was cut"))]))
}
