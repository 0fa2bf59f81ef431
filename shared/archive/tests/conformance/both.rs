//! Cases that hold for a directory and for a bucket.

use std::fs;

use archive::{ArchiveError, Content, Manifest, content_of};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};

use crate::rows::{failing, ndjson, pieces};
use crate::world::{World, day, events};

const FIRST: &str = "events/2026/08/2026-08-01.ndjson.zst";
const FIRST_MANIFEST: &str = "events/2026/08/2026-08-01.manifest.json";
const SECOND_MANIFEST: &str = "events/2026/08/2026-08-01.2.manifest.json";

/// More than is sent at the same time, after compression.
const MANY_BYTES: usize = 28 * 1024 * 1024;
/// More than one part of an upload, after compression.
const SOME_BYTES: usize = 12 * 1024 * 1024;

async fn write(world: &World, part: u32, text: &Bytes) -> Manifest {
    world.archive.write(events(), part, pieces(text)).await.unwrap()
}

async fn read(world: &World, manifest: &Manifest) -> Result<Bytes, ArchiveError> {
    let rows = world.archive.read(manifest);
    let whole = rows.try_fold(BytesMut::new(), async |mut whole, piece| {
        whole.extend_from_slice(&piece);
        Ok(whole)
    });
    whole.await.map(BytesMut::freeze)
}

