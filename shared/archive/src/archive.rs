//! What can be done with an archive.

use std::fmt;
use std::io::Write;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{NaiveDate, SubsecRound, Utc};
use futures::{Stream, StreamExt, stream};
use object_store::path::Path;
use zstd::stream::write::Encoder;

use crate::content::{Content, Pace, SLICE_BYTES, Tally};
use crate::manifest::{COMPRESSION, FORMAT, MANIFEST_BYTES, Unreadable};
use crate::name::{self, Name};
use crate::place::Place;
use crate::readback::Readback;
use crate::upload::Upload;
use crate::{ArchiveError, BoxError, Manifest, Result};

/// zstd's own default: higher ones cost much more time than they save space on JSON.
const LEVEL: i32 = 3;
/// Where probes are written, out of the way of every kind.
const PROBES: &str = ".probes";

/// A folder or bucket that days are kept in. Cheap to clone.
#[derive(Clone)]
pub struct Archive {
    place: Arc<Place>,
}

/// Which rows a part is made of.
#[derive(Debug, Clone, Copy)]
pub struct Day<'a> {
    /// The records' kind, which is a folder of the archive.
    pub kind: &'a str,
    /// The day of the partition.
    pub day: NaiveDate,
    /// The table that they are in, for whoever brings them back.
    pub table: &'a str,
}

impl Archive {
    /// Opens the archive at `location`: a path, `file:///path`, or `s3://bucket/prefix`. A folder is made where there is
    /// none. A bucket is reached as the usual variables say (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
    /// `AWS_REGION`, `AWS_ENDPOINT_URL` and the like; without keys by the role of this machine), and is not asked yet.
    ///
    /// # Errors
    /// Where it is no location, the folder cannot be made, or the variables contradict each other.
    pub fn open(location: &str) -> Result<Self> {
        let variables = std::env::vars_os();
        let text = variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::open_with(location, text)
    }

    /// As [`Archive::open`], with these variables and no others.
    ///
    /// # Errors
    /// As [`Archive::open`].
    pub fn open_with(location: &str, variables: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let ours = variables.into_iter().filter(|(name, _)| name.starts_with("AWS_"));
        Ok(Self { place: Arc::new(Place::open(location, ours)?) })
    }

    /// Where it is, for people.
    pub fn location(&self) -> &str {
        self.place.location()
    }

    /// Writes a small object, finds, reads and removes it: whoever is about to begin something long knows that the
    /// archive is there and lets us do what we have to.
    ///
    /// # Errors
    /// Where one of these does not work. Each has half a minute, and one on which nobody answers is the last.
    pub async fn check(&self) -> Result<()> {
        let text = format!("{:x}-{:x}", std::process::id(), Utc::now().timestamp_micros());
        let probes = Path::from(PROBES);
        let probe = probes.clone().join(text.as_str());
        self.place.put_new(&probe, text.clone().into_bytes()).await?;
        let read = self.place.get(&probe, MANIFEST_BYTES).await;
        let listed = self.place.list(&probes).await;
        // It goes, whatever became of the rest.
        self.place.remove(&probe).await?;
        let (read, listed) = (read?, listed?.iter().any(|object| object.location == probe));
        if read.as_deref() != Some(text.as_bytes()) {
            return Err(self.place.damaged(&probe, "it is not what was just written"));
        }
        if !listed {
            return Err(self.place.damaged(&probe, "it was just written and is in no listing"));
        }
        Ok(())
    }

    /// What is archived of a day, in order of part number. Looks at the names of its month and reads the manifests;
    /// the files of rows are not touched.
    ///
    /// # Errors
    /// Where the archive cannot be reached, or a manifest cannot be read.
    pub async fn parts(&self, kind: &str, day: NaiveDate) -> Result<Vec<Manifest>> {
        let objects = self.place.list(&name::month(kind, day)?).await?;
        let mut numbers: Vec<_> = objects.iter().filter_map(|object| name::part(day, &object.location)).collect();
        numbers.sort_unstable();
        let mut parts = Vec::with_capacity(numbers.len());
        for part in numbers {
            parts.push(self.manifest(&Name::of(kind, day, part)?).await?);
        }
        Ok(parts)
    }

