//! An archive at its own location, with access to its files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use archive::{Archive, Day};
use chrono::NaiveDate;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;

pub(crate) const KEY: &str = "a-key";
pub(crate) const SECRET: &str = "a-secret-to-hush";
const BUCKET: &str = "watchbook";
const PREFIX: &str = "some/where";

/// Upper bound of all waits, for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) archive: Archive,
    /// The directory that holds the objects as files.
    files: PathBuf,
    /// The working directory of the server.
    root: TempDir,
}

impl World {
    pub(crate) fn folder() -> Self {
        let root = tempfile::tempdir().unwrap();
        let files = root.path().join("not/there/yet");
        let archive = Archive::open(files.to_str().unwrap()).unwrap();
        assert_eq!(archive.location(), files.to_str().unwrap());
        Self { archive, files, root }
    }

    /// Starts a server that runs until the end of the test's runtime.
    pub(crate) async fn bucket() -> Self {
        Self::bucket_with(&[]).await
    }

    /// Like `bucket`, with variables that differ from those the server expects.
    pub(crate) async fn bucket_with(others: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let files = root.path().join(BUCKET).join(PREFIX);
        fs::create_dir(root.path().join(BUCKET)).unwrap();
        let endpoint = serve(root.path()).await;
        let archive = bucket_at(&endpoint, others);
        assert_eq!(archive.location(), "s3://watchbook/some/where");
        Self { archive, files, root }
    }

    pub(crate) fn path(&self, object: &str) -> PathBuf {
        self.files.join(object)
    }

    /// Removes the bucket.
    pub(crate) fn remove(&self) {
        fs::remove_dir_all(self.root.path().join(BUCKET)).unwrap();
    }

    /// Returns all objects and all incomplete uploads.
    pub(crate) fn objects(&self) -> Vec<PathBuf> {
        let mut found = files_below(&self.files);
        // The server keeps incomplete multipart uploads here.
        let unfinished = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(".upload");
        found.extend(files_below(self.root.path()).into_iter().filter(unfinished));
        found.sort();
        found
    }

    /// Waits until no object is left. A dropped upload is cleaned up in the background.
    pub(crate) async fn becomes_empty(&self) {
        let empty = async {
            while !self.objects().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        let within = tokio::time::timeout(PATIENCE, empty).await;
        assert!(within.is_ok(), "still there: {:?}", self.objects());
    }
}

/// Opens an archive in the bucket behind `endpoint`.
pub(crate) fn bucket_at(endpoint: &str, others: &[(&str, &str)]) -> Archive {
    let mut variables = vec![
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", endpoint),
    ];
    variables.extend(others);
    let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    Archive::open_with(&format!("s3://{BUCKET}/{PREFIX}/"), variables).unwrap()
}

pub(crate) fn day() -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 8, 1).unwrap()
}

pub(crate) fn events() -> Day<'static> {
    Day { kind: "events", day: day(), table: "watchbook.event_logs" }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Serves `root`, where each folder is a bucket. Returns the endpoint.
async fn serve(root: &Path) -> String {
    let mut service = S3ServiceBuilder::new(FileSystem::new(root).unwrap());
    service.set_auth(SimpleAuth::from_single(KEY, SECRET));
    let service = service.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                // The result is ignored: a client may close the connection at any time.
                let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    endpoint
}
