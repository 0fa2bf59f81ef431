//! Classifies every setting of a stream: harmless, reported, or a reason not to start.
//!
//! The server's own JSON is compared, because the client's type drops settings that it does not know. The table has
//! every field of `StreamConfig` in nats-server 2.15. A setting of a later server is reported if it is in use.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::stream::FORGET_READER_AFTER;

/// A stream's configuration as the server's JSON.
pub(crate) type Settings = Map<String, Value>;

/// A setting of a stream that differs from the expected value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The setting's name in the stream's configuration, such as `max_bytes`.
    pub setting: String,
    /// The current value.
    pub is: String,
    /// The expected value.
    pub wanted: String,
    /// Whether records can be lost or cannot be stored. Other differences are only reported.
    pub dangerous: bool,
    /// The consequence of the value.
    pub consequence: &'static str,
    /// How to fix it.
    pub mend: Mend,
}

/// Settings that are also in Watchbook's configuration.
const SET_BY_US: [&str; 2] = ["max_bytes", "num_replicas"];

/// How to fix a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend {
    /// nats-server can change the setting of an existing stream.
    Update,
    /// nats-server refuses the change; the stream must be recreated.
    Recreate,
    /// This build does not know the setting and does not change it.
    Unknown,
}

impl Difference {
    /// Returns the fix as an instruction.
    pub fn mend(&self, stream: &str) -> String {
        match self.mend {
            Mend::Update if SET_BY_US.contains(&self.setting.as_str()) => {
                "run `watchbook setup --update`, or set the stream's value in [streams]".to_owned()
            }
            Mend::Update => "run `watchbook setup --update`".to_owned(),
            Mend::Recreate => format!(
                "nats-server cannot change it: once `watchbook status` shows nothing pending, recreate the stream with `nats stream rm {stream}` and `watchbook setup`; producers get errors until then"
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

/// The accepted values of a setting.
enum Accepted {
    /// Every value.
    Any,
    /// No value: the setting must be absent, false, zero, or empty.
    Unset,
    /// The value with which Watchbook creates the stream.
    Wanted,
    /// Values for which the function returns `true`. Its second argument is the value with which Watchbook creates the
    /// stream.
    Those(fn(&Value, &Value) -> bool),
}

/// A row of the table.
struct Setting {
    name: &'static str,
    accepted: Accepted,
    dangerous: bool,
    mend: Mend,
    consequence: &'static str,
}

/// Returns a setting that does not affect Watchbook, with the reason.
const fn harmless(name: &'static str, why: &'static str) -> Setting {
    Setting { name, accepted: Accepted::Any, dangerous: false, mend: Mend::Update, consequence: why }
}

/// Returns a setting that is reported if it differs, with the consequence.
const fn named(name: &'static str, accepted: Accepted, mend: Mend, consequence: &'static str) -> Setting {
    Setting { name, accepted, dangerous: false, mend, consequence }
}

/// Returns a setting with which records can be lost or cannot be stored: if it differs, `run` does not start.
const fn refused(name: &'static str, accepted: Accepted, mend: Mend, consequence: &'static str) -> Setting {
    Setting { name, accepted, dangerous: true, mend, consequence }
}

/// All settings, in the order of the server's `StreamConfig`. The server's `configUpdateCheck` (server/stream.go) lists
/// the changes that it refuses.
const SETTINGS: &[Setting] = {
    use Accepted::{Those, Unset, Wanted};
    use Mend::{Recreate, Update};
    &[
        harmless("name", "the stream is looked up by its name"),
        harmless("description", "free text"),
        // The operator may add subjects: records that are not of this kind become dead letters.
        refused("subjects", Those(holds_all), Update, "records on a subject without a stream are lost"),
        refused("retention", Wanted, Update, "records are removed before they are written"),
        named("max_consumers", Unset, Update, "further readers are refused"),
        named("max_msgs", Unset, Update, "further publishes are refused once the stream has that many records"),
        named("max_bytes", Wanted, Update, "further publishes are refused once the stream has that many bytes"),
        refused("max_age", Unset, Update, "records expire before they are written"),
        refused("max_msgs_per_subject", Unset, Update, "a record replaces an older one before that is written"),
        named("max_msg_size", Wanted, Update, "larger records are refused"),
        refused("discard", Wanted, Update, "a full stream removes records before they are written"),
        refused("storage", Wanted, Recreate, "a restart of the server loses records"),
        named("num_replicas", Wanted, Update, "each record is stored on that many servers"),
        refused("no_ack", Unset, Update, "a producer cannot distinguish a refused publish from a stored one"),
        harmless("template_owner", "only a name; servers since 2.12 have no templates"),
        harmless("duplicate_window", "it only affects producers that set `Nats-Msg-Id`"),
        harmless("placement", "Watchbook works with any placement"),
        refused("mirror", Unset, Update, "a mirror accepts no publishes"),
        named(
            "sources",
            Unset,
            Update,
            "records are copied from other streams, whose producers get no error when this stream is full",
        ),
        harmless("compression", "compression is transparent to readers"),
        harmless("first_seq", "sequences before it count as deleted"),
        named(
            "subject_transform",
            Unset,
            Update,
            "records are stored under another subject than the one they were published on, and the subject decides their organization",
        ),
        named("republish", Unset, Update, "everyone who may subscribe to the destination can read every record"),
        harmless("allow_direct", "Watchbook reads from the leader; NATS permissions control other readers"),
        harmless("mirror_direct", "it only affects mirrors"),
        named(
            "discard_new_per_subject",
            Unset,
            Update,
            "publishes on a full subject are refused while other subjects still accept them",
        ),
        named("sealed", Unset, Recreate, "the stream accepts no more records, and written ones cannot be purged"),
        harmless("deny_delete", "Watchbook never deletes single messages"),
        named(
            "deny_purge",
            Unset,
            Recreate,
            "written records cannot be purged, and a full stream refuses every publish",
        ),
        refused(
            "allow_rollup_hdrs",
            Unset,
            Update,
            "a message with `Nats-Rollup` purges records before they are written",
        ),
        refused(
            "consumer_limits",
            Those(allows_our_reader),
            Update,
            "the workers' reader is refused: its inactive_threshold is 60 s",
        ),
        refused("allow_msg_ttl", Unset, Recreate, "a record with `Nats-TTL` may expire before it is written"),
        refused(
            "subject_delete_marker_ttl",
            Unset,
            Update,
            "it enables `Nats-TTL` and `Nats-Rollup`, which can remove records before they are written",
        ),
        harmless("metadata", "free text"),
        named("allow_atomic", Wanted, Update, "producers cannot publish in atomic batches"),
        refused("allow_msg_counter", Unset, Recreate, "a counter stream refuses records"),
        refused(
            "allow_msg_schedules",
            Unset,
            Recreate,
            "the server removes a record with `Nats-Schedule` and publishes it again",
        ),
        refused("persist_mode", Unset, Recreate, "records are acknowledged before they are stored"),
        harmless("allow_batched", "the messages of a batch are ordinary records"),
        harmless("pause_until", "a consumer setting that the client's type also has for streams"),
    ]
};

/// Returns the differences between a stream and its expected settings.
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
            // nats-server can change `interest` to `limits`, but not `workqueue`.
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
            consequence: "this build does not know the setting",
            mend: Mend::Unknown,
        });
    known.chain(unknown).collect()
}

/// Returns the settings of a stream with these differences fixed and everything else unchanged.
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
            // The server fills in its own value for unset: -1, false, or nothing.
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

/// Returns whether a value means "unset". For limits, -1 and 0 both mean unlimited.
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

/// Characters of an object that are shown; the beginning is enough to recognize it.
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
