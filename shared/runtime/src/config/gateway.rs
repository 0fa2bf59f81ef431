//! Settings of the gateway.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// The gateway: token verification, CORS and limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gateway {
    /// The `iss` of accepted tokens, and of the tokens that `watchbook token create` signs.
    pub issuer: String,
    /// The audience that `aud` of accepted tokens has to include.
    pub audience: String,
    /// The URL of the issuer's public keys (RS256, ES256, Ed25519), instead of `jwt_secret` in `[http]`.
    pub jwks_url: Option<String>,
    /// Other origins whose pages may call with a token of their own, such as `https://console.example.com`.
    pub cors_origins: Vec<String>,
    /// Maximum size of a request's body, both compressed and decompressed.
    pub max_body_bytes: ByteSize,
    /// Maximum bytes of the bodies of all requests in flight. A request beyond it is rejected with 503, or with 429 if
    /// its caller would use more than half. The records decoded from the bodies take about as much again.
    pub memory: ByteSize,
    /// Time limit until a response begins.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// Maximum number of connections. Further ones wait to be accepted.
    pub max_connections: NonZeroU32,
    /// Average requests per second of one caller.
    pub requests_per_second: NonZeroU32,
    /// Maximum burst of these requests.
    pub request_burst: NonZeroU32,
    /// Average publishing requests per second of one caller, counted separately from other requests.
    pub publishes_per_second: NonZeroU32,
    /// Maximum burst of these requests.
    pub publish_burst: NonZeroU32,
    /// Average requests per second of one address without a valid token. Requests with a valid token do not count.
    pub refusals_per_second: NonZeroU32,
    /// Maximum burst of these requests.
    pub refusal_burst: NonZeroU32,
    /// Maximum live streams of all callers. Each is also one of `max_connections`.
    pub live_streams: NonZeroU32,
    /// Maximum live streams of one caller.
    pub live_streams_per_caller: NonZeroU32,
    /// Bytes that may wait for one reader of a live stream. Further events are dropped and reported to it as lost.
    pub live_queue: ByteSize,
    /// Time without an event after which a comment is sent, which keeps proxies from closing the connection.
    #[serde(with = "humantime_serde")]
    pub live_heartbeat: Duration,
}

/// Returns `number` as a `NonZeroU32`; 1 for 0.
const fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(number.saturating_sub(1))
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            issuer: "watchbook".to_owned(),
            audience: "watchbook".to_owned(),
            jwks_url: None,
            cors_origins: Vec::new(),
            max_body_bytes: ByteSize::mib(4),
            memory: ByteSize::mib(64),
            request_timeout: Duration::from_secs(30),
            max_connections: count(2_048),
            requests_per_second: count(500),
            request_burst: count(1_000),
            publishes_per_second: count(5_000),
            publish_burst: count(10_000),
            refusals_per_second: count(500),
            refusal_burst: count(10_000),
            live_streams: count(1_024),
            live_streams_per_caller: count(64),
            live_queue: ByteSize::kib(256),
            live_heartbeat: Duration::from_secs(15),
        }
    }
}

/// The minimum of `max_body_bytes`: a record of the largest size has to fit.
const MIN_BODY: ByteSize = ByteSize::mib(2);
/// The maximum of `max_body_bytes`: a larger request could take much of a small machine's memory.
const MAX_BODY: ByteSize = ByteSize::mib(64);

