//! Checks thresholds: each can be crossed, and each can be recovered from.

use std::time::Duration;

use bytesize::ByteSize;
use chrono::TimeDelta;
use records::Kind;
use runtime::config::Ratio;

use super::checks::Form;
use super::rules::Checked;
use crate::labels;
use crate::rate::Rate;
use crate::rule::{Aggregate, Check, FailedWhen, Source};

const MIN_SAMPLES: u64 = 10;
const MIN_SAMPLES_OF_SPIKE: u64 = 20;
const MIN_SAMPLES_OF_LEVEL: u64 = 1;
/// The default of `forget_after`.
const FORGET_AFTER: Duration = Duration::from_secs(30 * DAY);
const DAY: u64 = 24 * 60 * 60;
/// The longest `compared_with`: older roll-ups are not kept.
const LONGEST_COMPARISON: Duration = Duration::from_secs(30 * DAY);
const LONGEST_MEMORY: Duration = Duration::from_secs(366 * DAY);

/// Returns the check of a rule, or `None` after reporting a problem.
pub(super) fn check(checked: &mut Checked<'_>, source: Source, form: Form) -> Option<Check> {
    let kind = match (source, form) {
        (Source::Ingest, _) => return lag(checked),
        (Source::Records(kind), _) => kind,
    };
    match form {
        Form::Ratio => ratio(checked, kind),
        Form::Count => count(checked),
        Form::Rate => rate(checked),
        Form::Level => level(checked, kind),
        Form::Silence => {
            let after = checked.written.silent_for.and_then(|after| checked.minutes("silent_for", after))?;
            Some(Check::Silence { after })
        }
        Form::FirstSeen => first_seen(checked),
        Form::Spike => spike(checked),
        Form::Lag => None,
    }
}

fn ratio(checked: &mut Checked<'_>, kind: Kind) -> Option<Check> {
    let failed_when = match &checked.written.failed_when {
        Some(text) => FailedWhen::parse(kind, text).map_err(|problem| checked.problem("failed_when", problem)).ok(),
        None => {
            checked.problem("failed_when", "missing: a share needs to know what failed, such as `success == false`");
            None
        }
    };
    let threshold: Option<Ratio> = threshold(checked, "a share such as \"30%\"");
    if threshold.is_some_and(|threshold| threshold >= Ratio::percent(100)) {
        checked.problem("threshold", "never reached: it fires strictly above, and no share is above 100 %");
    }
    let recover_below = recover_below(checked, threshold, five_sixths, |recover, threshold| recover > threshold);
    let min_samples = min_samples(checked, MIN_SAMPLES);
    Some(Check::Ratio {
        failed_when: failed_when?,
        threshold: threshold?,
        recover_below: recover_below?,
        min_samples: min_samples?,
    })
}

fn count(checked: &mut Checked<'_>) -> Option<Check> {
    let threshold: Option<u64> = threshold(checked, "a count such as \"100\", a share (`30%`) or a rate (`5/s`)");
    let default = |threshold: u64| (u128::from(threshold) * 5).div_ceil(6) as u64;
    let recover_below = recover_below(checked, threshold, default, |recover, threshold| recover > threshold);
    Some(Check::Count { threshold: threshold?, recover_below: recover_below? })
}

fn rate(checked: &mut Checked<'_>) -> Option<Check> {
    let threshold: Option<Rate> = threshold(checked, "a rate such as \"5/s\"");
    let recover_below = recover_below(checked, threshold, Rate::five_sixths, Rate::is_above);
    Some(Check::Rate { threshold: threshold?, recover_below: recover_below? })
}

fn level(checked: &mut Checked<'_>, kind: Kind) -> Option<Check> {
    let written = checked.written;
    let value = measure(kind, written.value.as_deref().unwrap_or_default())
        .map_err(|problem| checked.problem("value", problem))
        .ok();
    let field = value.as_ref().map_or("", |(field, _)| field);
    let mut read = |key: &str, text: &str| {
        let found = amount(field, text);
        if found.is_none() {
            checked.problem(key, not_understood(text, "a level such as \"90\""));
        }
        found
    };
    let threshold = written.threshold.as_ref().and_then(|text| read("threshold", text));
    let recover_below = match &written.recover_below {
        Some(text) => read("recover_below", text),
        None => threshold.map(|threshold| threshold * 5.0 / 6.0),
    };
    if written.threshold.is_none() {
        checked.problem("threshold", "missing: the level above which it fires, such as \"90\"");
    }
    if let (Some(recover), Some(threshold)) = (recover_below, threshold)
        && recover > threshold
    {
        checked.problem("recover_below", above_threshold());
    }
    let min_samples = min_samples(checked, MIN_SAMPLES_OF_LEVEL);
    let (field, aggregate) = value?;
    Some(Check::Level {
        field,
        aggregate,
        threshold: threshold?,
        recover_below: recover_below?,
        min_samples: min_samples?,
    })
}

