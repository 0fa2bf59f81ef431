//! The operations on an archive.

use std::fmt;
use std::io::Write;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{NaiveDate, SubsecRound, Utc};
use futures::{Stream, StreamExt, stream};
use object_store::path::Path;
use zstd::stream::write::Encoder;

use crate::content::{Content, RunningContent, SLICE_BYTES, Yielder};
use crate::manifest::{COMPRESSION, FORMAT, MANIFEST_BYTES, Unreadable};
use crate::name::{self, Name};
use crate::readback::Readback;
use crate::target::Target;
use crate::upload::Upload;
use crate::{ArchiveError, BoxError, Manifest, Result};

/// The default level of zstd. Higher levels cost much more time than they save space on JSON.
const LEVEL: i32 = 3;
/// Folder for probes, apart from the folders of the kinds.
const PROBES: &str = ".probes";

/// A directory or bucket that holds archived days. Cheap to clone.
#[derive(Clone)]
pub struct Archive {
    target: Arc<Target>,
}

/// The rows of a part.
#[derive(Debug, Clone, Copy)]
pub struct Day<'a> {
    /// The record kind, which is the name of a folder in the archive.
    pub kind: &'a str,
    /// The day of the partition (UTC).
    pub day: NaiveDate,
    /// The table that holds the rows. A restore reads it from the manifest.
    pub table: &'a str,
}

impl Archive {
    /// Opens the archive at `location`: a path, `file:///path`, or `s3://bucket/prefix`. A missing directory is
    /// created. A bucket is configured by the usual variables of the environment (`AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL` and so on; without keys by the IAM role of this
    /// machine). No request is sent yet.
    ///
    /// # Errors
    /// [`ArchiveError::Location`] if `location` is malformed, [`ArchiveError::Folder`] if the directory cannot be
    /// created, and [`ArchiveError::Variables`] if the variables are invalid or contradict each other.
    pub fn open(location: &str) -> Result<Self> {
        let variables = std::env::vars_os();
        let text = variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::open_with(location, text)
    }

    /// Like [`Archive::open`], with the given variables in place of the environment.
    ///
    /// # Errors
    /// See [`Archive::open`].
    pub fn open_with(location: &str, variables: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let ours = variables.into_iter().filter(|(name, _)| name.starts_with("AWS_"));
        Ok(Self { target: Arc::new(Target::open(location, ours)?) })
    }

    /// Returns the location for messages, without credentials.
    pub fn location(&self) -> &str {
        self.target.location()
    }

    /// Writes a small object, then reads, lists and deletes it. Call it before a long operation, to make sure that
    /// the archive is reachable and its permissions suffice.
    ///
    /// # Errors
    /// [`ArchiveError::Store`] or [`ArchiveError::Damaged`] if one of these steps fails. Each step times out after
    /// 30 s.
    pub async fn check(&self) -> Result<()> {
        let text = format!("{:x}-{:x}", std::process::id(), Utc::now().timestamp_micros());
        let probes = Path::from(PROBES);
        let probe = probes.clone().join(text.as_str());
        self.target.put_new(&probe, text.clone().into_bytes()).await?;
        let read = self.target.get(&probe, MANIFEST_BYTES).await;
        let listed = self.target.list(&probes).await;
        // Deleted even if one of the other steps failed.
        self.target.remove(&probe).await?;
        let (read, listed) = (read?, listed?.iter().any(|object| object.location == probe));
        if read.as_deref() != Some(text.as_bytes()) {
            return Err(self.target.damaged(&probe, "it differs from what was just written"));
        }
        if !listed {
            return Err(self.target.damaged(&probe, "it was just written but is not listed"));
        }
        Ok(())
    }

    /// Returns the manifests of the archived parts of a day, by part number. Lists the objects of the month and
    /// reads the manifests, but not the rows.
    ///
    /// # Errors
    /// [`ArchiveError::Store`] if the archive cannot be reached, [`ArchiveError::Manifest`] or
    /// [`ArchiveError::Newer`] if a manifest cannot be read.
    pub async fn parts(&self, kind: &str, day: NaiveDate) -> Result<Vec<Manifest>> {
        let objects = self.target.list(&name::month(kind, day)?).await?;
        let mut numbers: Vec<_> = objects.iter().filter_map(|object| name::part(day, &object.location)).collect();
        numbers.sort_unstable();
        let mut parts = Vec::with_capacity(numbers.len());
        for part in numbers {
            parts.push(self.manifest(&Name::of(kind, day, part)?).await?);
        }
        Ok(parts)
    }