impl Gateway {
    pub(super) fn problems(&self, has_secret: bool, problems: &mut Vec<(&'static str, String)>) {
        let mut check = |ok: bool, key: &'static str, problem: &str| {
            if !ok {
                problems.push((key, problem.to_owned()));
            }
        };
        check(!self.issuer.is_empty(), "gateway.issuer", "must not be empty: it is compared with `iss` of each token");
        check(!self.audience.is_empty(), "gateway.audience", "must not be empty: `aud` of each token has to name it");
        check(
            self.jwks_url.as_deref().is_none_or(is_private),
            "gateway.jwks_url",
            "expected https://…: whoever can alter the keys in transit can forge tokens (http:// only on loopback)",
        );
        check(
            self.jwks_url.is_none() || !has_secret,
            "gateway.jwks_url",
            "`jwt_secret` in [http] is set too: an issuer signs in one way, set only one of them",
        );
        check(
            self.cors_origins.iter().all(|origin| origin == "*" || is_origin(origin)),
            "gateway.cors_origins",
            "expected origins such as \"https://console.example.com\", without a path, or \"*\"",
        );
        check(
            (MIN_BODY..=MAX_BODY).contains(&self.max_body_bytes),
            "gateway.max_body_bytes",
            "between 2 MiB, which is the largest record, and 64 MiB",
        );
        check(self.memory >= self.max_body_bytes, "gateway.memory", "at least `max_body_bytes`");
        check(
            (Duration::from_secs(1)..=Duration::from_secs(600)).contains(&self.request_timeout),
            "gateway.request_timeout",
            "between 1s and 10m",
        );
        check(
            self.live_streams <= self.max_connections,
            "gateway.live_streams",
            "at most `max_connections`: each live stream has one",
        );
        check(
            (ByteSize::kib(16)..=ByteSize::mib(16)).contains(&self.live_queue),
            "gateway.live_queue",
            "between 16 KiB and 16 MiB",
        );
        check(
            (Duration::from_secs(1)..=Duration::from_secs(60)).contains(&self.live_heartbeat),
            "gateway.live_heartbeat",
            "between 1s and 60s: browsers and proxies close an idle connection after a minute or two",
        );
    }
}

/// Returns the host of a URL, without its port.
fn host(url: &str) -> &str {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    }
}

/// Returns whether nobody in the network can alter what the URL returns: https, or http on loopback.
fn is_private(url: &str) -> bool {
    let is_loopback = |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let host = host(url);
    !host.is_empty() && (url.starts_with("https://") || (url.starts_with("http://") && is_loopback(host)))
}

/// Returns whether the text is an origin: http or https, a host and maybe a port, without a path.
fn is_origin(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic() && !b"/?#@\"".contains(&b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(has_secret: bool, change: impl FnOnce(&mut Gateway)) -> Vec<&'static str> {
        let mut gateway = Gateway::default();
        change(&mut gateway);
        let mut problems = Vec::new();
        gateway.problems(has_secret, &mut problems);
        problems.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn keys_come_over_a_way_that_nobody_can_change() {
        for (url, fine) in [
            ("https://issuer.example.com/keys", true),
            ("http://127.0.0.1:8080/keys", true),
            ("http://[::1]:8080/keys", true),
            ("http://localhost/keys", true),
            ("http://issuer.example.com/keys", false),
            ("http://127.0.0.1.example.com/keys", false),
            ("https://", false),
            ("issuer", false),
        ] {
            let found = problems(false, |gateway| gateway.jwks_url = Some(url.to_owned()));
            assert_eq!(found.is_empty(), fine, "{url}");
        }
    }

    #[test]
    fn an_issuer_signs_in_one_way() {
        assert_eq!(problems(true, |_| {}), Vec::<&str>::new());
        let both = |gateway: &mut Gateway| gateway.jwks_url = Some("https://issuer/keys".to_owned());
        assert_eq!(problems(true, both), ["gateway.jwks_url"]);
    }

    #[test]
    fn what_cannot_be_is_named() {
        assert_eq!(problems(true, |gateway| gateway.issuer.clear()), ["gateway.issuer"]);
        assert_eq!(problems(true, |gateway| gateway.audience.clear()), ["gateway.audience"]);
        for origin in ["console.example.com", "https://a/b", "https://", "null"] {
            let found = problems(true, |gateway| gateway.cors_origins = vec![origin.to_owned()]);
            assert_eq!(found, ["gateway.cors_origins"], "{origin}");
        }
        assert_eq!(problems(true, |gateway| gateway.memory = ByteSize::mib(3)), ["gateway.memory"]);
        assert_eq!(problems(true, |gateway| gateway.max_body_bytes = ByteSize::b(1)), ["gateway.max_body_bytes"]);
        assert_eq!(problems(true, |gateway| gateway.request_timeout = Duration::ZERO), ["gateway.request_timeout"]);
    }
}
