//! Rules and samples that several tests share.

use alerting::Alerting;
use alerting::rule::Rule;
use alerting::sample::Sample;
use chrono::{DateTime, Utc};
use runtime::Config;

/// The main rule, without its name.
pub(crate) const MAIN: &str = "source = 'executions'\nfailed_when = 'success == false'\nwindow = '1h'\nthreshold = '30%'\nrecover_below = '25%'\n";

pub(crate) fn rule(text: &str) -> Rule {
    let config: Config = toml::from_str(&format!("[[rules]]\nname = 'r'\n{text}")).unwrap();
    let alerting = Alerting::of(&config, &|_| None).unwrap_or_else(|problems| panic!("{text}: {problems:?}"));
    Rule::clone(&alerting.rules[0])
}

pub(crate) fn at(time: &str) -> DateTime<Utc> {
    format!("2026-06-15T{time}Z").parse().unwrap()
}

pub(crate) fn share(failed: u64, total: u64) -> Sample {
    Sample { failed, total, ..Sample::default() }
}

pub(crate) fn stale(sample: Sample) -> Sample {
    Sample { stale: Some("executions are written 200 s behind".to_owned()), ..sample }
}
