//! What each setting of a stream means for Watchbook: harmless, worth naming, or a reason not to start.
//!
//! The server's own JSON is compared, and not the client's type, which drops settings that it does not know. The table
//! holds every field of `StreamConfig` in nats-server 2.15; a setting of a later server that is in use is named.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::stream::FORGET_READER_AFTER;

/// A stream's configuration, as the server writes it.
pub(crate) type Settings = Map<String, Value>;

/// A setting of a stream that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The setting's name in the stream's configuration, such as `max_bytes`.
    pub setting: String,
    /// Its value.
    pub is: String,
    /// The value that it must have.
    pub wanted: String,
    /// Whether records can be lost, or none can be stored. Other differences only need to be known.
    pub dangerous: bool,
    /// What the value leads to.
    pub consequence: &'static str,
    /// How it is mended.
    pub mend: Mend,
}

/// Settings that are in our own configuration as well.
const SET_BY_US: [&str; 2] = ["max_bytes", "num_replicas"];

/// How a difference is mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend {
    /// nats-server changes the setting of a stream that exists.
    Update,
    /// nats-server refuses the change; another stream has to take the place of this one.
    Recreate,
    /// This build does not know the setting, and leaves it alone.
    Unknown,
}

impl Difference {
    /// What to do about it, as an instruction.
    pub fn mend(&self, stream: &str) -> String {
        match self.mend {
            Mend::Update if SET_BY_US.contains(&self.setting.as_str()) => {
                "run `watchbook setup --update`, or set [streams] to what it is".to_owned()
            }
            Mend::Update => "run `watchbook setup --update`".to_owned(),
            Mend::Recreate => format!(
                "nats-server cannot change it: once `watchbook status` shows nothing pending, replace the stream with `nats stream rm {stream}` and `watchbook setup`; producers see errors in between"
            ),
            Mend::Unknown => {
                format!("unset it with `nats stream edit {stream}`, or use a build of Watchbook that knows it")
            }
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, expected {} ({})", self.setting, self.is, self.wanted, self.consequence)
    }
}

/// What values of a setting are accepted.
enum Accepted {
    /// Every value.
    Any,
    /// None: the setting has to be absent, false, zero, or empty.
    Unset,
    /// The value that Watchbook creates the stream with.
    Wanted,
    /// Values for which this holds, given the value that Watchbook creates the stream with.
    Those(fn(&Value, &Value) -> bool),
}

/// One row of the table.
struct Setting {
    name: &'static str,
    accepted: Accepted,
    dangerous: bool,
    mend: Mend,
    consequence: &'static str,
}

/// A setting that changes nothing for Watchbook, and why.
const fn harmless(name: &'static str, why: &'static str) -> Setting {
    Setting { name, accepted: Accepted::Any, dangerous: false, mend: Mend::Update, consequence: why }
}

/// A setting that an operator has to know about when it is not as expected, and what it leads to.
const fn named(name: &'static str, accepted: Accepted, mend: Mend, consequence: &'static str) -> Setting {
    Setting { name, accepted, dangerous: false, mend, consequence }
}

/// A setting with which records can be lost or cannot be stored: `run` does not start.
const fn refused(name: &'static str, accepted: Accepted, mend: Mend, consequence: &'static str) -> Setting {
    Setting { name, accepted, dangerous: true, mend, consequence }
}

/// Every setting, in the order of the server's `StreamConfig`. Which changes the server refuses is in its
/// `configUpdateCheck` (server/stream.go).
const SETTINGS: &[Setting] = {
    use Accepted::{Those, Unset, Wanted};
    use Mend::{Recreate, Update};
    &[
        harmless("name", "it is how the stream was found"),
        harmless("description", "text"),
        // More subjects than ours are the operator's choice: records that are not of this kind become dead letters.
        refused("subjects", Those(holds_all), Update, "records on a subject that no stream takes are lost"),
        refused("retention", Wanted, Update, "records are removed that are not written yet"),
        named("max_consumers", Unset, Update, "readers are refused beyond that many"),
        named("max_msgs", Unset, Update, "publishes are refused beyond that many records"),
        named("max_bytes", Wanted, Update, "publishes are refused beyond that many bytes"),
        refused("max_age", Unset, Update, "records expire that are not written yet"),
        refused("max_msgs_per_subject", Unset, Update, "a record removes an older one that is not written yet"),
        named("max_msg_size", Wanted, Update, "larger records are refused"),
        refused("discard", Wanted, Update, "a full stream removes records that are not written yet"),
        refused("storage", Wanted, Recreate, "a restart of the server loses records"),
        named("num_replicas", Wanted, Update, "so many servers hold each record"),
        refused("no_ack", Unset, Update, "a producer cannot tell a refused publish from a stored one"),
        harmless("template_owner", "a name; servers since 2.12 have no templates"),
        harmless("duplicate_window", "it only concerns producers that set `Nats-Msg-Id`"),
        harmless("placement", "where the stream lives does not matter here"),
        refused("mirror", Unset, Update, "a mirror takes no publishes"),
        named(
            "sources",
            Unset,
            Update,
            "records are copied from streams whose producers are not told when this one is full",
        ),
        harmless("compression", "it is transparent to readers"),
        harmless("first_seq", "the sequences before it count as deleted"),
        named(
            "subject_transform",
            Unset,
            Update,
            "records are stored under another subject than they were published on, and the subject decides whose they are",
        ),
        named("republish", Unset, Update, "whoever may subscribe to the destination reads every record"),
        harmless("allow_direct", "Watchbook asks the leader; NATS permissions say who else may read"),
        harmless("mirror_direct", "it only concerns mirrors"),
        named("discard_new_per_subject", Unset, Update, "publishes on one subject are refused while others are taken"),
        named("sealed", Unset, Recreate, "the stream takes no records any more, and none can be trimmed"),
        harmless("deny_delete", "Watchbook deletes no single message"),
        named(
            "deny_purge",
            Unset,
            Recreate,
            "written records cannot be trimmed, and a full stream refuses every publish",
        ),
        refused(
            "allow_rollup_hdrs",
            Unset,
            Update,
            "one message with `Nats-Rollup` purges records that are not written yet",
        ),
        refused(
            "consumer_limits",
            Those(allows_our_reader),
            Update,
            "the reader of the workers is refused: its inactive_threshold is 60 s",
        ),
        refused("allow_msg_ttl", Unset, Recreate, "a record with `Nats-TTL` expires, written or not"),
        refused(
            "subject_delete_marker_ttl",
            Unset,
            Update,
            "it switches on `Nats-TTL` and `Nats-Rollup`, with which records are removed that are not written yet",
        ),
        harmless("metadata", "text"),
        named("allow_atomic", Wanted, Update, "producers cannot publish in atomic batches"),
        refused("allow_msg_counter", Unset, Recreate, "a stream of counters refuses records"),
        refused(
            "allow_msg_schedules",
            Unset,
            Recreate,
            "a record with `Nats-Schedule` is removed and published again by the server",
        ),
        refused("persist_mode", Unset, Recreate, "records are acknowledged before they are stored"),
        harmless("allow_batched", "each message of a batch is a record as any other"),
        harmless("pause_until", "a setting of consumers, which the client's type has on streams"),
    ]
};

/// What differs between a stream and what it must be.
pub(crate) fn differences(is: &Settings, wanted: &Settings) -> Vec<Difference> {
    let known = SETTINGS.iter().filter_map(|setting| {
        let (value, expected) = (value_of(is, setting.name), value_of(wanted, setting.name));
        let accepted = match setting.accepted {
            Accepted::Any => true,
            Accepted::Unset => is_unset(value),
            Accepted::Wanted => value == expected || is_unset(value) && is_unset(expected),
            Accepted::Those(holds) => holds(value, expected),
        };
        (!accepted).then(|| Difference {
            setting: setting.name.to_owned(),
            is: shown(setting.name, value),
            wanted: shown(setting.name, expected),
            dangerous: setting.dangerous,
            consequence: setting.consequence,
            // The one value of a setting that makes a difference: nats-server changes `interest` to `limits`.
            mend: if value == "workqueue" { Mend::Recreate } else { setting.mend },
        })
    });
    let is_unknown = |name: &str| SETTINGS.iter().all(|setting| setting.name != name);
    let unknown =
        is.iter().filter(|(name, value)| is_unknown(name) && !is_unset(value)).map(|(name, value)| Difference {
            setting: name.clone(),
            is: shown(name, value),
            wanted: shown(name, &Value::Null),
            dangerous: false,
            consequence: "this build does not know what it does",
            mend: Mend::Unknown,
        });
    known.chain(unknown).collect()
}

/// The settings of a stream with these differences mended, and everything else left as it is.
pub(crate) fn mended(is: &Settings, wanted: &Settings, differences: &[Difference]) -> Settings {
    let mut settings = is.clone();
    for Difference { setting, .. } in differences {
        let value = match (setting.as_str(), value_of(is, setting), value_of(wanted, setting)) {
            ("subjects", Value::Array(is), Value::Array(wanted)) => {
                let missing = wanted.iter().filter(|subject| !is.contains(subject));
                Value::Array(is.iter().chain(missing).cloned().collect())
            }
            (_, _, wanted) => wanted.clone(),
        };
        if is_unset(&value) {
            // The server fills in what unset means: -1, false, or nothing.
            settings.remove(setting);
        } else {
            settings.insert(setting.clone(), value);
        }
    }
    settings
}

fn value_of<'s>(settings: &'s Settings, name: &str) -> &'s Value {
    settings.get(name).unwrap_or(&Value::Null)
}

