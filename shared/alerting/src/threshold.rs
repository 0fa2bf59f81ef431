//! Compares figures with thresholds: the data quality, whether the threshold is breached, and whether the group has
//! recovered. Stateless.

use chrono::{DateTime, TimeDelta, Utc};
use runtime::config::Ratio;

use crate::evaluation::Data;
use crate::rule::{Aggregate, Check, Rule};
use crate::sample::Sample;

/// With fewer samples a ratio is never decided, however high it is.
pub(crate) const MIN_SAMPLES_TO_JUDGE: u64 = 4;
/// The two-sided 95 % quantile of the normal distribution.
const Z: f64 = 1.959_964;

/// The outcome of a check at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CheckOutcome {
    /// The data quality.
    pub(crate) data: Data,
    /// Above the threshold, with enough samples. Can be true even if the data is not good.
    pub(crate) breaches: bool,
    /// Below `recover_below`. Meaningful only if the data is good.
    pub(crate) recovered: bool,
}

impl CheckOutcome {
    const NO_DATA: Self = Self { data: Data::NoData, breaches: false, recovered: false };

    /// Checks the figures of a group against a rule.
    pub(crate) fn of(rule: &Rule, sample: &Sample, now: DateTime<Utc>) -> Self {
        let outcome = Self::of_fresh_data(rule, sample, now);
        if sample.stale.is_some() { Self { data: Data::Stale, ..outcome } } else { outcome }
    }

    /// Does the same, but ignores staleness.
    pub(crate) fn of_fresh_data(rule: &Rule, sample: &Sample, now: DateTime<Utc>) -> Self {
        let (total, failed) = (sample.total, sample.failed);
        match &rule.check {
            Check::Ratio { threshold, recover_below, min_samples, .. } => {
                if total == 0 {
                    return Self::NO_DATA;
                }
                Self {
                    data: if total < *min_samples { Data::LowSamples } else { Data::Ok },
                    breaches: ratio_breaches(failed, total, *threshold, *min_samples),
                    recovered: failed == 0 || recover_below.is_undercut_by(failed, total),
                }
            }
            Check::Count { threshold, recover_below } => {
                Self::ok(total > *threshold, total == 0 || total < *recover_below)
            }
            Check::Rate { threshold, recover_below } => Self::ok(
                threshold.is_exceeded_by(total, rule.window),
                total == 0 || recover_below.is_undercut_by(total, rule.window),
            ),
            Check::Level { aggregate, threshold, recover_below, min_samples, .. } => {
                let Some(level) = level(*aggregate, sample) else { return Self::NO_DATA };
                if sample.samples < *min_samples {
                    return Self { data: Data::LowSamples, breaches: false, recovered: false };
                }
                Self::ok(level > *threshold, level <= 0.0 || level < *recover_below)
            }
            Check::Silence { after } => match sample.last_seen_at {
                Some(at) => Self::ok(now - at > *after, now - at <= *after),
                None => Self::NO_DATA,
            },
            Check::FirstSeen { .. } => match sample.first_seen_at {
                Some(at) => Self::ok(now - at < rule.window, now - at >= rule.window),
                None => Self::NO_DATA,
            },
            Check::Spike { threshold, recover_below, min_samples, .. } => {
                let Some(baseline) = sample.baseline else { return Self::NO_DATA };
                let baseline = baseline.max(1);
                // If few records are usual, a few more are not a spike. Also, what is too few to fire again has to be
                // able to resolve.
                let is_few = u128::from(total) * 6 < u128::from(*min_samples) * 5;
                Self::ok(
                    total >= *min_samples && threshold.is_exceeded_by(total, baseline),
                    is_few || recover_below.is_undercut_by(total, baseline),
                )
            }
            Check::Lag { threshold, recover_below } => match sample.lag {
                Some(lag) => Self::ok(lag > *threshold, lag <= TimeDelta::zero() || lag < *recover_below),
                None => Self::NO_DATA,
            },
        }
    }

