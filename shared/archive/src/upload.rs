//! The upload of one object, which becomes visible only when it is complete.

use std::sync::Arc;

use bytes::BytesMut;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt};
use tokio::task::JoinSet;

use crate::Result;
use crate::content::Sum;
use crate::target::Target;

/// Size of an upload part. S3 requires 5 MiB or more for all but the last, and allows 10,000 of them, so an object
/// can have 78 GiB after compression. Some servers require equal sizes for all but the last, which holds here.
const PART_BYTES: usize = 8 * 1024 * 1024;
/// Number of parts sent at the same time. Two keep the connection busy between parts. A third one is filled
/// meanwhile, so an upload uses 24 MiB.
const PARTS_IN_FLIGHT: usize = 2;

/// An upload in progress. Dropping it aborts it.
pub(crate) struct Upload {
    target: Arc<Target>,
    object: Path,
    /// `None` after the end.
    begun: Option<Begun>,
    piece: BytesMut,
    sum: Sum,
}

struct Begun {
    upload: Box<dyn MultipartUpload>,
    sending: JoinSet<object_store::Result<()>>,
}

impl Upload {
    pub(crate) async fn begin(target: &Arc<Target>, object: &Path) -> Result<Self> {
        let upload = target.step("begin to write", object, target.store().put_multipart(object)).await?;
        Ok(Self {
            target: Arc::clone(target),
            object: object.clone(),
            begun: Some(Begun { upload, sending: JoinSet::new() }),
            piece: BytesMut::with_capacity(PART_BYTES),
            sum: Sum::default(),
        })
    }

    /// Adds all of `bytes`, and waits while too many parts are being sent.
    pub(crate) async fn push(&mut self, bytes: &mut Vec<u8>) -> Result<()> {
        self.sum.add(bytes);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(PART_BYTES - self.piece.len()));
            self.piece.extend_from_slice(now);
            rest = later;
            if self.piece.len() == PART_BYTES {
                self.send().await?;
            }
        }
        bytes.clear();
        Ok(())
    }

    /// Completes the upload, which makes the object visible. Returns its size in bytes and its SHA-256.
    pub(crate) async fn finish(mut self) -> Result<(u64, String)> {
        if let Err(error) = self.complete().await {
            self.abandon().await;
            return Err(error);
        }
        self.begun = None;
        Ok(std::mem::take(&mut self.sum).finish())
    }

    /// Aborts the upload and removes what was sent.
    pub(crate) async fn abandon(mut self) {
        if let Some(begun) = self.begun.take() {
            begun.abandon(&self.target, &self.object).await;
        }
    }

    async fn complete(&mut self) -> Result<()> {
        if !self.piece.is_empty() {
            self.send().await?;
        }
        self.settle(0).await?;
        let Some(begun) = &mut self.begun else { return Ok(()) };
        // Without the step's time limit: a disk may take long to sync, and the HTTP client limits the wait for a
        // bucket.
        begun.upload.complete().await.map_err(|error| self.target.failed("complete", &self.object, &error))?;
        Ok(())
    }

    async fn send(&mut self) -> Result<()> {
        self.settle(PARTS_IN_FLIGHT - 1).await?;
        let piece = std::mem::replace(&mut self.piece, BytesMut::with_capacity(PART_BYTES)).freeze();
        if let Some(Begun { upload, sending }) = &mut self.begun {
            sending.spawn(upload.put_part(piece.into()));
        }
        Ok(())
    }

    /// Waits until at most `at_most` parts are being sent.
    async fn settle(&mut self, at_most: usize) -> Result<()> {
        let Some(begun) = &mut self.begun else { return Ok(()) };
        while begun.sending.len() > at_most {
            let sent = begun.sending.join_next().await;
            // A task that panicked or was cancelled did not send its part.
            let sent = sent.map_or(Ok(()), |sent| sent.unwrap_or_else(|error| Err(error.into())));
            sent.map_err(|error| self.target.failed("write", &self.object, &error))?;
        }
        Ok(())
    }
}

impl Begun {
    async fn abandon(mut self, target: &Target, object: &Path) {
        // A part stored after the abort would stay for ever, and a server that has received it continues even if
        // nobody waits. So running transfers are awaited first, up to the time limit.
        let ended = async {
            while self.sending.join_next().await.is_some() {}
            Ok(())
        };
        if target.step("finish the parts of", object, ended).await.is_err() {
            self.sending.shutdown().await;
        }
        // Leftovers are not visible in a listing, and the failure that led here is the one to report.
        let _ = target.step("abandon", object, self.upload.abort()).await;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(begun) = self.begun.take() else { return };
        // Without a runtime nothing can be sent. The lifecycle rule for incomplete uploads cleans up.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (target, object) = (Arc::clone(&self.target), self.object.clone());
        runtime.spawn(async move { begun.abandon(&target, &object).await });
    }
}
