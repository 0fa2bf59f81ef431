//! Configures the client of a bucket from the usual `AWS_*` variables.

use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{BackoffConfig, RetryConfig};
use reqwest::Url;

use crate::http::Connector;

/// Number of retries. With their delays, an unreachable server is reported within 15 s, and a short failure goes
/// unnoticed.
const RETRIES: usize = 3;
/// No attempt starts later than this after the first one.
const RETRY_FOR: Duration = Duration::from_secs(10);

/// Builds a client for `bucket`, or returns what is wrong with the variables.
pub(crate) fn open(bucket: &str, variables: &[(String, String)]) -> Result<AmazonS3, String> {
    let mut builder = AmazonS3Builder::new();
    for (name, value) in variables {
        // Other variables with this prefix belong to other tools.
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    for key in [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint] {
        let Some(endpoint) = builder.get_config_value(&key) else { continue };
        let url = Url::parse(&endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or("the endpoint is not a URL with http:// or https://")?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("the endpoint contains credentials; set them in AWS_ACCESS_KEY_ID and \
                        AWS_SECRET_ACCESS_KEY"
                .to_owned());
        }
        if url.scheme() == "http" {
            // Plain HTTP was chosen explicitly in the URL.
            builder = builder.with_allow_http(true);
        }
    }
    builder
        .with_bucket_name(bucket)
        .with_http_connector(Connector)
        .with_retry(RetryConfig { backoff: BackoffConfig::default(), max_retries: RETRIES, retry_timeout: RETRY_FOR })
        // Objects are deleted one at a time, and not every server supports bulk deletion.
        .with_disable_bulk_delete(true)
        .build()
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(variables: &[(&str, &str)]) -> String {
        let variables: Vec<_> = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        open("bucket", &variables).unwrap_err()
    }

    #[test]
    fn half_of_the_credentials_and_odd_endpoints_are_said() {
        assert!(problem(&[("AWS_ACCESS_KEY_ID", "a")]).contains("SecretAccessKey"));
        for endpoint in ["minio", "minio:9000", "s3://minio"] {
            assert!(problem(&[("AWS_ENDPOINT_URL", endpoint)]).contains("not a URL with http://"), "{endpoint}");
        }
        let with_password = problem(&[("AWS_ENDPOINT_URL", "http://a:hush@minio:9000")]);
        assert!(with_password.contains("AWS_SECRET_ACCESS_KEY") && !with_password.contains("hush"));
    }
}