    const fn ok(breaches: bool, recovered: bool) -> Self {
        Self { data: Data::Ok, breaches, recovered }
    }
}

/// Checks whether `failed` of `total` is above a ratio: with at least `min_samples` samples by comparing, with fewer
/// by the lower bound of Wilson's interval.
pub(crate) fn ratio_breaches(failed: u64, total: u64, threshold: Ratio, min_samples: u64) -> bool {
    if total >= min_samples {
        return threshold.is_exceeded_by(failed, total);
    }
    total >= MIN_SAMPLES_TO_JUDGE && wilson_lower_bound(failed, total) > threshold.as_f64()
}

/// Returns the lower bound of the 95 % Wilson score interval of a ratio, between 0 and 1.
pub(crate) fn wilson_lower_bound(failed: u64, total: u64) -> f64 {
    if total == 0 {
        return 0.0;
    }
    let (failed, total) = (failed as f64, total as f64);
    let share = failed / total;
    let (z2, middle) = (Z * Z, share + Z * Z / (2.0 * total));
    let spread = Z * ((share * (1.0 - share) + z2 / (4.0 * total)) / total).max(0.0).sqrt();
    ((middle - spread) / (1.0 + z2 / total)).max(0.0)
}

/// Aggregates the samples of a level; `None` without samples, or if the result is not finite.
pub(crate) fn level(aggregate: Aggregate, sample: &Sample) -> Option<f64> {
    if sample.samples == 0 {
        return None;
    }
    let level = match aggregate {
        Aggregate::Average => sample.sum / sample.samples as f64,
        Aggregate::Peak => sample.peak?,
    };
    level.is_finite().then_some(level)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_lower_bound_is_that_of_the_textbook() {
        for (failed, total, bound) in [
            (4, 9, 0.1888),
            (8, 8, 0.6756),
            (4, 4, 0.5101),
            (3, 4, 0.3006),
            (0, 9, 0.0),
            (0, 0, 0.0),
            (50, 100, 0.4038),
        ] {
            let found = wilson_lower_bound(failed, total);
            assert!((found - bound).abs() < 0.0001, "{failed} of {total}: {found}");
        }
    }

    #[test]
    fn few_samples_breach_only_beyond_doubt() {
        let share = Ratio::percent(30);
        for (failed, total, breaches) in [
            (3, 3, false),
            (3, 4, true),
            (2, 4, false),
            (4, 9, false),
            (6, 9, true),
            (3, 10, false),
            (4, 10, true),
            (30, 100, false),
            (31, 100, true),
            (0, 0, false),
        ] {
            assert_eq!(ratio_breaches(failed, total, share, 10), breaches, "{failed} of {total}");
        }
        // A minimum of one is respected.
        assert!(ratio_breaches(1, 1, share, 1));
    }

    proptest! {
        #[test]
        fn a_threshold_is_compared_as_in_the_contract(total in 1_u64..1_000_000_000, part in 0_u64..=1_000, percent in 0_u32..100) {
            let failed = (u128::from(total) * u128::from(part) / 1_000) as u64;
            let share = Ratio::percent(percent);
            prop_assert_eq!(ratio_breaches(failed, total, share, 1), failed * 100 > total * u64::from(percent));
            // Floating point agrees wherever the difference is large enough.
            let difference = failed as f64 / total as f64 - f64::from(percent) / 100.0;
            if difference.abs() > 1e-9 {
                prop_assert_eq!(share.is_exceeded_by(failed, total), difference > 0.0);
                prop_assert_eq!(share.is_undercut_by(failed, total), difference < 0.0);
            }
        }

        #[test]
        fn the_lower_bound_lies_below_the_share_and_grows_with_it(total in 1_u64..100_000, failed in 0_u64..100_000) {
            let failed = failed.min(total);
            let bound = wilson_lower_bound(failed, total);
            prop_assert!((0.0..=1.0).contains(&bound) && bound <= failed as f64 / total as f64 + 1e-12);
            if failed < total {
                prop_assert!(wilson_lower_bound(failed + 1, total) > bound);
            }
        }
    }
}
