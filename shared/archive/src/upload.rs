//! One object on its way, of which nothing is to be seen until it is whole.

use std::sync::Arc;

use bytes::BytesMut;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt};
use tokio::task::JoinSet;

use crate::Result;
use crate::content::Sum;
use crate::place::Place;

/// Of one piece. S3 takes none below 5 MiB but the last, and no more than 10,000: so a part of a day may have 78 GiB
/// after compression. Some servers want all pieces but the last equally long, and these are.
const PIECE_BYTES: usize = 8 * 1024 * 1024;
/// Pieces that are sent at the same time: one more than one, so that the line is not idle between two. While both are
/// sent a third is filled, so an upload holds 24 MiB.
const PIECES_IN_FLIGHT: usize = 2;

/// An upload that was begun. Dropping it abandons it, wherever it stands.
pub(crate) struct Upload {
    place: Arc<Place>,
    object: Path,
    /// `None` once it is over.
    begun: Option<Begun>,
    piece: BytesMut,
    sum: Sum,
}

struct Begun {
    upload: Box<dyn MultipartUpload>,
    sending: JoinSet<object_store::Result<()>>,
}

impl Upload {
    pub(crate) async fn begin(place: &Arc<Place>, object: &Path) -> Result<Self> {
        let upload = place.step("begin to write", object, place.store().put_multipart(object)).await?;
        Ok(Self {
            place: Arc::clone(place),
            object: object.clone(),
            begun: Some(Begun { upload, sending: JoinSet::new() }),
            piece: BytesMut::with_capacity(PIECE_BYTES),
            sum: Sum::default(),
        })
    }

    /// Takes all of `bytes`, and waits while too much is on its way already.
    pub(crate) async fn push(&mut self, bytes: &mut Vec<u8>) -> Result<()> {
        self.sum.add(bytes);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(PIECE_BYTES - self.piece.len()));
            self.piece.extend_from_slice(now);
            rest = later;
            if self.piece.len() == PIECE_BYTES {
                self.send().await?;
            }
        }
        bytes.clear();
        Ok(())
    }

    /// Makes the object visible; its bytes, and their SHA-256.
    pub(crate) async fn finish(mut self) -> Result<(u64, String)> {
        if let Err(error) = self.complete().await {
            self.abandon().await;
            return Err(error);
        }
        self.begun = None;
        Ok(std::mem::take(&mut self.sum).finish())
    }

    /// Removes what was sent.
    pub(crate) async fn abandon(mut self) {
        if let Some(begun) = self.begun.take() {
            begun.abandon(&self.place, &self.object).await;
        }
    }

    async fn complete(&mut self) -> Result<()> {
        if !self.piece.is_empty() {
            self.send().await?;
        }
        self.settle(0).await?;
        let Some(begun) = &mut self.begun else { return Ok(()) };
        // Not within a step's bound: a folder's disk is waited for, and the client bounds a bucket's silence.
        begun.upload.complete().await.map_err(|error| self.place.failed("complete", &self.object, &error))?;
        Ok(())
    }

    async fn send(&mut self) -> Result<()> {
        self.settle(PIECES_IN_FLIGHT - 1).await?;
        let piece = std::mem::replace(&mut self.piece, BytesMut::with_capacity(PIECE_BYTES)).freeze();
        if let Some(Begun { upload, sending }) = &mut self.begun {
            sending.spawn(upload.put_part(piece.into()));
        }
        Ok(())
    }

    /// Waits until no more than `at_most` pieces are being sent.
    async fn settle(&mut self, at_most: usize) -> Result<()> {
        let Some(begun) = &mut self.begun else { return Ok(()) };
        while begun.sending.len() > at_most {
            let sent = begun.sending.join_next().await;
            // A task that panicked or was cancelled has not sent its piece.
            let sent = sent.map_or(Ok(()), |sent| sent.unwrap_or_else(|error| Err(error.into())));
            sent.map_err(|error| self.place.failed("write", &self.object, &error))?;
        }
        Ok(())
    }
}

impl Begun {
    async fn abandon(mut self, place: &Place, object: &Path) {
        // A piece that is stored after the end would stay for ever, and a server that has it goes on whether somebody
        // waits for its answer or not. So pieces under way end first, or within a bound are not waited for any more.
        let ended = async {
            while self.sending.join_next().await.is_some() {}
            Ok(())
        };
        if place.step("end the pieces of", object, ended).await.is_err() {
            self.sending.shutdown().await;
        }
        // What is left over is in no listing, and the failure that led here is the one to speak of.
        let _ = place.step("abandon", object, self.upload.abort()).await;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(begun) = self.begun.take() else { return };
        // Without a runtime nothing can be sent any more; a bucket's rules for what is never completed remain.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (place, object) = (Arc::clone(&self.place), self.object.clone());
        runtime.spawn(async move { begun.abandon(&place, &object).await });
    }
}
