//! Parses the location of an archive.

use std::path::{PathBuf, absolute};

use object_store::path::Path;
use reqwest::Url;

use crate::{ArchiveError, Result};

/// The location of an archive.
#[derive(Debug, PartialEq)]
pub(crate) enum Location {
    Folder(PathBuf),
    Bucket { bucket: String, prefix: Path },
}

impl Location {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        read(text).map_err(|problem| ArchiveError::Location { location: shown(text), problem })
    }
}

/// Hides the credentials in a malformed location, which may be a URL with a password.
fn shown(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://***@{rest}"),
        _ => text.to_owned(),
    }
}

fn read(text: &str) -> std::result::Result<Location, String> {
    let Some((scheme, _)) = text.split_once("://") else {
        // The working directory may change, and errors should show the full path.
        return absolute(text).map(Location::Folder).map_err(|error| error.to_string());
    };
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match scheme {
        "file" => {
            let folder = url.to_file_path().map_err(|()| "file:// needs an absolute path: file:///path".to_owned())?;
            Ok(Location::Folder(folder))
        }
        "s3" => bucket(&url),
        _ => Err(format!("{scheme}:// is not supported")),
    }
}

fn bucket(url: &Url) -> std::result::Result<Location, String> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it must not contain credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() || url.port().is_some() {
        return Err("it has more than a bucket and a prefix (set an endpoint in AWS_ENDPOINT_URL)".to_owned());
    }
    let bucket = url.host_str().filter(|bucket| !bucket.is_empty()).ok_or("it has no bucket")?.to_owned();
    let prefix = Path::from_url_path(url.path()).map_err(|error| error.to_string())?;
    Ok(Location::Bucket { bucket, prefix })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_buckets_are_told_apart() {
        let folder = |path: &str| Location::Folder(PathBuf::from(path));
        let bucket = |prefix: &str| Location::Bucket { bucket: "b-1".to_owned(), prefix: Path::from(prefix) };
        assert_eq!(Location::parse("/var/archive").unwrap(), folder("/var/archive"));
        assert_eq!(Location::parse("file:///var/the%20archive").unwrap(), folder("/var/the archive"));
        let here = std::env::current_dir().unwrap();
        assert_eq!(Location::parse("archive").unwrap(), Location::Folder(here.join("archive")));
        assert_eq!(Location::parse("s3://b-1").unwrap(), bucket(""));
        assert_eq!(Location::parse("s3://b-1/a/b/").unwrap(), bucket("a/b"));
    }

    #[test]
    fn what_is_no_location_is_refused_without_its_secrets() {
        for (text, says) in [
            ("", "empty"),
            ("gs://bucket", "gs:// is not supported"),
            ("file://host/path", "file:///path"),
            ("s3:///prefix", "has no bucket"),
            ("s3://bucket:9000/prefix", "AWS_ENDPOINT_URL"),
            ("s3://bucket/prefix?region=x", "more than a bucket"),
            ("s3://key:hush@bucket", "AWS_SECRET_ACCESS_KEY"),
        ] {
            let error = Location::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
            assert!(error.contains("s3://bucket/prefix"), "{error}");
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
