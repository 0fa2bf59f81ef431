//! Settings: a file, overridden by the environment, checked before anything starts.
//!
//! Every key has a default and a doc comment here; the commented file in `deploy/` shows them all.

mod alerting;
mod gateway;
mod load;
mod ratio;
pub mod receivers;
mod retention;
mod streams;
mod values;

use std::num::NonZeroU32;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

pub use alerting::{Alerts, HealthThresholds, Route, Rule};
pub use gateway::Gateway;
pub use load::{ConfigError, Sources};
pub use ratio::{ParseRatioError, Ratio};
pub use receivers::{Receiver, SecretUrl};
pub use retention::{ExactPerKind, Keep, KeepPerKind, PerKind, Retention};
pub use streams::{StreamSize, Streams};
pub use values::{HttpAddress, Secret, redact_url};

use crate::LogFormat;

/// Everything that can be set.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How to reach NATS.
    pub nats: Nats,
    /// How to reach Postgres.
    pub postgres: Postgres,
    /// What this process serves.
    pub http: Http,
    /// The gateway: who may ask it, and within which bounds.
    pub gateway: Gateway,
    /// Streams, as `setup` makes them and the writers expect them.
    pub streams: Streams,
    /// The writers.
    pub writer: Writer,
    /// How long records are kept.
    pub retention: Retention,
    /// Logs of this process.
    pub log: Log,
    /// How alerts are evaluated and delivered.
    pub alerts: Alerts,
    /// When an entity counts as healthy.
    pub health: HealthThresholds,
    /// Alert rules; with none the built-in ones apply.
    pub rules: Vec<Rule>,
    /// Whom alerts go to.
    pub receivers: Vec<Receiver>,
    /// Which alert goes to whom; the first match wins.
    pub routes: Vec<Route>,
}

/// How to reach NATS. At most one way to sign in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Nats {
    /// Servers, separated by commas; `NATS_URL`. `tls://` for TLS.
    pub url: Option<String>,
    /// The first token of every subject, and in upper case of every stream.
    pub prefix: String,
    /// The JetStream domain of the streams, as `nats --js-domain`: where this process connects to a leaf node and the
    /// streams are on its hub, say. Not with `jetstream_api_prefix`.
    pub jetstream_domain: Option<String>,
    /// The subject under which this account imports JetStream's API from the account of the streams, in place of
    /// `$JS.API`, as `nats --js-api-prefix`. Not with `jetstream_domain`.
    pub jetstream_api_prefix: Option<String>,
    /// A credentials file (JWT and seed); `NATS_CREDS`.
    pub credentials: Option<std::path::PathBuf>,
    /// A file with an NKey seed.
    pub nkey_seed_file: Option<std::path::PathBuf>,
    /// User, with `password`.
    pub user: Option<String>,
    /// Password of `user`.
    pub password: Option<Secret>,
    /// A file with the certificates of the authorities that sign the servers' own.
    pub ca_file: Option<std::path::PathBuf>,
    /// The certificate of this client, with `key_file`.
    pub cert_file: Option<std::path::PathBuf>,
    /// The key of `cert_file`.
    pub key_file: Option<std::path::PathBuf>,
}

impl Default for Nats {
    fn default() -> Self {
        Self {
            url: None,
            prefix: "watchbook".to_owned(),
            jetstream_domain: None,
            jetstream_api_prefix: None,
            credentials: None,
            nkey_seed_file: None,
            user: None,
            password: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
        }
    }
}

impl Nats {
    /// The beginning of every subject of JetStream's API, without a dot behind it.
    pub fn api_prefix(&self) -> String {
        match (&self.jetstream_domain, &self.jetstream_api_prefix) {
            (Some(domain), _) => format!("$JS.{domain}.API"),
            (None, Some(prefix)) => prefix.trim_end_matches('.').to_owned(),
            (None, None) => "$JS.API".to_owned(),
        }
    }
}

/// How to reach Postgres.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Postgres {
    /// `postgres://user:password@host:port/database?sslmode=verify-full`; `DATABASE_URL`.
    pub url: Option<Secret>,
}

/// What this process serves.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Where to listen, or `off`; `WATCHBOOK_HTTP_ADDR`. Loopback unless told otherwise.
    pub address: HttpAddress,
    /// Signs and checks HS256 tokens, at least 32 bytes; `WATCHBOOK_JWT_SECRET`. No default.
    pub jwt_secret: Option<Secret>,
}

/// The writers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Writer {
    /// Parallel COPYs a kind. Two fill two cores; more help where Postgres has more.
    pub lanes: NonZeroU32,
    /// Rows of a batch at the most.
    pub batch_rows: NonZeroU32,
    /// What a lone record waits for company before it is written.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// Bytes of messages and rows that all writers of this process may hold together.
    pub memory: ByteSize,
    /// Days for which partitions are made ahead.
    pub partition_days_ahead: u32,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            lanes: NonZeroU32::MIN.saturating_add(1),
            batch_rows: NonZeroU32::MIN.saturating_add(9_999),
            linger: Duration::from_millis(10),
            memory: ByteSize::mib(96),
            partition_days_ahead: 3,
        }
    }
}

/// Logs of this process.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `text` or `json`.
    pub format: LogFormat,
    /// Which, such as `info` or `info,writer=debug`. Unset: what workers do, and of commands what is wrong.
    pub filter: Option<String>,
}

