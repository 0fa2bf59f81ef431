//! Reasons for people, with figures. Percentages and levels have at most one decimal; times are in UTC.

use chrono::{DateTime, TimeDelta, Utc};
use records::Kind;

use crate::evaluation::{Condition, Data, State};
use crate::rule::{Aggregate, Check, Rule, Source};
use crate::sample::Sample;
use crate::threshold::{CheckOutcome, MIN_SAMPLES_TO_JUDGE, level, wilson_lower_bound};
use crate::units::{clock, date, duration, measured, percent, percent_of};

/// Explains the state of a group. Called only on demand.
pub fn explain(rule: &Rule, sample: &Sample, state: &State, now: DateTime<Utc>) -> String {
    let outcome = CheckOutcome::of(rule, sample, now);
    let figures = Figures::of(rule, sample, now);
    let time = |at: Option<DateTime<Utc>>| clock(at.unwrap_or(now), now);
    let bounds = Bounds::of(rule, sample);
    match (state.condition, outcome.data) {
        (Condition::Recovering, Data::Ok) if outcome.recovered && rule.keep_firing_for <= TimeDelta::zero() => {
            format!("recovering: {}, {}", figures.short(), bounds.recovered)
        }
        (Condition::Recovering, Data::Ok) if outcome.recovered => {
            let since = state.recovering_since.unwrap_or(now);
            let end = clock(since + rule.keep_firing_for, now);
            let (figures, below) = (figures.short(), bounds.recovered);
            format!("recovering: {figures}, {below} since {}; over at {end} if it stays so (UTC)", clock(since, now))
        }
        (Condition::Pending, Data::Ok | Data::LowSamples) => {
            let since = state.pending_since.unwrap_or(now);
            let end = clock(since + rule.hold_for, now);
            let described = describe_check(rule, sample, &figures, outcome, &bounds, now);
            format!("pending: {described} since {}; fires at {end} if it stays so (UTC)", clock(since, now))
        }
        (Condition::Inactive, Data::Ok) if outcome.recovered && state.started_at.is_some() => {
            format!("over since {} (UTC): {}, {}", time(state.since), figures.long(), bounds.recovered)
        }
        (condition, _) => {
            let described = describe_check(rule, sample, &figures, outcome, &bounds, now);
            format!("{described}{}", explain_hold(condition, outcome, &bounds))
        }
    }
}

/// Explains why the state differs from what the figures alone would give.
fn explain_hold(condition: Condition, outcome: CheckOutcome, bounds: &Bounds) -> String {
    let message = match (condition, outcome.data) {
        (Condition::Firing, Data::Ok) if !outcome.breaches && !outcome.recovered => {
            return format!(", but not {} either: it keeps firing", bounds.recovered);
        }
        (Condition::Firing, Data::NoData) => "; it keeps firing, because nothing is over without data",
        (Condition::Firing, Data::LowSamples) if !outcome.breaches => {
            "; it keeps firing, because so few say nothing about its end"
        }
        (Condition::Firing, Data::Stale) => "; it keeps firing meanwhile",
        (Condition::Pending, Data::Stale) => "; it stays pending meanwhile",
        (Condition::Recovering, Data::LowSamples | Data::NoData | Data::Stale) => {
            "; recovering, and the time begins anew when there is data to judge by"
        }
        _ => "",
    };
    message.to_owned()
}

/// Describes the figures and how they compare with the threshold.
fn describe_check(
    rule: &Rule,
    sample: &Sample,
    figures: &Figures,
    outcome: CheckOutcome,
    bounds: &Bounds,
    now: DateTime<Utc>,
) -> String {
    let compared = if outcome.breaches { bounds.above.clone() } else { bounds.not_above.clone() };
    match (outcome.data, &rule.check) {
        (Data::NoData, check) => no_data(rule, check),
        (Data::Stale, _) => {
            let why = sample.stale.as_deref().unwrap_or("some records are missing");
            let figures = match CheckOutcome::of_fresh_data(rule, sample, now).data {
                Data::NoData => no_data(rule, &rule.check),
                _ => format!("{}: {compared}", figures.long()),
            };
            format!("{figures}; but {why}, and nothing is decided on stale data")
        }
        (Data::LowSamples, Check::Ratio { threshold, min_samples, .. }) if sample.total >= MIN_SAMPLES_TO_JUDGE => {
            let bound = percent_of(wilson_lower_bound(sample.failed, sample.total));
            let (but, is) = if outcome.breaches { ("but", "is above") } else { ("and", "is not above") };
            let figures = figures.short();
            format!("{figures}: below {min_samples} samples, {but} the lower bound {bound} {is} {threshold}")
        }
        (Data::LowSamples, Check::Ratio { min_samples, .. }) => {
            let figures = figures.short();
            format!(
                "{figures}: below {min_samples} samples, and with fewer than {MIN_SAMPLES_TO_JUDGE} nothing is judged"
            )
        }
        (Data::LowSamples, Check::Level { min_samples, .. }) => {
            let samples = sample.samples;
            format!("{}, {samples} of at least {min_samples} samples: too few to judge by", figures.long())
        }
        (Data::Ok, Check::Spike { min_samples, .. }) if sample.total < *min_samples => {
            format!("{}: below {min_samples}, too few for a spike", figures.long())
        }
        _ => format!("{}: {compared}", figures.long()),
    }
}

