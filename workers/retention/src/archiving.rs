//! Archives a day: writes it, reads it back and verifies it, unless the archive has it already.

use archive::{Archive, Manifest};
use store::PgConnection;
use store::partition_removal::{self, DayPartition};

/// Writes a day to the archive as a new part, unless an existing part has exactly the same content, and returns the
/// verified part. A day may be archived again because late records arrived, a hold was released, or it was restored.
///
/// # Errors
/// A text for people if the archive or the table cannot be read, or a part cannot be written or verified.
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
