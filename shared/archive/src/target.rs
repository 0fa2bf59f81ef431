//! The directory or bucket of an archive. Each step has a time limit, and errors say what to check.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode};

use crate::location::Location;
use crate::secrets::Secrets;
use crate::{ArchiveError, Result, bucket};

/// Time limit of a step that transfers no rows, including retries. A user may be waiting for it.
const STEP_WITHIN: Duration = Duration::from_secs(30);
/// Maximum length of an error message in characters. A proxy may answer with a whole HTML page.
const PROBLEM_CHARACTERS: usize = 500;

/// The location of an archive and the client to access it.
pub(crate) struct Target {
    location: String,
    store: Arc<dyn ObjectStore>,
    /// The path, if it is a directory.
    folder: Option<PathBuf>,
    has_keys: bool,
    secrets: Secrets,
}

impl Target {
    pub(crate) fn open(location: &str, variables: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        match Location::parse(location)? {
            Location::Folder(folder) => Self::folder(folder),
            Location::Bucket { bucket, prefix } => Self::bucket(&bucket, &prefix, variables.into_iter().collect()),
        }
    }

    fn folder(folder: PathBuf) -> Result<Self> {
        let location = folder.display().to_string();
        let failed = |problem: String| ArchiveError::Folder { folder: location.clone(), problem };
        fs::create_dir_all(&folder).map_err(|error| failed(error.to_string()))?;
        let store = LocalFileSystem::new_with_prefix(&folder).map_err(|error| failed(causes(&error)))?;
        // The partition is dropped right after, so the file must survive a power failure by then.
        let store = Arc::new(store.with_fsync(true));
        Ok(Self { location, store, folder: Some(folder), has_keys: false, secrets: Secrets::default() })
    }

    fn bucket(name: &str, prefix: &Path, variables: Vec<(String, String)>) -> Result<Self> {
        let mut secrets = Secrets::default();
        for (variable, value) in &variables {
            secrets.learn(variable, value);
        }
        let location = format!("s3://{name}/{prefix}").trim_end_matches('/').to_owned();
        let store = bucket::open(name, &variables).map_err(|problem| ArchiveError::Variables {
            location: location.clone(),
            problem: secrets.hide(&problem),
        })?;
        let has_keys = variables.iter().any(|(variable, _)| variable == "AWS_ACCESS_KEY_ID");
        let store = Arc::new(PrefixStore::new(store, prefix.clone()));
        Ok(Self { location, store, folder: None, has_keys, secrets })
    }

    pub(crate) fn location(&self) -> &str {
        &self.location
    }

    pub(crate) fn store(&self) -> &dyn ObjectStore {
        &*self.store
    }

    /// Lists the objects below `folder`.
    pub(crate) async fn list(&self, folder: &Path) -> Result<Vec<ObjectMeta>> {
        let list = self.store.list(Some(folder)).try_collect();
        self.step("list", folder, list).await
    }

    pub(crate) async fn exists(&self, object: &Path) -> Result<bool> {
        let head = async {
            match self.store.head(object).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::NotFound { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        };
        self.step("look for", object, head).await
    }

    /// Reads a small object. Returns `None` if it is larger than `bound` bytes.
    pub(crate) async fn get(&self, object: &Path, bound: u64) -> Result<Option<Vec<u8>>> {
        let get = async {
            let found = self.store.get(object).await?;
            if found.meta.size > bound {
                return Ok(None);
            }
            Ok(Some(found.bytes().await?.to_vec()))
        };
        self.step("read", object, get).await
    }

    /// Writes a small object unless it exists. An existing object is left as it is, without an error: it may stem
    /// from an attempt whose response was lost.
    pub(crate) async fn put_new(&self, object: &Path, bytes: Vec<u8>) -> Result<()> {
        let put = async {
            match self.store.put_opts(object, bytes.clone().into(), PutMode::Create.into()).await {
                Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
                Err(error) if self.knows_no_conditions(&error) => {
                    self.store.put(object, bytes.into()).await.map(|_| ())
                }
                Err(error) => Err(error),
            }
        };
        self.step("write", object, put).await
    }

    /// Returns whether the store does not support conditional writes: a file system without hard links, a server
    /// without `If-None-Match`, or one for which `AWS_CONDITIONAL_PUT` disables them. There the single writer must
    /// suffice.
    fn knows_no_conditions(&self, error: &object_store::Error) -> bool {
        match error {
            object_store::Error::NotImplemented { .. } => true,
            object_store::Error::Generic { .. } => {
                self.folder.is_some() || error.to_string().contains("501 Not Implemented")
            }
            _ => false,
        }
    }

    pub(crate) async fn remove(&self, object: &Path) -> Result<()> {
        self.step("remove", object, self.store.delete(object)).await
    }

    /// Removes temporary files beside `object` that a killed process left. They only waste disk space, so errors
    /// are ignored. A bucket needs a lifecycle rule for incomplete uploads.
    pub(crate) async fn sweep(&self, object: &Path) {
        let Some(path) = self.folder.as_ref().map(|folder| folder.join(object.as_ref())) else { return };
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return };
        let Ok(mut entries) = tokio::fs::read_dir(folder).await else { return };
        let staged = format!("{}#", name.to_string_lossy());
        while let Ok(Some(entry)) = entries.next_entry().await {
            if entry.file_name().to_string_lossy().starts_with(&staged) {
                let _ = tokio::fs::remove_file(entry.path()).await;
            }
        }
    }

