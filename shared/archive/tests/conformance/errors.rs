//! The errors that an operator sees when the archive cannot be used.

use std::fs;

use archive::{Archive, ArchiveError};
use tokio::net::TcpListener;

use crate::rows::{ndjson, pieces};
use crate::world::{KEY, SECRET, World, bucket_at, events};

/// Returns the text of a store's error, after checking that it does not contain the secret.
fn told(error: &ArchiveError) -> String {
    assert!(matches!(error, ArchiveError::Store { .. }), "{error:?}");
    let (text, debug) = (error.to_string(), format!("{error:?}"));
    assert!(!text.contains(SECRET) && !debug.contains(SECRET), "{debug}");
    assert!(!text.contains('\n') && text.len() < 900, "{text}");
    text
}

#[test]
fn a_file_in_the_way_is_no_folder() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    for folder in [file.clone(), file.join("below")] {
        let error = Archive::open(folder.to_str().unwrap()).unwrap_err();
        assert!(matches!(error, ArchiveError::Folder { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(folder.to_str().unwrap()) && text.contains("it must be a directory"), "{text}");
    }
}

#[tokio::test]
async fn a_folder_that_went_away_is_said() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("archive");
    let archive = Archive::open(&format!("file://{}", folder.display())).unwrap();
    fs::remove_dir(&folder).unwrap();
    fs::write(&folder, "").unwrap();
    let text = told(&archive.check().await.unwrap_err());
    assert!(text.contains(folder.to_str().unwrap()) && text.contains("check that the directory exists"), "{text}");
}

#[tokio::test]
async fn a_folder_in_which_a_kind_cannot_be_written_is_said() {
    let world = World::folder();
    fs::write(world.path("events"), "").unwrap();
    let text = told(&world.archive.write(events(), 1, pieces(&ndjson(1000))).await.unwrap_err());
    assert!(text.contains("events/2026/08") && text.contains(world.archive.location()), "{text}");
}

#[tokio::test]
async fn what_a_killed_process_left_beside_a_file_is_removed() {
    let world = World::folder();
    let staged = world.path("events/2026/08/2026-08-01.ndjson.zst#1");
    fs::create_dir_all(staged.parent().unwrap()).unwrap();
    fs::write(&staged, "half").unwrap();
    world.archive.write(events(), 1, pieces(&ndjson(1000))).await.unwrap();
    assert_eq!(world.objects().len(), 2);
    assert!(!staged.exists());
}

#[tokio::test]
async fn an_endpoint_that_nobody_serves_is_said() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let archive = bucket_at(&endpoint, &[]);
    let text = told(&archive.check().await.unwrap_err());
    for says in ["cannot write .probes/", "s3://watchbook/some/where", &endpoint, "refused", "AWS_ENDPOINT_URL"] {
        assert!(text.contains(says), "{says}: {text}");
    }
}

#[tokio::test]
async fn wrong_credentials_are_said_without_them() {
    let wrong = format!("{SECRET}-of-somebody-else");
    for (variable, value) in [("AWS_SECRET_ACCESS_KEY", wrong.as_str()), ("AWS_ACCESS_KEY_ID", "nobody")] {
        let world = World::bucket_with(&[(variable, value)]).await;
        let text = told(&world.archive.check().await.unwrap_err());
        assert!(text.contains("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"), "{text}");
        assert!(!format!("{:?}", world.archive).contains(SECRET));
    }
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_said() {
    let world = World::bucket().await;
    world.remove();
    let text = told(&world.archive.parts("events", crate::world::day()).await.unwrap_err());
    assert!(text.contains("check that the bucket exists"), "{text}");
}

#[tokio::test]
async fn a_server_without_conditions_will_do() {
    let world = World::bucket_with(&[("AWS_CONDITIONAL_PUT", "disabled")]).await;
    world.archive.check().await.unwrap();
    let manifest = world.archive.write(events(), 1, pieces(&ndjson(1000))).await.unwrap();
    assert_eq!(world.archive.parts("events", crate::world::day()).await.unwrap(), [manifest]);
}

#[test]
fn half_of_the_credentials_are_said() {
    let variables = [("AWS_ACCESS_KEY_ID".to_owned(), KEY.to_owned())];
    let error = Archive::open_with("s3://watchbook", variables).unwrap_err();
    assert!(matches!(error, ArchiveError::Variables { .. }), "{error:?}");
    assert!(error.to_string().contains("s3://watchbook"), "{error}");
}
