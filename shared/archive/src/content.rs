//! The row count, size and hash of a stream of rows.

use std::fmt::Write;
use std::pin::pin;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use sha2::{Digest, Sha256};

use crate::{ArchiveError, BoxError, Result};

/// Number of bytes hashed and compressed before yielding. It takes about a millisecond, which is short enough to
/// run on the async runtime.
pub(crate) const SLICE_BYTES: usize = 256 * 1024;

/// The row count, size and hash of a set of rows. Two days with the same content are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Number of lines.
    pub rows: u64,
    /// Size in bytes before compression.
    pub plain_bytes: u64,
    /// SHA-256 of the uncompressed bytes, in hexadecimal.
    pub plain_sha256: String,
}

/// Counts and hashes rows without writing them, to find out whether they are archived already.
///
/// # Errors
/// [`ArchiveError::Rows`](crate::ArchiveError::Rows) if `rows` fails,
/// [`ArchiveError::Unfinished`](crate::ArchiveError::Unfinished) if it ends within a line.
pub async fn content_of<E: Into<BoxError>>(rows: impl Stream<Item = std::result::Result<Bytes, E>>) -> Result<Content> {
    let mut rows = pin!(rows);
    let (mut tally, mut yielder) = (RunningContent::default(), Yielder::default());
    while let Some(piece) = rows.next().await {
        let piece = piece.map_err(|error| ArchiveError::Rows(error.into()))?;
        for slice in piece.chunks(SLICE_BYTES) {
            tally.add(slice);
            yielder.after(slice.len()).await;
        }
    }
    tally.finish()
}

/// Computes a [`Content`] incrementally.
#[derive(Debug, Default)]
pub(crate) struct RunningContent {
    rows: u64,
    sum: Sum,
    in_line: bool,
}

impl RunningContent {
    pub(crate) fn add(&mut self, piece: &[u8]) {
        let Some(last) = piece.last() else { return };
        self.in_line = *last != b'\n';
        self.rows += memchr::memchr_iter(b'\n', piece).count() as u64;
        self.sum.add(piece);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.sum.bytes()
    }

    pub(crate) fn finish(self) -> Result<Content> {
        if self.in_line {
            return Err(ArchiveError::Unfinished);
        }
        let (plain_bytes, plain_sha256) = self.sum.finish();
        Ok(Content { rows: self.rows, plain_bytes, plain_sha256 })
    }
}

/// Computes the size and the SHA-256 of bytes incrementally.
#[derive(Debug, Default)]
pub(crate) struct Sum {
    bytes: u64,
    hash: Sha256,
}

impl Sum {
    pub(crate) fn add(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.hash.update(piece);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn finish(self) -> (u64, String) {
        let mut text = String::with_capacity(64);
        for byte in self.hash.finalize() {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        (self.bytes, text)
    }
}

/// Yields to other tasks now and then. Otherwise rows that are available at once would be processed without a
/// pause.
#[derive(Debug, Default)]
pub(crate) struct Yielder {
    worked: usize,
}

impl Yielder {
    /// Call it after each step with the number of bytes processed.
    pub(crate) async fn after(&mut self, bytes: usize) {
        self.worked += bytes;
        if self.worked >= SLICE_BYTES {
            self.worked = 0;
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;

    use super::*;

    async fn of(pieces: &[&'static str]) -> Result<Content> {
        content_of(stream::iter(pieces.iter().map(|piece| Ok::<_, Infallible>(Bytes::from_static(piece.as_bytes())))))
            .await
    }

    #[tokio::test]
    async fn content_does_not_depend_on_the_pieces() {
        let whole = of(&["{\"a\":1}\n{\"b\":2}\n"]).await.unwrap();
        assert_eq!((whole.rows, whole.plain_bytes), (2, 16));
        assert_eq!(whole.plain_sha256, "3881dc2ee848fe04d776737c86afbc783e482e7c5be6431d3aab36fa8fa2c928");
        assert_eq!(of(&["", "{\"a\":1}", "\n{\"b\"", ":2}\n", ""]).await.unwrap(), whole);
        assert_ne!(of(&["{\"a\":1}\n{\"b\":3}\n"]).await.unwrap(), whole);
        assert_eq!(of(&[]).await.unwrap().rows, 0);
    }

    #[tokio::test]
    async fn half_a_line_is_no_content() {
        assert!(matches!(of(&["{}\n", "{"]).await, Err(ArchiveError::Unfinished)));
    }
}