    /// Runs one operation on one object with a time limit.
    pub(crate) async fn step<T>(
        &self,
        doing: &'static str,
        object: &Path,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T> {
        match tokio::time::timeout(STEP_WITHIN, work).await {
            Ok(done) => done.map_err(|error| self.failed(doing, object, &error)),
            Err(_) => {
                Err(self.problem(doing, object, format!("no answer within {STEP_WITHIN:?}"), self.advice_when_away()))
            }
        }
    }

    /// Builds the error for an error of the store.
    pub(crate) fn failed(&self, doing: &'static str, object: &Path, error: &object_store::Error) -> ArchiveError {
        use object_store::Error::{NotFound, PermissionDenied, Unauthenticated};
        let problem = short(&self.secrets.hide(&causes(error)));
        let advice = match error {
            _ if self.folder.is_some() => self.advice_when_away(),
            PermissionDenied { .. } | Unauthenticated { .. } => {
                "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that they allow to list, read, write and delete"
            }
            // A listing reports a missing bucket only in its message.
            _ if matches!(error, NotFound { .. }) || problem.contains("NoSuchBucket") => {
                "check that the bucket exists, and that AWS_REGION and AWS_ENDPOINT_URL are right"
            }
            _ => self.advice_when_away(),
        };
        self.problem(doing, object, problem, advice)
    }

    pub(crate) fn damaged(&self, object: &Path, problem: impl Into<String>) -> ArchiveError {
        let (object, location) = (object.to_string(), self.location.clone());
        ArchiveError::Damaged { object, location, problem: problem.into() }
    }

    fn problem(&self, doing: &'static str, object: &Path, problem: String, advice: &'static str) -> ArchiveError {
        ArchiveError::Store { doing, object: object.to_string(), location: self.location.clone(), problem, advice }
    }

    fn advice_when_away(&self) -> &'static str {
        match (&self.folder, self.has_keys) {
            (Some(_), _) => "check that the directory exists, is writable, and has free space",
            (None, true) => "check that AWS_REGION and AWS_ENDPOINT_URL are right and reachable",
            (None, false) => {
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set, so this machine needs an IAM role"
            }
        }
    }
}

/// Formats an error with its causes.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Formats an error on one line. Of an XML response only the code and the message are kept; the rest repeats the
/// request.
fn short(text: &str) -> String {
    let said = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(said, _)| said)
    };
    let text = match (said("Code"), text.split_once('<')) {
        (Some(code), Some((before, _))) => format!("{before}{code}: {}", said("Message").unwrap_or_default()),
        _ => text.to_owned(),
    };
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").trim_end_matches([':', ' ']).chars().take(PROBLEM_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_answer_in_xml_code_and_message_are_shown() {
        let answer = "403 Forbidden: <?xml version=\"1.0\"?>\n<Error><Code>InvalidToken</Code><Message>It is\n\
                      bad.</Message><Token-0>hush</Token-0></Error>";
        assert_eq!(short(answer), "403 Forbidden: InvalidToken: It is bad.");
        assert_eq!(short("404 Not Found: "), "404 Not Found");
        assert_eq!(short(&"x".repeat(2 * PROBLEM_CHARACTERS)).len(), PROBLEM_CHARACTERS);
    }
}
