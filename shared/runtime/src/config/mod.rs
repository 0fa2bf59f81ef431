//! Settings: a file, overridden by environment variables, checked before anything starts.
//!
//! Every key has a doc comment here. The commented file `deploy/watchbook.toml` shows all keys at their defaults.

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

/// All settings.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The connection to NATS.
    pub nats: Nats,
    /// The connection to Postgres.
    pub postgres: Postgres,
    /// The HTTP server of this process.
    pub http: Http,
    /// The gateway: token verification, CORS and limits.
    pub gateway: Gateway,
    /// Streams, as `setup` creates them and the writers expect them.
    pub streams: Streams,
    /// The writers.
    pub writer: Writer,
    /// How long records are kept.
    pub retention: Retention,
    /// Logs of this process.
    pub log: Log,
    /// How alerts are evaluated and delivered.
    pub alerts: Alerts,
    /// The thresholds of the health of entities.
    pub health: HealthThresholds,
    /// Alert rules. If there are none, the built-in ones apply.
    pub rules: Vec<Rule>,
    /// The receivers of notifications.
    pub receivers: Vec<Receiver>,
    /// The routes from alerts to receivers. The first match wins.
    pub routes: Vec<Route>,
}

/// The connection to NATS, with at most one way to sign in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Nats {
    /// URLs of the servers, separated by commas; `NATS_URL`. `tls://` selects TLS.
    pub url: Option<String>,
    /// The first tokens of every subject and, in upper case, the beginning of every stream's name.
    pub prefix: String,
    /// The JetStream domain of the streams, as `nats --js-domain`: for example if this process connects to a leaf node
    /// and the streams are on its hub. Excludes `jetstream_api_prefix`.
    pub jetstream_domain: Option<String>,
    /// The prefix under which this account imports JetStream's API from the account of the streams, instead of
    /// `$JS.API`, as `nats --js-api-prefix`. Excludes `jetstream_domain`.
    pub jetstream_api_prefix: Option<String>,
    /// A credentials file (JWT and seed); `NATS_CREDS`.
    pub credentials: Option<std::path::PathBuf>,
    /// A file with an NKey seed.
    pub nkey_seed_file: Option<std::path::PathBuf>,
    /// The user to sign in as, with `password`.
    pub user: Option<String>,
    /// The password of `user`.
    pub password: Option<Secret>,
    /// A file with the certificate authorities of the servers, if they are not among those of the system.
    pub ca_file: Option<std::path::PathBuf>,
    /// A file with the certificate of this client, with `key_file`.
    pub cert_file: Option<std::path::PathBuf>,
    /// A file with the private key of `cert_file`.
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
    /// Returns the prefix of JetStream's API subjects, without a trailing dot.
    pub fn api_prefix(&self) -> String {
        match (&self.jetstream_domain, &self.jetstream_api_prefix) {
            (Some(domain), _) => format!("$JS.{domain}.API"),
            (None, Some(prefix)) => prefix.trim_end_matches('.').to_owned(),
            (None, None) => "$JS.API".to_owned(),
        }
    }
}

/// The connection to Postgres.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Postgres {
    /// `postgres://user:password@host:port/database?sslmode=verify-full`; `DATABASE_URL`.
    pub url: Option<Secret>,
}

/// The HTTP server of this process: probes, metrics and the gateway's API.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// The address to listen on, or `off`; `WATCHBOOK_HTTP_ADDR`. Default: loopback, because the probes need no token.
    pub address: HttpAddress,
    /// The secret that signs and verifies HS256 tokens, at least 32 bytes; `WATCHBOOK_JWT_SECRET`. No default.
    pub jwt_secret: Option<Secret>,
}

/// The writers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Writer {
    /// Lanes per kind: parallel COPYs, each on a connection of its own. Two fill two cores; more help if Postgres has
    /// more cores. At most 16.
    pub lanes: NonZeroU32,
    /// Maximum rows of a batch; at most 50,000.
    pub batch_rows: NonZeroU32,
    /// How long a lone record waits for more before it is written; at most 1 s.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// Bytes of messages and rows in memory, for all writers of this process; at least 32 MiB.
    pub memory: ByteSize,
    /// Number of coming days for which partitions are created; at most 60.
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
    /// The log filter, such as `info` or `info,writer=debug`. Default: `info` for `up` and `run`, `warn` for commands.
    pub filter: Option<String>,
}

/// The minimum length of a secret that signs HS256 tokens, in bytes (RFC 7518, section 3.2).
const JWT_SECRET_BYTES: usize = 32;
/// The maximum length of a prefix. A longer one would leave no room for ids in a subject.
const PREFIX_BYTES: usize = 64;
/// The minimum of `writer.memory`. With less, one message of 1 MiB for each kind would not fit.
const MIN_MEMORY: ByteSize = ByteSize::mib(32);

impl Config {
    /// Returns the problems of values that have the right type, each as the path of the key and a text for people.
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
        // The tokens that nats-server accepts in a subject for publishing.
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
            "at most 50000: a batch is written again if its connection breaks",
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
            "at least 32 bytes, as RFC 7518 requires for HS256: `openssl rand -hex 32` generates one",
        );
        self.retention.problems(&mut problems);
        self.gateway.problems(self.http.jwt_secret.is_some(), &mut problems);
        self.alerting_problems(&mut problems);
        problems
    }

    /// Returns the NATS URL.
    ///
    /// # Errors
    /// If none is set; the message explains how to set it.
    pub fn nats_url(&self) -> anyhow::Result<&str> {
        self.nats.url.as_deref().ok_or_else(|| {
            anyhow::anyhow!("no NATS server: set NATS_URL (nats://host:4222) or `url` in [nats]; `watchbook up` starts one of its own")
        })
    }

    /// Returns the Postgres URL, with its password.
    ///
    /// # Errors
    /// If none is set; the message explains how to set it.
    pub fn database_url(&self) -> anyhow::Result<&str> {
        self.postgres.url.as_ref().map(Secret::reveal).ok_or_else(|| {
            anyhow::anyhow!(
                "no database: set DATABASE_URL (postgres://user:password@host:5432/database) or `url` in [postgres]; `watchbook up` starts one of its own"
            )
        })
    }

    /// Returns the effective settings as TOML, with secrets hidden.
    ///
    /// # Errors
    /// If they cannot be serialized as TOML, which would be a bug.
    pub fn to_toml(&self) -> anyhow::Result<String> {
        let mut shown = self.clone();
        shown.nats.url = shown.nats.url.map(|url| redact_url(&url));
        Ok(toml::to_string_pretty(&shown)?)
    }
}