/// The least length of a secret that signs HS256 tokens, in bytes (RFC 7518, section 3.2).
const JWT_SECRET_BYTES: usize = 32;
/// A prefix longer than this leaves no room for ids in a subject.
const PREFIX_BYTES: usize = 64;
/// Below this one message of 1 MiB a kind would not fit.
const MIN_MEMORY: ByteSize = ByteSize::mib(32);

impl Config {
    /// What is wrong with values that each are of the right type: the key's path and the problem in words.
    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, key: &'static str, problem: &str| {
            if !ok {
                problems.push((key, problem.to_owned()));
            }
        };
        let prefix = &self.nats.prefix;
        let is_token = |token: &str| {
            !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        check(
            prefix.len() <= PREFIX_BYTES && prefix.split('.').all(is_token),
            "nats.prefix",
            "expected tokens of A-Z a-z 0-9 _ - separated by dots, 64 bytes at most",
        );
        // What nats-server takes in a subject that is published on.
        let is_subject_token = |token: &str| {
            !token.is_empty() && token.chars().all(|c| !c.is_whitespace() && !c.is_control() && !matches!(c, '*' | '>'))
        };
        check(
            self.nats.jetstream_domain.as_ref().is_none_or(|domain| is_subject_token(domain) && !domain.contains('.')),
            "nats.jetstream_domain",
            "expected the domain's name: one token of a subject, without dots",
        );
        let is_subject = |prefix: &str| prefix.strip_suffix('.').unwrap_or(prefix).split('.').all(is_subject_token);
        check(
            self.nats.jetstream_api_prefix.as_deref().is_none_or(is_subject),
            "nats.jetstream_api_prefix",
            "expected the beginning of a subject, such as `JS.hub.API`, without wildcards",
        );
        check(
            self.nats.jetstream_domain.is_none() || self.nats.jetstream_api_prefix.is_none(),
            "nats.jetstream_api_prefix",
            "set it or `jetstream_domain`, not both: the domain `hub` is the prefix `$JS.hub.API`",
        );
        let ways = [self.nats.credentials.is_some(), self.nats.nkey_seed_file.is_some(), self.nats.user.is_some()];
        check(
            ways.iter().filter(|way| **way).count() <= 1,
            "nats",
            "set one of `credentials`, `nkey_seed_file` and `user`, not several",
        );
        check(
            self.nats.user.is_some() == self.nats.password.is_some(),
            "nats.user",
            "`user` and `password` go together",
        );
        check(
            self.nats.cert_file.is_some() == self.nats.key_file.is_some(),
            "nats.cert_file",
            "`cert_file` and `key_file` go together",
        );
        check(
            matches!(self.streams.replicas, 1 | 3 | 5),
            "streams.replicas",
            "1, 3 or 5: NATS elects a leader by majority",
        );
        check(
            self.writer.lanes.get() <= 16,
            "writer.lanes",
            "at most 16: each is a connection and a batch in memory, for every kind",
        );
        check(
            self.writer.batch_rows.get() <= 50_000,
            "writer.batch_rows",
            "at most 50000: a batch is lost work when its connection breaks",
        );
        check(
            self.writer.linger <= Duration::from_secs(1),
            "writer.linger",
            "at most 1s: every record may wait for it",
        );
        check(self.writer.memory >= MIN_MEMORY, "writer.memory", "at least 32 MiB");
        check(self.writer.partition_days_ahead <= 60, "writer.partition_days_ahead", "at most 60");
        check(
            self.http.jwt_secret.as_ref().is_none_or(|secret| secret.reveal().len() >= JWT_SECRET_BYTES),
            "http.jwt_secret",
            "at least 32 bytes, as RFC 7518 asks for HS256: `openssl rand -hex 32` makes one",
        );
        self.retention.problems(&mut problems);
        self.gateway.problems(self.http.jwt_secret.is_some(), &mut problems);
        self.alerting_problems(&mut problems);
        problems
    }

    /// The NATS URL.
    ///
    /// # Errors
    /// Where none is set, with how to set it.
    pub fn nats_url(&self) -> anyhow::Result<&str> {
        self.nats.url.as_deref().ok_or_else(|| {
            anyhow::anyhow!("no NATS server: set NATS_URL (nats://host:4222) or `url` in [nats]; `watchbook up` brings one of its own")
        })
    }

    /// The Postgres URL, with its password.
    ///
    /// # Errors
    /// Where none is set, with how to set it.
    pub fn database_url(&self) -> anyhow::Result<&str> {
        self.postgres.url.as_ref().map(Secret::reveal).ok_or_else(|| {
            anyhow::anyhow!(
                "no database: set DATABASE_URL (postgres://user:password@host:5432/database) or `url` in [postgres]; `watchbook up` brings one of its own"
            )
        })
    }

    /// The effective settings as TOML, secrets hidden.
    ///
    /// # Errors
    /// Where they cannot be written as TOML, which would be a bug.
    pub fn to_toml(&self) -> anyhow::Result<String> {
        let mut shown = self.clone();
        shown.nats.url = shown.nats.url.map(|url| redact_url(&url));
        Ok(toml::to_string_pretty(&shown)?)
    }
}
