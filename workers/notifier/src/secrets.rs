//! Removes URLs and keys from errors and logs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use reqwest::Url;

/// Minimum length of a secret in bytes. Shorter parts are common words in responses.
const SHORTEST: usize = 4;
/// The replacement for a secret.
const HIDDEN: &str = "***";

/// Texts that must not be shown, longest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    /// Collects all parts of a URL except scheme, host and port. Webhooks keep their secret in the path, others in
    /// the query or in the user info, and a server may echo only a part of it.
    pub(crate) fn of_url(url: &Url) -> Self {
        let mut secrets = Self::default();
        secrets.add(url.as_str());
        secrets.add(url.path());
        for segment in url.path().split('/') {
            secrets.add(segment);
        }
        secrets.add(url.query().unwrap_or_default());
        for (_, value) in url.query_pairs() {
            secrets.add(&value);
        }
        for pair in url.query().unwrap_or_default().split('&') {
            secrets.add(pair.split_once('=').map_or(pair, |(_, value)| value));
        }
        secrets.add(url.fragment().unwrap_or_default());
        let (user, password) = (decoded(url.username()), url.password().map(decoded).unwrap_or_default());
        secrets.add(url.username());
        secrets.add(url.password().unwrap_or_default());
        if !user.is_empty() || !password.is_empty() {
            // The form used by the `Authorization` header, RFC 7617.
            secrets.add(&STANDARD.encode(format!("{user}:{password}")));
        }
        secrets
    }

    /// Adds `secret`, both as it is and percent-decoded.
    pub(crate) fn add(&mut self, secret: &str) {
        for secret in [secret.to_owned(), decoded(secret)] {
            if secret.len() >= SHORTEST && !self.0.contains(&secret) {
                self.0.push(secret);
            }
        }
        self.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// Returns `text` with every secret replaced.
    pub(crate) fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret, HIDDEN))
    }

    /// Returns the length of the longest secret in bytes. A truncated text may end with a secret's beginning of up
    /// to this length.
    pub(crate) fn longest(&self) -> usize {
        self.0.first().map_or(0, String::len)
    }
}

/// Returns the parts of a URL that may be shown: scheme, host and port.
pub(crate) fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or("?");
    match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_url_that_can_hold_a_secret_is_hidden() {
        let url =
            Url::parse("https://user:p%40ssword@host.example:8443/services/T0001/very%20secret?token=abc%2Fdef#frag")
                .unwrap();
        let secrets = Secrets::of_url(&url);
        for echo in [
            url.as_str(),
            "Cannot POST /services/T0001/very%20secret",
            "no hook called very secret",
            "user or p@ssword are wrong, p%40ssword even",
            "token abc/def is over, abc%2Fdef even",
            "Authorization: Basic dXNlcjpwQHNzd29yZA==",
        ] {
            let hidden = secrets.hide(echo);
            for secret in ["T0001", "very", "ssword", "abc", "def", "dXNl"] {
                assert!(!hidden.contains(secret), "{echo} became {hidden}");
            }
        }
        assert_eq!(shown(&url), "https://host.example:8443");
        assert_eq!(secrets.hide("the moon is full"), "the moon is full");
    }
}