fn no_data(rule: &Rule, check: &Check) -> String {
    let window = duration(rule.window);
    let records = plural(rule);
    match check {
        Check::Ratio { .. } => format!("no {records} within {window}: no data, which is not 0 %"),
        Check::Level { field, .. } => format!("no {field} within {window}: no data, which is not 0"),
        Check::Silence { .. } => format!("no {records} heard of yet: no data"),
        Check::FirstSeen { .. } => "not seen yet: no data".to_owned(),
        Check::Spike { against, .. } => {
            format!("nothing is known of the same {window} {} ago: no data", duration(*against))
        }
        Check::Lag { .. } => "how far ingest is behind is not known: no data".to_owned(),
        // A count of zero is a valid count.
        Check::Count { .. } | Check::Rate { .. } => format!("no {records} within {window}"),
    }
}

/// The figures in three parts, because shorter sentences omit the window.
struct Figures {
    what: String,
    window: String,
    value: String,
}

impl Figures {
    fn of(rule: &Rule, sample: &Sample, now: DateTime<Utc>) -> Self {
        let within = || format!(" within {}", duration(rule.window));
        let counted = |count: u64| format!("{count} {}", if count == 1 { singular(rule) } else { plural(rule) });
        let none = String::new;
        let (what, window, value) = match &rule.check {
            Check::Ratio { .. } => (
                format!("{} of {} failed", sample.failed, sample.total),
                within(),
                percent(sample.failed, sample.total),
            ),
            Check::Count { .. } => (counted(sample.total), within(), none()),
            Check::Rate { .. } => (counted(sample.total), within(), value(rule, sample)),
            Check::Level { field, aggregate, .. } => {
                let Some(level) = level(*aggregate, sample) else {
                    return Self { what: none(), window: none(), value: none() };
                };
                let aggregate = match aggregate {
                    Aggregate::Average => "average",
                    Aggregate::Peak => "peak",
                };
                (format!("{aggregate} {field} {}", measured(field, level)), within(), none())
            }
            Check::Silence { .. } => match sample.last_seen_at {
                Some(at) => {
                    let ago = duration((now - at).max(TimeDelta::zero()));
                    (format!("heard of last at {} (UTC), {ago} ago", clock(at, now)), none(), none())
                }
                None => (none(), none(), none()),
            },
            Check::FirstSeen { .. } => match sample.first_seen_at {
                Some(at) if at <= DateTime::UNIX_EPOCH => ("known since the rule began".to_owned(), none(), none()),
                Some(at) => (format!("seen for the first time at {} (UTC)", clock(at, now)), none(), none()),
                None => (none(), none(), none()),
            },
            Check::Spike { against, .. } => match sample.baseline {
                Some(baseline) => {
                    let before = format!("{} against {baseline} {} before", within(), duration(*against));
                    (counted(sample.total), before, percent(sample.total, baseline.max(1)))
                }
                None => (none(), none(), none()),
            },
            Check::Lag { .. } => match sample.lag {
                Some(lag) => (format!("ingest is {} behind", duration(lag)), none(), none()),
                None => (none(), none(), none()),
            },
        };
        Self { what, window, value }
    }

    /// Formats the figures with the window.
    fn long(&self) -> String {
        format!("{}{}{}", self.what, self.window, self.with_value())
    }

    /// Formats the figures without the window.
    fn short(&self) -> String {
        format!("{}{}", self.what, self.with_value())
    }

    fn with_value(&self) -> String {
        if self.value.is_empty() { String::new() } else { format!(", {}", self.value) }
    }
}

/// Texts for the possible relations between figures and thresholds.
struct Bounds {
    above: String,
    not_above: String,
    recovered: String,
}