/// Parses `avg(field)` or `max(field)`.
fn measure(kind: Kind, text: &str) -> Result<(String, Aggregate), String> {
    let levels: Vec<_> = labels::levels_of(kind).map(|level| format!("`{level}`")).collect();
    if levels.is_empty() {
        return Err(format!("{kind} have nothing that is measured; metrics have"));
    }
    let known = levels.join(" and ");
    let wrong = || format!("expected `avg(...)` or `max(...)` of {known}; found `{text}`");
    let (aggregate, field) = text.trim().strip_suffix(')').and_then(|text| text.split_once('(')).ok_or_else(wrong)?;
    let aggregate = match aggregate.trim() {
        "avg" => Aggregate::Average,
        "max" => Aggregate::Peak,
        _ => return Err(wrong()),
    };
    let field = labels::levels_of(kind)
        .find(|level| *level == field.trim())
        .ok_or_else(|| format!("{kind} do not measure `{field}`; there is {known}"))?;
    Ok((field.to_owned(), aggregate))
}

/// Parses a level in the unit of its field: bytes can be "2 GiB", percentages "90%".
fn amount(field: &str, text: &str) -> Option<f64> {
    let text = text.trim();
    let plain = if field.ends_with("_percent") { text.strip_suffix('%').unwrap_or(text).trim_end() } else { text };
    let number = plain.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    let size = || text.parse::<ByteSize>().ok().map(|size| size.as_u64() as f64);
    number.or_else(|| if field.ends_with("_bytes") { size() } else { None })
}

fn first_seen(checked: &mut Checked<'_>) -> Option<Check> {
    let forget_after = checked.written.forget_after.unwrap_or(FORGET_AFTER);
    if !(Duration::from_secs(DAY)..=LONGEST_MEMORY).contains(&forget_after) {
        checked.problem("forget_after", "between 1d and 366d");
        return None;
    }
    Some(Check::FirstSeen { forget_after: TimeDelta::from_std(forget_after).ok()? })
}

fn spike(checked: &mut Checked<'_>) -> Option<Check> {
    let written = checked.written;
    let against = written.compared_with?;
    let window = written.window.unwrap_or_default();
    let is_good = against >= window.max(Duration::from_secs(60))
        && against <= LONGEST_COMPARISON
        && against.as_nanos().is_multiple_of(60_000_000_000);
    if !is_good {
        checked.problem("compared_with", "whole minutes, at least the window and at most 30d");
    }
    let threshold: Option<Ratio> = threshold(checked, "a share of the count then, such as \"300%\"");
    if threshold.is_some_and(|threshold| threshold < Ratio::percent(100)) {
        checked.problem("threshold", "always true of an ordinary week: at least 100 %, the same count as then");
    }
    let recover_below = recover_below(checked, threshold, five_sixths, |recover, threshold| recover > threshold);
    let min_samples = min_samples(checked, MIN_SAMPLES_OF_SPIKE);
    Some(Check::Spike {
        against: is_good.then(|| TimeDelta::from_std(against).ok()).flatten()?,
        threshold: threshold?,
        recover_below: recover_below?,
        min_samples: min_samples?,
    })
}

fn lag(checked: &mut Checked<'_>) -> Option<Check> {
    let threshold: Option<Span> = threshold(checked, "a time such as \"30s\"");
    if threshold.is_some_and(|threshold| threshold.0 > TimeDelta::days(1)) {
        checked.problem("threshold", "at most 24h");
    }
    let default = |Span(threshold): Span| Span(threshold * 5 / 6);
    let recover_below = recover_below(checked, threshold, default, |recover, threshold| recover.0 > threshold.0);
    Some(Check::Lag { threshold: threshold?.0, recover_below: recover_below?.0 })
}

/// A duration as a threshold.
#[derive(Clone, Copy)]
struct Span(TimeDelta);

impl std::str::FromStr for Span {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let time = humantime::parse_duration(text).map_err(drop)?;
        TimeDelta::from_std(time).map(Self).map_err(drop)
    }
}

fn threshold<T: std::str::FromStr>(checked: &mut Checked<'_>, expected: &str) -> Option<T> {
    let Some(text) = &checked.written.threshold else {
        checked.problem("threshold", format!("missing: {expected}"));
        return None;
    };
    read(checked, "threshold", text, expected)
}

fn recover_below<T: std::str::FromStr + Copy>(
    checked: &mut Checked<'_>,
    threshold: Option<T>,
    default: impl Fn(T) -> T,
    is_above: impl Fn(T, T) -> bool,
) -> Option<T> {
    let Some(text) = &checked.written.recover_below else { return threshold.map(default) };
    let recover: T = read(checked, "recover_below", text, "the same form as `threshold`")?;
    if threshold.is_some_and(|threshold| is_above(recover, threshold)) {
        checked.problem("recover_below", above_threshold());
    }
    Some(recover)
}

fn read<T: std::str::FromStr>(checked: &mut Checked<'_>, key: &str, text: &str, expected: &str) -> Option<T> {
    let found = text.trim().parse().ok();
    if found.is_none() {
        checked.problem(key, not_understood(text, expected));
    }
    found
}

fn not_understood(text: &str, expected: &str) -> String {
    let negative = text.trim().starts_with('-');
    let always = if negative { "always true: counts and levels are never below 0; " } else { "" };
    format!("{always}expected {expected}; found `{text}`")
}

fn above_threshold() -> String {
    "above `threshold`: it would recover while it fires".to_owned()
}

fn five_sixths(share: Ratio) -> Ratio {
    Ratio::of_millionths((u128::from(share.millionths()) * 5 / 6) as u64)
}

fn min_samples(checked: &mut Checked<'_>, default: u64) -> Option<u64> {
    let found = checked.written.min_samples.unwrap_or(default);
    if found == 0 {
        checked.problem("min_samples", "at least 1: without samples there is no share and no level");
    }
    (found > 0).then_some(found)
}