    /// Writes `rows` (NDJSON, in chunks of any length) as one part of a day, reads the file back to verify it, and
    /// then writes its manifest. Overwrites a file of an earlier attempt that has no manifest. Uses about 25 MiB of
    /// memory.
    ///
    /// The caller must make sure that only one process writes a day at a time.
    ///
    /// # Errors
    /// [`ArchiveError::Exists`] if the part exists, [`ArchiveError::Rows`] or [`ArchiveError::Unfinished`] if
    /// `rows` fails or ends within a line, and others if the archive fails or stores something else. The part does
    /// not exist after an error, nor after this future is dropped. The one exception is a lost response to the
    /// write of the manifest: use [`Archive::parts`] to find out.
    pub async fn write<E: Into<BoxError>>(
        &self,
        day: Day<'_>,
        part: u32,
        rows: impl Stream<Item = std::result::Result<Bytes, E>> + Send,
    ) -> Result<Manifest> {
        let name = Name::of(day.kind, day.day, part)?;
        if self.target.exists(&name.manifest).await? {
            return Err(self.exists(&name));
        }
        self.target.sweep(&name.rows).await;
        let mut upload = Upload::begin(&self.target, &name.rows).await?;
        let content = match pack(rows, &mut upload).await {
            Ok(content) => content,
            Err(error) => {
                upload.abandon().await;
                return Err(error);
            }
        };
        let (bytes, sha256) = upload.finish().await?;
        let manifest = Manifest {
            version: Manifest::current(),
            kind: day.kind.to_owned(),
            day: day.day,
            part,
            table: day.table.to_owned(),
            object: name.rows.to_string(),
            format: FORMAT.to_owned(),
            compression: COMPRESSION.to_owned(),
            rows: content.rows,
            bytes,
            plain_bytes: content.plain_bytes,
            sha256,
            plain_sha256: content.plain_sha256,
            written_at: Utc::now().trunc_subsecs(0),
        };
        if let Err(error) = self.verify(&manifest).await {
            // Without a manifest the file is not a part anyway.
            let _ = self.target.remove(&name.rows).await;
            return Err(error);
        }
        self.publish(&name, &manifest).await?;
        Ok(manifest)
    }

    /// Reads a part and compares it with its manifest.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`] if it differs, and others if it cannot be read.
    pub async fn verify(&self, manifest: &Manifest) -> Result<()> {
        let mut readback = Readback::begin(Arc::clone(&self.target), manifest.clone()).await?;
        while readback.next().await?.is_some() {}
        Ok(())
    }

    /// Returns the rows of a part as NDJSON, in chunks of any length. Damage may only be found at the end, as a
    /// final error. Do not rely on the rows before the stream has ended without one.
    pub fn read(&self, manifest: &Manifest) -> impl Stream<Item = Result<Bytes>> + Send + use<> {
        let (target, manifest) = (Arc::clone(&self.target), manifest.clone());
        let begin = stream::once(Readback::begin(target, manifest));
        begin.flat_map(|begun| match begun {
            Ok(readback) => stream::try_unfold(readback, async |mut readback| {
                Ok(readback.next().await?.map(|rows| (rows, readback)))
            })
            .boxed(),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        })
    }

    /// Writes the manifest, which completes the part, and reads it back.
    async fn publish(&self, name: &Name, manifest: &Manifest) -> Result<()> {
        let json = manifest.to_json().map_err(|error| self.unreadable(name, error.to_string()))?;
        self.target.put_new(&name.manifest, json).await?;
        if self.manifest(name).await? != *manifest {
            return Err(self.exists(name));
        }
        Ok(())
    }

    async fn manifest(&self, name: &Name) -> Result<Manifest> {
        let json = self.target.get(&name.manifest, MANIFEST_BYTES).await?;
        let json = json.ok_or_else(|| self.unreadable(name, "it is too large for a manifest".to_owned()))?;
        let manifest = Manifest::of_json(&json).map_err(|problem| match problem {
            Unreadable::Wrong(problem) => self.unreadable(name, problem),
            Unreadable::Newer { version, newest } => {
                let (object, location) = (name.manifest.to_string(), self.location().to_owned());
                ArchiveError::Newer { object, location, version, newest }
            }
        })?;
        if manifest.object != name.rows.as_ref() {
            return Err(self.unreadable(name, format!("it describes {} instead of {}", manifest.object, name.rows)));
        }
        Ok(manifest)
    }

    fn exists(&self, name: &Name) -> ArchiveError {
        ArchiveError::Exists { object: name.manifest.to_string(), location: self.location().to_owned() }
    }

    fn unreadable(&self, name: &Name, problem: String) -> ArchiveError {
        ArchiveError::Manifest { object: name.manifest.to_string(), location: self.location().to_owned(), problem }
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Archive").field("location", &self.location()).finish_non_exhaustive()
    }
}

/// Compresses `rows` into `upload`.
async fn pack<E: Into<BoxError>>(
    rows: impl Stream<Item = std::result::Result<Bytes, E>> + Send,
    upload: &mut Upload,
) -> Result<Content> {
    let mut rows = pin!(rows);
    let (mut tally, mut yielder) = (RunningContent::default(), Yielder::default());
    let mut encoder = Encoder::new(Vec::new(), LEVEL).map_err(ArchiveError::Compression)?;
    // Lets `zstd --test` detect damage without the manifest.
    encoder.include_checksum(true).map_err(ArchiveError::Compression)?;
    while let Some(piece) = rows.next().await {
        let piece = piece.map_err(|error| ArchiveError::Rows(error.into()))?;
        for slice in piece.chunks(SLICE_BYTES) {
            tally.add(slice);
            encoder.write_all(slice).map_err(ArchiveError::Compression)?;
            upload.push(encoder.get_mut()).await?;
            yielder.after(slice.len()).await;
        }
    }
    let content = tally.finish()?;
    let mut rest = encoder.finish().map_err(ArchiveError::Compression)?;
    upload.push(&mut rest).await?;
    Ok(content)
}