    /// Writes `rows` (NDJSON, in pieces of any length) as one part of a day, reads it back, and only then says that it
    /// is there. What an earlier try left without a manifest is written over. Holds some 25 MiB.
    ///
    /// One at a time writes a day; the caller sees to it.
    ///
    /// # Errors
    /// Where `rows` fails or ends within a line, the archive fails or stores something else, or there is such a part
    /// already. There is no part then, nor where this is dropped; only an answer that was lost while the manifest was
    /// written leaves it open, and [`Archive::parts`] knows.
    pub async fn write<E: Into<BoxError>>(
        &self,
        day: Day<'_>,
        part: u32,
        rows: impl Stream<Item = std::result::Result<Bytes, E>> + Send,
    ) -> Result<Manifest> {
        let name = Name::of(day.kind, day.day, part)?;
        if self.place.exists(&name.manifest).await? {
            return Err(self.exists(&name));
        }
        self.place.sweep(&name.rows).await;
        let mut upload = Upload::begin(&self.place, &name.rows).await?;
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
            // Without a manifest it is no part in any case.
            let _ = self.place.remove(&name.rows).await;
            return Err(error);
        }
        self.publish(&name, &manifest).await?;
        Ok(manifest)
    }

    /// Reads a part and compares everything with its manifest.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`] where it differs, and others where it cannot be read.
    pub async fn verify(&self, manifest: &Manifest) -> Result<()> {
        let mut readback = Readback::begin(Arc::clone(&self.place), manifest.clone()).await?;
        while readback.next().await?.is_some() {}
        Ok(())
    }

    /// The rows of a part, as NDJSON in pieces that end anywhere. Damage may be known only at the end, as an error in
    /// place of the end: so nothing is to be relied on before it.
    pub fn read(&self, manifest: &Manifest) -> impl Stream<Item = Result<Bytes>> + Send + use<> {
        let (place, manifest) = (Arc::clone(&self.place), manifest.clone());
        let begin = stream::once(Readback::begin(place, manifest));
        begin.flat_map(|begun| match begun {
            Ok(readback) => stream::try_unfold(readback, async |mut readback| {
                Ok(readback.next().await?.map(|rows| (rows, readback)))
            })
            .boxed(),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        })
    }

    /// Writes the manifest, which makes the part one, and reads it as the next one will.
    async fn publish(&self, name: &Name, manifest: &Manifest) -> Result<()> {
        let json = manifest.to_json().map_err(|error| self.unreadable(name, error.to_string()))?;
        self.place.put_new(&name.manifest, json).await?;
        if self.manifest(name).await? != *manifest {
            return Err(self.exists(name));
        }
        Ok(())
    }

    async fn manifest(&self, name: &Name) -> Result<Manifest> {
        let json = self.place.get(&name.manifest, MANIFEST_BYTES).await?;
        let json = json.ok_or_else(|| self.unreadable(name, "it is too long to be one".to_owned()))?;
        let manifest = Manifest::of_json(&json).map_err(|problem| match problem {
            Unreadable::Wrong(problem) => self.unreadable(name, problem),
            Unreadable::Newer { version, newest } => {
                let (object, location) = (name.manifest.to_string(), self.location().to_owned());
                ArchiveError::Newer { object, location, version, newest }
            }
        })?;
        if manifest.object != name.rows.as_ref() {
            return Err(self.unreadable(name, format!("it speaks of {} and not of {}", manifest.object, name.rows)));
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
    let (mut tally, mut pace) = (Tally::default(), Pace::default());
    let mut encoder = Encoder::new(Vec::new(), LEVEL).map_err(ArchiveError::Compression)?;
    // So that `zstd --test` finds damage without the manifest.
    encoder.include_checksum(true).map_err(ArchiveError::Compression)?;
    while let Some(piece) = rows.next().await {
        let piece = piece.map_err(|error| ArchiveError::Rows(error.into()))?;
        for slice in piece.chunks(SLICE_BYTES) {
            tally.add(slice);
            encoder.write_all(slice).map_err(ArchiveError::Compression)?;
            upload.push(encoder.get_mut()).await?;
            pace.after(slice.len()).await;
        }
    }
    let content = tally.finish()?;
    let mut rest = encoder.finish().map_err(ArchiveError::Compression)?;
    upload.push(&mut rest).await?;
    Ok(content)
}
