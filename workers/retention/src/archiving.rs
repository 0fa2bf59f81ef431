//! A day on its way into the archive: written, read back and verified, or found there already.

use archive::{Archive, Manifest};
use store::PgConnection;
use store::partition_removal::{self, DayPartition};

/// Writes a day to the archive, unless one of its parts is exactly what the day holds: a day may come here again,
/// because late records came for it, a hold was released, or it was restored.
///
/// # Errors
/// What failed, in words.
pub(crate) async fn write(
    connection: &mut PgConnection,
    archive: &Archive,
    day: &DayPartition,
) -> Result<Manifest, String> {
    let key = archive::Day { kind: day.dataset.name(), day: day.first_day(), table: day.dataset.table() };
    let words = |error: archive::ArchiveError| error.to_string();
    let parts = archive.parts(key.kind, key.day).await.map_err(words)?;
    if !parts.is_empty() {
        let content = archive::content_of(partition_removal::as_json(connection, day)).await.map_err(words)?;
        let same = parts.iter().find(|part| part.plain_sha256 == content.plain_sha256 && part.rows == content.rows);
        if let Some(part) = same {
            archive.verify(part).await.map_err(words)?;
            return Ok(part.clone());
        }
    }
    let next = parts.iter().map(|part| part.part).max().unwrap_or(0) + 1;
    archive.write(key, next, partition_removal::as_json(connection, day)).await.map_err(words)
}
