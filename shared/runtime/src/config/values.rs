//! Types of single values.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value that logs, errors and listings must not show.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// Returns the secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn hidden(&self) -> String {
        // Only the password of a URL is secret; the rest helps to find a wrong host.
        if self.0.contains("://") { redact_url(&self.0) } else { "***".to_owned() }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hidden())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.hidden())
    }
}

/// Replaces the passwords and tokens in URLs, separated by commas, by `***`.
pub fn redact_url(urls: &str) -> String {
    let redact = |url: &str| -> String {
        let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
        let (authority, path) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
        let Some((user, host)) = authority.rsplit_once('@') else {
            return format!("{scheme}://{authority}{}", redact_query(path));
        };
        let user = match user.split_once(':') {
            Some((name, _)) => format!("{name}:***"),
            // A user without a password in a NATS URL is a token.
            None if scheme.starts_with("postgres") => user.to_owned(),
            None => "***".to_owned(),
        };
        format!("{scheme}://{user}@{host}{}", redact_query(path))
    };
    urls.split(',').map(redact).collect::<Vec<_>>().join(",")
}

/// Replaces the values of password parameters, which libpq's URLs may have, by `***`.
fn redact_query(path: &str) -> String {
    let Some((path, query)) = path.split_once('?') else { return path.to_owned() };
    let hide = |pair: &str| match pair.split_once('=') {
        Some((key, _)) if key.contains("password") => format!("{key}=***"),
        _ => pair.to_owned(),
    };
    format!("{path}?{}", query.split('&').map(hide).collect::<Vec<_>>().join("&"))
}

/// The address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpAddress {
    /// Do not listen.
    Off,
    /// Listen on this address.
    At(SocketAddr),
}

impl Default for HttpAddress {
    fn default() -> Self {
        Self::At(SocketAddr::from(([127, 0, 0, 1], 8470)))
    }
}

impl Serialize for HttpAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::At(address) => serializer.collect_str(address),
        }
    }
}

impl<'de> Deserialize<'de> for HttpAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::At).map_err(|_| {
            serde::de::Error::custom(format!(
                "expected an address with a port such as 127.0.0.1:8470, or `off`; found `{text}`"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_their_passwords() {
        for (url, shown) in [
            ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
            ("nats://me:secret@host:4222,tls://token@other", "nats://me:***@host:4222,tls://***@other"),
            ("postgres://me:p@ss@host/db?sslmode=require", "postgres://me:***@host/db?sslmode=require"),
            ("postgres://me@host/db?password=secret&x=1", "postgres://me@host/db?password=***&x=1"),
        ] {
            assert_eq!(redact_url(url), shown);
        }
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "***");
    }
}