/// Whether a value means the same as none. For limits -1 and 0 both mean unlimited.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64().is_some_and(|number| number <= 0.0),
        Value::String(text) => text.is_empty() || text == "default",
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.values().all(is_unset),
    }
}

fn holds_all(is: &Value, wanted: &Value) -> bool {
    let holds = |wanted: &Value| is.as_array().is_some_and(|is| is.contains(wanted));
    wanted.as_array().is_some_and(|wanted| wanted.iter().all(holds))
}

fn allows_our_reader(is: &Value, _: &Value) -> bool {
    let limit = is.get("inactive_threshold").and_then(Value::as_u64).map(Duration::from_nanos);
    limit.is_none_or(|limit| limit.is_zero() || limit >= FORGET_READER_AFTER)
}

/// Of a value that is an object; what it is for is in its beginning.
const SHOWN_CHARACTERS: usize = 200;

fn shown(name: &str, value: &Value) -> String {
    match (name, value) {
        ("max_age" | "subject_delete_marker_ttl", Value::Number(ns)) if !is_unset(value) => {
            format!("{:?}", Duration::from_nanos(ns.as_u64().unwrap_or_default()))
        }
        (_, Value::Bool(set)) => set.to_string(),
        (_, value) if is_unset(value) => {
            let flag =
                ["allow_", "deny_", "no_ack", "sealed", "discard_new"].iter().any(|start| name.starts_with(start));
            let nothing = if name.starts_with("max_") {
                "unlimited"
            } else if flag {
                "false"
            } else {
                "unset"
            };
            nothing.to_owned()
        }
        (_, Value::String(text)) => text.clone(),
        (_, Value::Array(values)) if values.iter().all(Value::is_string) => {
            values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
        }
        (_, value) => value.to_string().chars().take(SHOWN_CHARACTERS).collect(),
    }
}

#[cfg(test)]
mod tests;
