//! Loads settings from a file and the environment, and checks them.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::Config;

/// The sources of settings, as text. Loading from them reads neither files nor the environment, so that tests can
/// provide both.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Path and text of the file, if there is one.
    pub file: Option<(PathBuf, String)>,
    /// Environment variables: names and values.
    pub environment: Vec<(String, String)>,
}

/// The problems of the settings, each with the file and line, or the variable, that caused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl From<String> for ConfigError {
    fn from(problem: String) -> Self {
        Self { problems: vec![problem] }
    }
}

/// Variables with a short name, and the key that each overrides.
const NAMED_VARIABLES: &[(&str, &[&str])] = &[
    ("NATS_URL", &["nats", "url"]),
    ("NATS_CREDS", &["nats", "credentials"]),
    ("DATABASE_URL", &["postgres", "url"]),
    ("WATCHBOOK_HTTP_ADDR", &["http", "address"]),
    ("WATCHBOOK_JWT_SECRET", &["http", "jwt_secret"]),
];
const PREFIX: &str = "WATCHBOOK_";
const SEPARATOR: &str = "__";

impl Sources {
    /// Reads the file at `path`, or `watchbook.toml` in the working directory if it exists, and the environment of this
    /// process.
    ///
    /// # Errors
    /// If the file cannot be read, or `path` is given and does not exist.
    pub fn of_process(path: Option<&Path>) -> Result<Self, ConfigError> {
        let default = Path::new("watchbook.toml");
        let file = match path {
            Some(path) => Some(path),
            None => default.exists().then_some(default),
        };
        let file = match file {
            Some(path) => match std::fs::read_to_string(path) {
                Ok(text) => Some((path.to_owned(), text)),
                Err(error) => return Err(format!("{}: cannot be read: {error}", path.display()).into()),
            },
            None => None,
        };
        Ok(Self {
            file,
            environment: std::env::vars_os()
                .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
                .collect(),
        })
    }

    /// Loads the settings and checks them, each by itself and together.
    ///
    /// # Errors
    /// Every problem with file and line, or with the variable that caused it.
    pub fn load(&self) -> Result<Config, ConfigError> {
        self.load_checked(|_| Vec::new())
    }

    /// Loads the settings as [`Sources::load`] does, and checks them further with `check`. It returns each problem as a
    /// key, such as `rules.3.threshold` for the fourth rule, and a text for people.
    ///
    /// # Errors
    /// Every problem with file and line, or with the variable that caused it.
    pub fn load_checked(&self, check: impl Fn(&Config) -> Vec<(String, String)>) -> Result<Config, ConfigError> {
        let mut table = Table::new();
        if let Some((path, text)) = &self.file {
            toml::from_str::<Config>(text).map_err(|error| at(path, text, error.span(), error.message()))?;
            table = toml::from_str(text).map_err(|error| at(path, text, error.span(), error.message()))?;
        }
        let mut overridden = Vec::new();
        for (name, value) in &self.environment {
            if let Some(key) = key_of(name) {
                table = override_key(table, &key, value).map_err(|problem| format!("{name}: {problem}"))?;
                overridden.push((key, name));
            }
        }
        let config = Config::deserialize(table).map_err(|error| error.to_string())?;
        let own = config.problems().into_iter().map(|(key, problem)| (key.to_owned(), problem));
        let own = own.chain(config.streams.problems(&config.retention.keep));
        let problems: Vec<_> =
            own.chain(check(&config)).map(|(key, problem)| self.place(&key, &problem, &overridden)).collect();
        if problems.is_empty() { Ok(config) } else { Err(ConfigError { problems }) }
    }

    /// Prefixes a problem with the variable, or the file and line, that set its key.
    fn place(&self, key: &str, problem: &str, overridden: &[(Vec<String>, &String)]) -> String {
        if let Some((_, name)) = overridden.iter().find(|(path, _)| path.join(".") == key) {
            return format!("{name}: {problem}");
        }
        match &self.file {
            Some((path, text)) => match line_of(text, key) {
                Some(line) => format!("{}:{line}: {key}: {problem}", path.display()),
                None => format!("{}: {key}: {problem}", path.display()),
            },
            None => format!("{key}: {problem}"),
        }
    }
}

