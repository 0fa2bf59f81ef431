//! Determines which of the eight checks a rule uses, and which keys the check allows.

use runtime::config::Rule as Written;

use super::rules::Checked;

/// The check that a rule uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Ratio,
    Count,
    Rate,
    Level,
    Silence,
    FirstSeen,
    Spike,
    Lag,
}

impl Form {
    /// Determines the check by the key that only it has, or by the form of the threshold.
    pub(super) fn of(written: &Written) -> Self {
        let threshold = written.threshold.as_deref().unwrap_or_default().trim();
        if written.source == "ingest" {
            Self::Lag
        } else if written.silent_for.is_some() {
            Self::Silence
        } else if written.first_seen {
            Self::FirstSeen
        } else if written.compared_with.is_some() {
            Self::Spike
        } else if written.value.is_some() {
            Self::Level
        } else if written.failed_when.is_some() || threshold.ends_with('%') {
            Self::Ratio
        } else if threshold.contains('/') {
            Self::Rate
        } else {
            Self::Count
        }
    }

    /// Checks whether a key applies to this check. Keys that apply to every check are not looked up here.
    pub(super) fn allows(self, key: &str) -> bool {
        let keys: &[&str] = match self {
            Self::Ratio => &["failed_when", "where", "group_by", "window", "threshold", "recover_below", "min_samples"],
            Self::Count | Self::Rate => &["where", "group_by", "window", "threshold", "recover_below"],
            Self::Level => &["value", "where", "group_by", "window", "threshold", "recover_below", "min_samples"],
            Self::Silence => &["silent_for", "where", "group_by"],
            Self::FirstSeen => &["first_seen", "forget_after", "where", "group_by", "window"],
            Self::Spike => {
                &["compared_with", "where", "group_by", "window", "threshold", "recover_below", "min_samples"]
            }
            Self::Lag => &["threshold", "recover_below"],
        };
        keys.contains(&key)
    }

    const fn in_words(self) -> &'static str {
        match self {
            Self::Ratio => "a rule on a share",
            Self::Count => "a rule on a count",
            Self::Rate => "a rule on a rate",
            Self::Level => "a rule on a level (`value`)",
            Self::Silence => "a rule on silence (`silent_for`)",
            Self::FirstSeen => "a rule on first-seen values (`first_seen`)",
            Self::Spike => "a rule on a spike (`compared_with`)",
            Self::Lag => "a rule on `ingest`",
        }
    }

    /// Reports keys that do not apply. Ignored silently, they would be a mistake that nobody notices.
    pub(super) fn refuse_other_keys(self, checked: &mut Checked<'_>) {
        let written = checked.written;
        for (key, is_set) in [
            ("failed_when", written.failed_when.is_some()),
            ("value", written.value.is_some()),
            ("silent_for", written.silent_for.is_some()),
            ("first_seen", written.first_seen),
            ("forget_after", written.forget_after.is_some()),
            ("compared_with", written.compared_with.is_some()),
            ("where", !written.filter.is_empty()),
            ("group_by", !written.group_by.is_empty()),
            ("window", written.window.is_some()),
            ("threshold", written.threshold.is_some()),
            ("min_samples", written.min_samples.is_some()),
            ("recover_below", written.recover_below.is_some()),
        ] {
            if is_set && !self.allows(key) {
                checked.problem(key, format!("`{key}` means nothing to {}", self.in_words()));
            }
        }
    }
}
