//! Reads a part back, decompresses it, and compares it with its manifest.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use zstd::stream::raw::{Decoder, Operation};

use crate::content::{RunningContent, SLICE_BYTES, Sum, Yielder};
use crate::target::Target;
use crate::{ArchiveError, Manifest, Result};

/// A read in progress. It holds one chunk of the object and one of the rows.
pub(crate) struct Readback {
    target: Arc<Target>,
    manifest: Manifest,
    object: Path,
    stored: BoxStream<'static, object_store::Result<Bytes>>,
    /// Bytes that were read but not yet decompressed.
    packed: Bytes,
    sum: Sum,
    decoder: Decoder<'static>,
    /// The decoder can produce more output without more input.
    more: bool,
    /// The last frame is incomplete.
    in_frame: bool,
    room: Box<[u8]>,
    tally: RunningContent,
    yielder: Yielder,
}

impl Readback {
    pub(crate) async fn begin(target: Arc<Target>, manifest: Manifest) -> Result<Self> {
        let object = Path::parse(&manifest.object).map_err(|error| ArchiveError::Name(error.to_string()))?;
        let get = target.step("read", &object, async {
            match target.store().get(&object).await {
                Ok(found) => Ok(Some(found)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        });
        let found = get.await?.ok_or_else(|| target.damaged(&object, "it does not exist"))?;
        Ok(Self {
            stored: found.into_stream(),
            packed: Bytes::new(),
            sum: Sum::default(),
            decoder: Decoder::new().map_err(ArchiveError::Compression)?,
            more: false,
            in_frame: false,
            room: vec![0; SLICE_BYTES].into_boxed_slice(),
            tally: RunningContent::default(),
            yielder: Yielder::default(),
            target,
            manifest,
            object,
        })
    }

    /// Returns the next chunk of rows, or `None` at the end, when the whole part matched its manifest.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.more || self.packed.has_remaining() {
                let rows = self.unpack()?;
                if !rows.is_empty() {
                    self.yielder.after(rows.len()).await;
                    return Ok(Some(rows));
                }
                continue;
            }
            let Some(read) = self.stored.next().await else {
                return self.compare().map(|()| None);
            };
            self.packed = read.map_err(|error| self.target.failed("read", &self.object, &error))?;
            self.sum.add(&self.packed);
            if self.sum.bytes() > self.manifest.bytes {
                return Err(self.damaged(format!("it is longer than its {} bytes", self.manifest.bytes)));
            }
        }
    }

    fn unpack(&mut self) -> Result<Bytes> {
        let done = self
            .decoder
            .run_on_buffers(&self.packed, &mut self.room)
            .map_err(|error| self.damaged(format!("it cannot be decompressed: {error}")))?;
        self.packed.advance(done.bytes_read);
        self.in_frame = done.remaining != 0;
        self.more = self.in_frame && done.bytes_written == self.room.len();
        let rows = self.room.get(..done.bytes_written).unwrap_or_default();
        self.tally.add(rows);
        if self.tally.bytes() > self.manifest.plain_bytes {
            return Err(self.damaged(format!("it contains more than {} bytes of rows", self.manifest.plain_bytes)));
        }
        Ok(Bytes::copy_from_slice(rows))
    }

    fn compare(&mut self) -> Result<()> {
        let (bytes, sha256) = std::mem::take(&mut self.sum).finish();
        let manifest = &self.manifest;
        if bytes != manifest.bytes {
            return Err(self.damaged(format!("it has {bytes} bytes instead of {}", manifest.bytes)));
        }
        if sha256 != manifest.sha256 {
            return Err(self.damaged(format!("its SHA-256 is {sha256} instead of {}", manifest.sha256)));
        }
        if self.in_frame {
            return Err(self.damaged("it is truncated"));
        }
        let found = std::mem::take(&mut self.tally).finish().map_err(|_| self.damaged("its last row is truncated"))?;
        if found != self.manifest.content() {
            return Err(self.damaged(format!(
                "it decompresses to {} rows of {} bytes with SHA-256 {} instead of {} rows of {} bytes with SHA-256 {}",
                found.rows,
                found.plain_bytes,
                found.plain_sha256,
                self.manifest.rows,
                self.manifest.plain_bytes,
                self.manifest.plain_sha256
            )));
        }
        Ok(())
    }

    fn damaged(&self, problem: impl Into<String>) -> ArchiveError {
        self.target.damaged(&self.object, problem)
    }
}