/// Returns the path of the key that a variable overrides; `None` for a variable that is not a setting. Variables with
/// the prefix `WATCHBOOK_` but without `__` are ignored.
fn key_of(name: &str) -> Option<Vec<String>> {
    if let Some((_, key)) = NAMED_VARIABLES.iter().find(|(variable, _)| *variable == name) {
        return Some(key.iter().map(|part| (*part).to_owned()).collect());
    }
    let key = name.strip_prefix(PREFIX)?;
    key.contains(SEPARATOR).then(|| key.split(SEPARATOR).map(str::to_ascii_lowercase).collect())
}

/// Returns the table with one key set. A variable has no type, so its value is taken as text if the key accepts text,
/// and otherwise as a TOML literal (`2`, `true`, `["a"]`).
fn override_key(table: Table, key: &[String], text: &str) -> Result<Table, String> {
    let literal = toml::from_str::<Table>(&format!("value = {text}")).ok().and_then(|mut table| table.remove("value"));
    let mut problem = String::new();
    for value in [Some(Value::String(text.to_owned())), literal].into_iter().flatten() {
        let mut candidate = table.clone();
        set(&mut candidate, key, value)?;
        match Config::deserialize(candidate.clone()) {
            Ok(_) => return Ok(candidate),
            Err(error) => problem = error.message().to_owned(),
        }
    }
    Err(problem)
}

fn set(table: &mut Table, key: &[String], value: Value) -> Result<(), String> {
    let [section @ .., last] = key else { return Err("names no key".to_owned()) };
    let mut place = table;
    for part in section {
        place = match place.entry(part.clone()).or_insert_with(|| Value::Table(Table::new())) {
            Value::Table(table) => table,
            _ => return Err(format!("`{part}` has no keys of its own")),
        };
    }
    place.insert(last.clone(), value);
    Ok(())
}

fn at(path: &Path, text: &str, span: Option<std::ops::Range<usize>>, message: &str) -> ConfigError {
    let line = span.and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
    match line {
        Some(line) => format!("{}:{line}: {message}", path.display()).into(),
        None => format!("{}: {message}", path.display()).into(),
    }
}

/// Returns the line of a key, found by walking the parsed document; if the key is absent, the line of the innermost
/// table on its path. `rules.3.threshold` is in the fourth table of `rules`.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut place: Option<&DeValue<'_>> = None;
    let mut offset = None;
    for part in key.split('.') {
        let found = match place {
            None => member(document.get_ref(), part),
            Some(DeValue::Table(table)) => member(table, part),
            Some(DeValue::Array(values)) => {
                part.parse().ok().and_then(|number: usize| values.get(number)).map(|v| (v.span().start, v.get_ref()))
            }
            Some(_) => None,
        };
        let Some((start, value)) = found else { break };
        offset = Some(start);
        place = Some(value);
    }
    Some(text.get(..offset?)?.matches('\n').count() + 1)
}