/// Checks that both `verify` and `read` detect the damage.
async fn assert_damaged(world: &World, manifest: &Manifest, says: &str) {
    for found in [world.archive.verify(manifest).await, read(world, manifest).await.map(|_| ())] {
        let error = found.unwrap_err();
        assert!(matches!(error, ArchiveError::Damaged { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(says) && text.contains(FIRST) && text.contains(world.archive.location()), "{text}");
    }
}

pub(crate) async fn a_check_leaves_nothing(world: &World) {
    world.archive.check().await.unwrap();
    assert_eq!(world.objects(), Vec::<std::path::PathBuf>::new());
}

pub(crate) async fn a_day_comes_back_as_it_was(world: &World) {
    let text = ndjson(MANY_BYTES);
    // The future is `Send`, because archiving runs in a task.
    let (archive, rows) = (world.archive.clone(), pieces(&text));
    let manifest = tokio::spawn(async move { archive.write(events(), 1, rows).await }).await.unwrap().unwrap();
    let rows = text.iter().filter(|byte| **byte == b'\n').count() as u64;
    assert_eq!((manifest.rows, manifest.plain_bytes), (rows, text.len() as u64));
    assert_eq!((manifest.kind.as_str(), manifest.day, manifest.part), ("events", day(), 1));
    assert_eq!((manifest.table.as_str(), manifest.object.as_str()), ("watchbook.event_logs", FIRST));
    assert_eq!(manifest.bytes, fs::metadata(world.path(FIRST)).unwrap().len());
    assert!(manifest.bytes > 2 * 8 * 1024 * 1024, "{} bytes are too few for several parts", manifest.bytes);
    assert_eq!(world.objects(), [world.path(FIRST_MANIFEST), world.path(FIRST)]);
    assert_eq!(world.archive.parts("events", day()).await.unwrap(), std::slice::from_ref(&manifest));
    assert!(read(world, &manifest).await.unwrap() == text);
    // The file can be read with zstd alone.
    let unpacked = zstd::decode_all(fs::File::open(world.path(FIRST)).unwrap()).unwrap();
    assert!(unpacked == text);
}

pub(crate) async fn an_empty_day_is_a_day(world: &World) {
    let manifest = write(world, 1, &Bytes::new()).await;
    assert_eq!((manifest.rows, manifest.plain_bytes), (0, 0));
    world.archive.verify(&manifest).await.unwrap();
    assert_eq!(read(world, &manifest).await.unwrap(), Bytes::new());
}

pub(crate) async fn content_says_that_a_day_is_archived(world: &World) {
    let text = ndjson(300_000);
    let manifest = write(world, 1, &text).await;
    let whole = stream::iter([Ok::<_, std::convert::Infallible>(text)]);
    let found: Content = content_of(whole).await.unwrap();
    assert_eq!(found, manifest.content());
}

pub(crate) async fn rows_that_fail_midway_leave_nothing(world: &World) {
    let error = world.archive.write(events(), 1, failing(&ndjson(SOME_BYTES))).await.unwrap_err();
    let ArchiveError::Rows(source) = error else { panic!("{error:?}") };
    assert_eq!(source.to_string(), "the connection was cut");
    assert_eq!(world.objects(), Vec::<std::path::PathBuf>::new());
    assert_eq!(world.archive.parts("events", day()).await.unwrap(), []);
}

pub(crate) async fn rows_that_end_within_a_line_leave_nothing(world: &World) {
    let error = world.archive.write(events(), 1, pieces(&Bytes::from_static(b"{}\n{"))).await.unwrap_err();
    assert!(matches!(error, ArchiveError::Unfinished), "{error:?}");
    assert_eq!(world.objects(), Vec::<std::path::PathBuf>::new());
}

pub(crate) async fn a_write_that_is_dropped_leaves_nothing(world: &World) {
    let (reached, middle) = tokio::sync::oneshot::channel();
    let never = stream::once(async move {
        assert!(!world.objects().is_empty(), "nothing was sent yet");
        let _ = reached.send(());
        std::future::pending().await
    });
    let rows = pieces(&ndjson(SOME_BYTES)).chain(never);
    tokio::select! {
        done = world.archive.write(events(), 1, rows) => panic!("it ended: {done:?}"),
        middle = middle => middle.unwrap(),
    }
    // Nothing that looks like a part is ever visible.
    assert_eq!(world.archive.parts("events", day()).await.unwrap(), []);
    world.becomes_empty().await;
    // The day can be archived afterwards.
    write(world, 1, &ndjson(1000)).await;
}

pub(crate) async fn a_changed_byte_is_found(world: &World) {
    let manifest = write(world, 1, &ndjson(1_000_000)).await;
    let path = world.path(FIRST);
    let whole = fs::read(&path).unwrap();
    // Damage in the header, the middle, and the checksum at the end.
    for (place, says) in
        [(0, "cannot be decompressed"), (whole.len() / 2, ""), (whole.len() - 1, "cannot be decompressed")]
    {
        let mut changed = whole.clone();
        *changed.get_mut(place).unwrap() ^= 1;
        fs::write(&path, changed).unwrap();
        assert_damaged(world, &manifest, says).await;
    }
    fs::write(&path, whole).unwrap();
    world.archive.verify(&manifest).await.unwrap();
}

pub(crate) async fn a_truncated_file_is_found(world: &World) {
    let manifest = write(world, 1, &ndjson(1_000_000)).await;
    let whole = fs::read(world.path(FIRST)).unwrap();
    for length in [0, whole.len() / 2, whole.len() - 1] {
        fs::write(world.path(FIRST), whole.get(..length).unwrap()).unwrap();
        assert_damaged(world, &manifest, &format!("it has {length} bytes instead of {}", whole.len())).await;
    }
}

pub(crate) async fn a_file_that_grew_is_found(world: &World) {
    let manifest = write(world, 1, &ndjson(1_000_000)).await;
    let mut whole = fs::read(world.path(FIRST)).unwrap();
    whole.extend(zstd::encode_all(&b"{}\n"[..], 3).unwrap());
    fs::write(world.path(FIRST), whole).unwrap();
    assert_damaged(world, &manifest, "longer than").await;
}

pub(crate) async fn a_missing_file_is_found(world: &World) {
    let manifest = write(world, 1, &ndjson(1000)).await;
    fs::remove_file(world.path(FIRST)).unwrap();
    assert_damaged(world, &manifest, "it does not exist").await;
}

pub(crate) async fn a_wrong_manifest_is_found(world: &World) {
    let manifest = write(world, 1, &ndjson(1000)).await;
    let one_row_more = Manifest { rows: manifest.rows + 1, ..manifest.clone() };
    assert_damaged(world, &one_row_more, "it decompresses to").await;
    let fewer_bytes = Manifest { plain_bytes: manifest.plain_bytes - 1, ..manifest.clone() };
    assert_damaged(world, &fewer_bytes, "more than").await;
    let other_rows = Manifest { plain_sha256: manifest.sha256.clone(), ..manifest.clone() };
    assert_damaged(world, &other_rows, "it decompresses to").await;
    let other_file = Manifest { sha256: manifest.plain_sha256.clone(), ..manifest };
    assert_damaged(world, &other_file, "its SHA-256 is").await;
}

pub(crate) async fn a_second_part_stands_beside_the_first(world: &World) {
    // By name, part 10 would sort before part 2.
    let texts = [(10, ndjson(3000)), (2, ndjson(2000)), (1, ndjson(1000))];
    let mut written = Vec::new();
    for (part, text) in &texts {
        written.push(write(world, *part, text).await);
    }
    let next_day = archive::Day { day: day().succ_opt().unwrap(), ..events() };
    world.archive.write(next_day, 1, pieces(&ndjson(1000))).await.unwrap();
    written.reverse();
    assert_eq!(world.archive.parts("events", day()).await.unwrap(), written);
    assert_eq!(world.archive.parts("errors", day()).await.unwrap(), []);
    for (manifest, (_, text)) in written.iter().zip(texts.iter().rev()) {
        assert_eq!(read(world, manifest).await.unwrap(), text);
    }
}

pub(crate) async fn a_part_is_never_written_over(world: &World) {
    let text = ndjson(1000);
    let manifest = write(world, 1, &text).await;
    let mut asked = false;
    let other = stream::iter([Ok::<_, std::io::Error>(ndjson(2000))]).inspect(|_| asked = true);
    let error = world.archive.write(events(), 1, other).await.unwrap_err();
    assert!(matches!(error, ArchiveError::Exists { .. }), "{error:?}");
    assert!(error.to_string().contains(FIRST_MANIFEST), "{error}");
    assert!(!asked);
    assert_eq!(world.archive.parts("events", day()).await.unwrap(), std::slice::from_ref(&manifest));
    assert_eq!(read(world, &manifest).await.unwrap(), text);
}

pub(crate) async fn rows_without_a_manifest_are_no_part(world: &World) {
    let text = ndjson(1000);
    write(world, 1, &ndjson(2000)).await;
    fs::remove_file(world.path(FIRST_MANIFEST)).unwrap();
    assert_eq!(world.archive.parts("events", day()).await.unwrap(), []);
    let manifest = write(world, 1, &text).await;
    assert_eq!(world.archive.parts("events", day()).await.unwrap(), std::slice::from_ref(&manifest));
    assert_eq!(read(world, &manifest).await.unwrap(), text);
}

pub(crate) async fn a_manifest_of_a_newer_release_is_refused(world: &World) {
    write(world, 1, &ndjson(1000)).await;
    let path = world.path(FIRST_MANIFEST);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"version\": 1", "\"version\": 2")).unwrap();
    let error = world.archive.parts("events", day()).await.unwrap_err();
    assert!(matches!(error, ArchiveError::Newer { version: 2, newest: 1, .. }), "{error:?}");
    assert!(error.to_string().contains(FIRST_MANIFEST), "{error}");
}

pub(crate) async fn a_manifest_in_anothers_place_is_refused(world: &World) {
    write(world, 1, &ndjson(1000)).await;
    fs::copy(world.path(FIRST_MANIFEST), world.path(SECOND_MANIFEST)).unwrap();
    let error = world.archive.parts("events", day()).await.unwrap_err();
    assert!(matches!(error, ArchiveError::Manifest { .. }), "{error:?}");
    assert!(error.to_string().contains(SECOND_MANIFEST), "{error}");
}