impl Bounds {
    fn of(rule: &Rule, sample: &Sample) -> Self {
        let numbers = |threshold: String, recover_below: String, is_zero: bool| Self {
            above: format!("above {threshold}"),
            not_above: format!("not above {threshold}"),
            recovered: if is_zero { format!("at {recover_below}") } else { format!("below {recover_below}") },
        };
        match &rule.check {
            Check::Spike { threshold, recover_below, min_samples, .. }
                if !recover_below.is_undercut_by(sample.total, sample.baseline.unwrap_or(0).max(1)) =>
            {
                let few = (u128::from(*min_samples) * 5).div_ceil(6);
                numbers(threshold.to_string(), format!("{few} {}", plural(rule)), false)
            }
            Check::Ratio { threshold, recover_below, .. } | Check::Spike { threshold, recover_below, .. } => {
                numbers(threshold.to_string(), recover_below.to_string(), recover_below.millionths() == 0)
            }
            Check::Count { threshold, recover_below } => {
                numbers(threshold.to_string(), recover_below.to_string(), *recover_below == 0)
            }
            Check::Rate { threshold, recover_below } => {
                let is_zero = !recover_below.is_undercut_by(0, TimeDelta::hours(1));
                numbers(threshold.to_string(), recover_below.to_string(), is_zero)
            }
            Check::Level { field, threshold, recover_below, .. } => {
                numbers(measured(field, *threshold), measured(field, *recover_below), *recover_below <= 0.0)
            }
            Check::Lag { threshold, recover_below } => {
                numbers(duration(*threshold), duration(*recover_below), *recover_below <= TimeDelta::zero())
            }
            Check::Silence { after } => {
                let after = duration(*after);
                Self {
                    above: format!("silent for more than {after}"),
                    not_above: format!("not silent for more than {after}"),
                    recovered: "heard of again".to_owned(),
                }
            }
            Check::FirstSeen { .. } => {
                let window = duration(rule.window);
                Self {
                    above: format!("new for {window}"),
                    not_above: "not new".to_owned(),
                    recovered: format!("no longer new after {window}"),
                }
            }
        }
    }
}

/// Implements [`Rule::value`].
pub(crate) fn value(rule: &Rule, sample: &Sample) -> String {
    let unknown = || "unknown".to_owned();
    match &rule.check {
        Check::Ratio { .. } if sample.total == 0 => unknown(),
        Check::Ratio { .. } => percent(sample.failed, sample.total),
        Check::Count { .. } => sample.total.to_string(),
        Check::Rate { threshold, .. } => threshold.say(sample.total, rule.window),
        Check::Level { field, aggregate, .. } => {
            level(*aggregate, sample).map_or_else(unknown, |level| measured(field, level))
        }
        Check::Silence { .. } => sample.last_seen_at.map_or_else(unknown, date),
        Check::FirstSeen { .. } => sample.first_seen_at.map_or_else(unknown, date),
        Check::Spike { .. } => sample.baseline.map_or_else(unknown, |baseline| percent(sample.total, baseline.max(1))),
        Check::Lag { .. } => sample.lag.map_or_else(unknown, duration),
    }
}

/// Implements [`Rule::describe_condition`].
pub(crate) fn condition(rule: &Rule) -> String {
    let (records, window) = (plural(rule), duration(rule.window));
    match &rule.check {
        Check::Ratio { failed_when, threshold, .. } => {
            format!("more than {threshold} of {records} failed within {window} ({failed_when})")
        }
        Check::Count { threshold, .. } => format!("more than {threshold} {records} within {window}"),
        Check::Rate { threshold, .. } => format!("more than {threshold} {records} over {window}"),
        Check::Level { field, aggregate, threshold, .. } => {
            let aggregate = match aggregate {
                Aggregate::Average => "average",
                Aggregate::Peak => "peak",
            };
            format!("{aggregate} {field} within {window} above {}", measured(field, *threshold))
        }
        Check::Silence { after } => format!("no {records} for more than {} after there were some", duration(*after)),
        Check::FirstSeen { forget_after } => {
            let forgotten = duration(*forget_after);
            format!("{records} of a group that was never seen, or not for {forgotten}; for {window}")
        }
        Check::Spike { against, threshold, min_samples, .. } => {
            let before = duration(*against);
            format!(
                "at least {min_samples} {records} within {window}, and more than {threshold} of those {before} before"
            )
        }
        Check::Lag { threshold, .. } => {
            format!("the oldest record that is not written is older than {}", duration(*threshold))
        }
    }
}

/// Returns the plural noun for the rule's records.
fn plural(rule: &Rule) -> String {
    let noun = match rule.source {
        Source::Records(Kind::Events) => "events",
        Source::Records(Kind::Errors) => "errors",
        Source::Records(Kind::Metrics) => "metrics",
        Source::Records(Kind::Logs) => "log lines",
        Source::Records(Kind::Audit) => "audit records",
        Source::Records(Kind::Executions) => "executions",
        Source::Records(Kind::Directory) | Source::Ingest => "records",
    };
    if rule.filter.is_empty() { noun.to_owned() } else { format!("matching {noun}") }
}

fn singular(rule: &Rule) -> String {
    let plural = plural(rule);
    plural.strip_suffix('s').map_or(plural.clone(), str::to_owned)
}