/// Returns the offset and the value of a table's member.
fn member<'t>(table: &'t DeTable<'t>, name: &str) -> Option<(usize, &'t DeValue<'t>)> {
    table.iter().find(|(key, _)| key.get_ref() == name).map(|(key, value)| (key.span().start, value.get_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let sources = Sources {
            file: Some((PathBuf::from("watchbook.toml"), text.to_owned())),
            environment: environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        sources.load().map_err(|error| error.to_string())
    }

    #[test]
    fn problems_name_file_and_line() {
        for (text, environment, problem) in [
            ("[nats]\nulr = \"x\"", vec![], "watchbook.toml:2: unknown field `ulr`"),
            ("\n[natz]\n", vec![], "watchbook.toml:2: unknown field `natz`"),
            ("[writer]\n\nlanes = 0", vec![], "watchbook.toml:3: invalid value"),
            ("[writer]\nlinger = \"5m\"", vec![], "watchbook.toml:2: writer.linger: at most 1s"),
            ("[retention]\nkeep = { events = \"1h\" }", vec![], "below one day"),
            ("[nats]\nprefix = \"a b\"", vec![], "watchbook.toml:2: nats.prefix: expected tokens"),
            (
                "[streams]\nreplay_window = \"29d\"",
                vec![],
                "watchbook.toml:2: streams.replay_window: longer than `max_bytes`",
            ),
            (
                "[streams]\nreplay_window = \"31d\"\nmax_bytes = \"10GiB\"",
                vec![],
                "watchbook.toml:2: streams.replay_window: longer than the time in [retention] keep",
            ),
            ("[streams.lgs]\nmax_bytes = \"1GiB\"", vec![], "watchbook.toml:1: unknown field `lgs`"),
            ("[streams.logs]\n\nreplicas = 3", vec![], "watchbook.toml:3: unknown field `replicas`"),
            (
                "[streams.logs]\nmax_bytes = \"1MiB\"",
                vec![],
                "watchbook.toml:2: streams.logs.max_bytes: at least 16 MiB",
            ),
            (
                "[streams]\nreplay_window = \"10h\"\n[streams.logs]\nmax_bytes = \"16MiB\"",
                vec![],
                "watchbook.toml:4: streams.logs.max_bytes: cannot hold `replay_window` (10h)",
            ),
            (
                "[streams]\nmax_bytes = \"64MiB\"",
                vec![("WATCHBOOK_STREAMS__LOGS__REPLAY_WINDOW", "20d")],
                "WATCHBOOK_STREAMS__LOGS__REPLAY_WINDOW: longer than `max_bytes`",
            ),
            (
                "",
                vec![("WATCHBOOK_STREAMS__LGS__MAX_BYTES", "1GiB")],
                "WATCHBOOK_STREAMS__LGS__MAX_BYTES: unknown field `lgs`",
            ),
            ("[alerts]\ndebounce = \"1s\"", vec![], "watchbook.toml:2: alerts.debounce: longer than"),
            ("[health]\ndegraded_above = 3", vec![], "watchbook.toml:2: invalid type"),
            ("[health]\ndegraded_above = \"40%\"", vec![], "watchbook.toml:2: health.degraded_above: above"),
            ("[health]\nmin_samples = 0", vec![], "watchbook.toml:2: health.min_samples: at least 1"),
            ("[health]\nfailing_above = \"much\"", vec![], "watchbook.toml:2: expected a share"),
            (
                "[[receivers]]\nname = \"x\"\nwebhook = { urll = \"y\" }",
                vec![],
                "watchbook.toml:3: unknown field `urll`",
            ),
            ("[[rules]]\nname = \"x\"\nsource = \"y\"\nfoo = 1", vec![], "watchbook.toml:4: unknown field `foo`"),
            (
                "[nats]\njetstream_domain = \"hub\"\njetstream_api_prefix = \"JS.hub.API\"",
                vec![],
                "watchbook.toml:3: nats.jetstream_api_prefix: set it or `jetstream_domain`, not both",
            ),
            (
                "[nats]\njetstream_domain = \"hub\"",
                vec![("WATCHBOOK_NATS__JETSTREAM_API_PREFIX", "JS.hub.API")],
                "WATCHBOOK_NATS__JETSTREAM_API_PREFIX: set it or `jetstream_domain`",
            ),
            ("[nats]\njetstream_domain = \"a.b\"", vec![], "watchbook.toml:2: nats.jetstream_domain: expected"),
            ("", vec![("WATCHBOOK_NATS__JETSTREAM_DOMAIN", "")], "WATCHBOOK_NATS__JETSTREAM_DOMAIN: expected"),
            (
                "[nats]\njetstream_api_prefix = \"JS.>\"",
                vec![],
                "watchbook.toml:2: nats.jetstream_api_prefix: expected",
            ),
            ("[nats]\njetstream_api_prefix = \"JS..API\"", vec![], "nats.jetstream_api_prefix: expected"),
            ("x = ", vec![], "watchbook.toml:1:"),
            ("", vec![("WATCHBOOK_WRITER__LAMES", "2")], "WATCHBOOK_WRITER__LAMES: unknown field `lames`"),
            ("", vec![("WATCHBOOK_WRITER__LANES", "many")], "WATCHBOOK_WRITER__LANES: invalid type"),
            ("", vec![("WATCHBOOK_STREAMS__REPLICAS", "2")], "WATCHBOOK_STREAMS__REPLICAS: 1, 3 or 5"),
            ("", vec![("WATCHBOOK_HTTP_ADDR", "here")], "WATCHBOOK_HTTP_ADDR: expected an address"),
            ("", vec![("WATCHBOOK_JWT_SECRET", "short")], "WATCHBOOK_JWT_SECRET: at least 32 bytes"),
        ] {
            let error = load(text, &environment).expect_err(text);
            assert!(error.contains(problem), "{text:?} {environment:?}: {error}");
        }
    }

    #[test]
    fn further_problems_are_placed_in_tables_of_tables() {
        let text = "# rules\n\n[[rules]]\nname = \"a\"\nsource = \"x\"\n\n[[rules]]\nname = \"b\"\nsource = \"y\"\n\
                    threshold = \"1\"\n[[receivers]]\nname = \"r\"\nslack = { url_env = \"X\" }\n";
        for (key, line) in [
            ("rules.0.source", 5),
            ("rules.1.threshold", 10),
            // An absent key is reported at its table.
            ("rules.0.threshold", 3),
            ("rules.1.window", 7),
            ("receivers.0.slack.url_env", 13),
            ("receivers.0.slack.url", 13),
            ("rules.0.name.0", 4),
        ] {
            let sources = Sources { file: Some(("f.toml".into(), text.to_owned())), environment: Vec::new() };
            let error = sources.load_checked(|_| vec![(key.to_owned(), "wrong".to_owned())]).unwrap_err().to_string();
            assert_eq!(error, format!("f.toml:{line}: {key}: wrong"));
        }
        assert_eq!(line_of(text, "routes.0.to"), None);
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let config = load(
            "[nats]\nurl = \"nats://file\"\n[writer]\nlanes = 3",
            &[
                ("NATS_URL", "nats://environment"),
                ("WATCHBOOK_WRITER__LANES", "4"),
                ("WATCHBOOK_RETENTION__KEEP__EVENTS", "7d"),
                ("WATCHBOOK_NATS__PREFIX", "7"),
                ("WATCHBOOK_STREAMS__MAX_BYTES", "64MiB"),
                ("WATCHBOOK_STREAMS__LOGS__MAX_BYTES", "4GiB"),
                ("WATCHBOOK_HTTP_ADDR", "off"),
                ("WATCHBOOK_UNRELATED", "ignored"),
            ],
        )
        .unwrap();
        assert_eq!(config.nats.url.as_deref(), Some("nats://environment"));
        assert_eq!(config.nats.prefix, "7");
        assert_eq!(config.writer.lanes.get(), 4);
        assert_eq!(config.retention.keep.events.to_string(), "7d");
        assert_eq!(config.streams.max_bytes("audit").as_u64(), 64 << 20);
        assert_eq!(config.streams.max_bytes("logs").as_u64(), 4 << 30);
        assert_eq!(config.http.address, super::super::HttpAddress::Off);
    }

    #[test]
    fn the_api_of_jetstream_is_that_of_its_domain_or_prefix() {
        for (text, prefix) in [
            ("", "$JS.API"),
            ("jetstream_domain = \"hub\"", "$JS.hub.API"),
            ("jetstream_api_prefix = \"JS.hub.API\"", "JS.hub.API"),
            ("jetstream_api_prefix = \"JS.hub.API.\"", "JS.hub.API"),
        ] {
            assert_eq!(load(&format!("[nats]\n{text}"), &[]).unwrap().nats.api_prefix(), prefix, "{text}");
        }
    }

    #[test]
    fn shown_settings_hide_secrets_and_load_again() {
        let secret = "0123456789abcdef0123456789abcdef";
        let config = load(
            "[nats]\nurl = \"nats://me:hunter2@host\"\n[[receivers]]\nname = \"x\"\nslack = { url = \"https://a/hunter2\" }",
            &[("DATABASE_URL", "postgres://me:hunter2@host/db"), ("WATCHBOOK_JWT_SECRET", secret)],
        )
        .unwrap();
        let shown = config.to_toml().unwrap();
        assert!(!shown.contains("hunter2") && !shown.contains(secret), "{shown}");
        assert!(shown.contains("me:***@host"), "{shown}");
        let again: Result<Config, _> = toml::from_str(&shown);
        assert!(again.is_ok(), "{shown}\n{again:?}");
    }
}
