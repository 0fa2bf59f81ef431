//! Evaluation: tables, timelines and random histories.

use runtime::Config;

use crate::samples::{MAIN, at, rule, share, stale};
use alerting::Alerting;
use alerting::evaluation::{Condition, Data, State, Verdict, evaluate, explain};
use alerting::sample::Sample;
use chrono::TimeDelta;
use proptest::prelude::*;

fn standing(condition: Condition) -> State {
    let since = Some(at("11:00:00"));
    State {
        condition,
        since,
        pending_since: since.filter(|_| condition == Pending),
        recovering_since: since.filter(|_| condition == Recovering),
        ..State::default()
    }
}

use Condition::{Firing, Inactive, Pending, Recovering};

#[test]
fn a_share_moves_between_conditions() {
    let at_once = rule(MAIN);
    let patient = rule(&format!("{MAIN}for = '10m'"));
    let now = at("11:05:00");
    for (rule, before, sample, after, data) in [
        (&at_once, Inactive, share(30, 100), Inactive, Data::Ok),
        (&at_once, Inactive, share(31, 100), Firing, Data::Ok),
        (&at_once, Inactive, share(0, 0), Inactive, Data::NoData),
        (&at_once, Inactive, share(3, 3), Inactive, Data::LowSamples),
        (&at_once, Inactive, share(4, 9), Inactive, Data::LowSamples),
        (&at_once, Inactive, share(9, 9), Firing, Data::LowSamples),
        (&at_once, Inactive, stale(share(31, 100)), Inactive, Data::Stale),
        (&patient, Inactive, share(31, 100), Pending, Data::Ok),
        (&patient, Pending, share(31, 100), Pending, Data::Ok),
        (&patient, Pending, share(30, 100), Inactive, Data::Ok),
        (&patient, Pending, share(0, 0), Inactive, Data::NoData),
        (&patient, Pending, stale(share(31, 100)), Pending, Data::Stale),
        (&patient, Pending, stale(share(0, 100)), Pending, Data::Stale),
        (&at_once, Firing, share(31, 100), Firing, Data::Ok),
        // Between the two thresholds.
        (&at_once, Firing, share(28, 100), Firing, Data::Ok),
        (&at_once, Firing, share(25, 100), Firing, Data::Ok),
        (&at_once, Firing, share(24, 100), Recovering, Data::Ok),
        (&at_once, Firing, share(0, 9), Firing, Data::LowSamples),
        (&at_once, Firing, share(0, 0), Firing, Data::NoData),
        (&at_once, Firing, stale(share(0, 100)), Firing, Data::Stale),
        // Since 11:00, and five minutes have passed.
        (&at_once, Recovering, share(24, 100), Inactive, Data::Ok),
        (&at_once, Recovering, share(25, 100), Firing, Data::Ok),
        (&at_once, Recovering, share(31, 100), Firing, Data::Ok),
        (&at_once, Recovering, share(9, 9), Firing, Data::LowSamples),
        (&at_once, Recovering, share(0, 9), Recovering, Data::LowSamples),
        (&at_once, Recovering, share(0, 0), Recovering, Data::NoData),
        (&at_once, Recovering, stale(share(99, 100)), Recovering, Data::Stale),
    ] {
        let Verdict { state, transition } = evaluate(rule, &sample, &standing(before), now);
        assert_eq!((state.condition, state.data), (after, data), "{before} {sample:?}");
        assert_eq!(transition.map(|moved| (moved.from, moved.to)), (before != after).then_some((before, after)));
        assert_eq!(state.since, Some(if before == after { at("11:00:00") } else { now }));
    }
}

#[test]
fn each_check_knows_too_much_and_enough() {
    let now = at("12:00:00");
    let count = |total| Sample { total, ..Sample::default() };
    let cpu = |samples, sum| Sample { samples, sum, peak: (samples > 0).then_some(99.0), ..Sample::default() };
    let heard = |time| Sample { last_seen_at: Some(at(time)), ..Sample::default() };
    let new = |time| Sample { first_seen_at: Some(at(time)), ..Sample::default() };
    let spike = |total, baseline| Sample { total, baseline, ..Sample::default() };
    let lag = |seconds| Sample { lag: Some(TimeDelta::seconds(seconds)), ..Sample::default() };
    let counts = rule("source = 'errors'\nwindow = '5m'\nthreshold = '100'");
    let never = rule("source = 'errors'\nwindow = '5m'\nthreshold = '0'");
    let rates = rule("source = 'errors'\nwindow = '5m'\nthreshold = '60/min'");
    let average =
        rule("source = 'metrics'\nwindow = '10m'\nvalue = 'avg(cpu_usage_percent)'\nthreshold = '90'\nmin_samples = 3");
    let peak = rule("source = 'metrics'\nwindow = '10m'\nvalue = 'max(cpu_usage_percent)'\nthreshold = '90'");
    let silence = rule("source = 'metrics'\nsilent_for = '10m'");
    let first = rule("source = 'errors'\nfirst_seen = true\ngroup_by = ['error_type']");
    let spikes = rule("source = 'errors'\nwindow = '1h'\ncompared_with = '7d'\nthreshold = '300%'");
    let ingest = rule("source = 'ingest'\nthreshold = '30s'");
    // The outcome for an inactive group and for a firing one.
    for (number, (rule, sample, quiet, firing, data)) in [
        (&counts, count(0), Inactive, Recovering, Data::Ok),
        (&counts, count(83), Inactive, Recovering, Data::Ok),
        (&counts, count(84), Inactive, Firing, Data::Ok),
        (&counts, count(100), Inactive, Firing, Data::Ok),
        (&counts, count(101), Firing, Firing, Data::Ok),
        (&counts, stale(count(101)), Inactive, Firing, Data::Stale),
        (&counts, stale(count(0)), Inactive, Firing, Data::Stale),
        // Zero counts as recovered; otherwise the alert could never resolve.
        (&never, count(0), Inactive, Recovering, Data::Ok),
        (&never, count(1), Firing, Firing, Data::Ok),
        (&rates, count(300), Inactive, Firing, Data::Ok),
        (&rates, count(301), Firing, Firing, Data::Ok),
        (&rates, count(250), Inactive, Firing, Data::Ok),
        (&rates, count(249), Inactive, Recovering, Data::Ok),
        (&average, cpu(0, 0.0), Inactive, Firing, Data::NoData),
        (&average, cpu(2, 198.0), Inactive, Firing, Data::LowSamples),
        (&average, cpu(3, 270.0), Inactive, Firing, Data::Ok),
        (&average, cpu(3, 271.0), Firing, Firing, Data::Ok),
        (&average, cpu(3, 224.0), Inactive, Recovering, Data::Ok),
        (&average, cpu(3, f64::NAN), Inactive, Firing, Data::NoData),
        (&peak, cpu(1, 5.0), Firing, Firing, Data::Ok),
        (&silence, Sample::default(), Inactive, Firing, Data::NoData),
        (&silence, heard("11:50:00"), Inactive, Recovering, Data::Ok),
        (&silence, heard("11:49:59"), Firing, Firing, Data::Ok),
        (&silence, stale(heard("11:49:59")), Inactive, Firing, Data::Stale),
        (&first, Sample::default(), Inactive, Firing, Data::NoData),
        (&first, new("11:59:59"), Firing, Firing, Data::Ok),
        (&first, new("11:00:00"), Inactive, Recovering, Data::Ok),
        (&spikes, spike(500, None), Inactive, Firing, Data::NoData),
        (&spikes, spike(60, Some(20)), Inactive, Firing, Data::Ok),
        (&spikes, spike(61, Some(20)), Firing, Firing, Data::Ok),
        (&spikes, spike(49, Some(20)), Inactive, Recovering, Data::Ok),
        // A baseline of zero counts as one, and few records are never a spike.
        (&spikes, spike(20, Some(0)), Firing, Firing, Data::Ok),
        (&spikes, spike(19, Some(0)), Inactive, Firing, Data::Ok),
        (&spikes, spike(16, Some(0)), Inactive, Recovering, Data::Ok),
        (&ingest, Sample::default(), Inactive, Firing, Data::NoData),
        (&ingest, lag(30), Inactive, Firing, Data::Ok),
        (&ingest, lag(31), Firing, Firing, Data::Ok),
        (&ingest, lag(24), Inactive, Recovering, Data::Ok),
        (&ingest, lag(0), Inactive, Recovering, Data::Ok),
    ]
    .into_iter()
    .enumerate()
    {
        let after = |before| evaluate(rule, &sample, &standing(before), now).state;
        assert_eq!(after(Inactive).condition, quiet, "row {number}: {sample:?}");
        assert_eq!(after(Firing).condition, firing, "row {number}: {sample:?}");
        assert_eq!(after(Inactive).data, data, "row {number}: {sample:?}");
    }
}

#[test]
fn an_episode_from_its_first_sign_to_its_end() {
    let rule = rule(&format!("{MAIN}for = '1m'\nkeep_firing_for = '2m'"));
    let (bad, good) = (share(31, 100), share(20, 100));
    let mut state = State::default();
    let mut story = Vec::new();
    for (time, sample) in [
        ("12:00:00", &good),
        ("12:01:00", &bad),
        ("12:01:59", &bad),
        ("12:02:00", &bad),
        ("12:03:00", &good),
        // Time without good data does not count: the two minutes start again at 12:05.
        ("12:04:00", &stale(good.clone())),
        ("12:05:00", &good),
        ("12:06:59", &good),
        ("12:07:00", &good),
        ("12:08:00", &good),
    ] {
        let verdict = evaluate(&rule, sample, &state, at(time));
        state = verdict.state;
        if let Some(moved) = verdict.transition {
            story.push(format!("{time} {}", moved.to));
        }
        // The state survives being stored and read.
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state);
        let fires = matches!(state.condition, Firing | Recovering);
        assert!(!fires || state.started_at == Some(at("12:02:00")));
    }
    assert_eq!(story, ["12:01:00 pending", "12:02:00 firing", "12:03:00 recovering", "12:07:00 inactive"]);
}

#[test]
fn an_outage_fires_within_minutes_and_is_over_once() {
    // An execution a second. All fail from minute 60 on, until minute 90.
    let alerting = Alerting::of(&Config::default(), &|_| None).unwrap();
    let is_outage = |minute: i64| (60..90).contains(&minute);
    let started = std::time::Instant::now();
    let mut story = Vec::new();
    for (rule, window) in [(&alerting.rules[0], 60), (&alerting.rules[1], 5)] {
        let mut state = State::default();
        for second in 0..240 * 60_u64 {
            let minute = second as i64 / 60;
            // The minutes that are complete, and the current one so far.
            let over = (minute - window + 1).max(0)..minute;
            let failed_minutes = over.clone().filter(|minute| is_outage(*minute)).count() as u64;
            let so_far = second % 60 + 1;
            let failed = failed_minutes * 60 + if is_outage(minute) { so_far } else { 0 };
            let total = over.count() as u64 * 60 + so_far;
            let verdict =
                evaluate(rule, &share(failed, total), &state, at("00:00:00") + TimeDelta::seconds(second as i64));
            state = verdict.state;
            if let Some(moved) = verdict.transition {
                story.push(format!("{} {minute:03}:{:02} {}", rule.name, second % 60, moved.to));
            }
        }
    }
    assert_eq!(
        story,
        [
            "execution-failure-rate 078:00 firing",
            "execution-failure-rate 135:00 recovering",
            "execution-failure-rate 140:00 inactive",
            "execution-failure-burst 063:00 firing",
            "execution-failure-burst 092:00 recovering",
            "execution-failure-burst 097:00 inactive",
        ]
    );
    assert!(started.elapsed().as_millis() < 1_000, "{:?}", started.elapsed());
}

#[test]
fn a_hundred_thousand_groups_are_judged_in_no_time() {
    let rule = rule(MAIN);
    let now = at("12:00:00");
    let state = State::default();
    let started = std::time::Instant::now();
    let firing = (0..100_000_u64)
        .filter(|number| evaluate(&rule, &share(number % 40, 100), &state, now).state.condition == Firing)
        .count();
    let took = started.elapsed();
    assert_eq!(firing, 100_000 / 40 * 9);
    // A debug build on a busy machine; a release build takes a few milliseconds.
    let limit = if cfg!(debug_assertions) { 500 } else { 50 };
    assert!(took.as_millis() < limit, "{took:?}");
}

fn samples() -> impl Strategy<Value = Sample> {
    let total = prop_oneof![Just(0_u64), 1..4_u64, 4..10_u64, 10..200_u64];
    (total, 0_u64..=100, prop::bool::weighted(0.2)).prop_map(|(total, percent, is_stale)| {
        let sample = share(total * percent / 100, total);
        if is_stale { stale(sample) } else { sample }
    })
}

proptest! {
    #[test]
    fn nothing_starts_on_stale_data_nor_ends_on_any_that_is_not_good(
        steps in prop::collection::vec((samples(), 1_i64..400), 1..120),
        hold in prop_oneof![Just("0s"), Just("90s")],
        keep in prop_oneof![Just("0s"), Just("5m")],
    ) {
        let rule = rule(&format!("{MAIN}for = '{hold}'\nkeep_firing_for = '{keep}'"));
        let mut state = State::default();
        let mut now = at("00:00:00");
        // Since when the figures have been good and below `recover_below` without interruption.
        let mut good_since = None;
        for (sample, seconds) in steps {
            now += TimeDelta::seconds(seconds);
            let verdict = evaluate(&rule, &sample, &state, now);
            let after = verdict.state;
            let is_good = after.data == Data::Ok && sample.failed * 100 < sample.total * 25;
            good_since = if is_good { good_since.or(Some(now)) } else { None };
            match verdict.transition.map(|moved| (moved.from, moved.to)) {
                None => prop_assert_eq!(state.condition, after.condition),
                Some((from, Firing)) => {
                    prop_assert!(after.data != Data::Stale, "{}", from);
                    prop_assert!(from != Pending || now - state.pending_since.unwrap() >= rule.hold_for);
                    prop_assert!(from != Inactive || rule.hold_for == TimeDelta::zero());
                }
                Some((Inactive, Pending)) => prop_assert!(after.data != Data::Stale && rule.hold_for > TimeDelta::zero()),
                Some((Pending, Inactive)) => prop_assert!(after.data != Data::Stale),
                Some((Firing, Recovering)) => prop_assert!(is_good),
                Some((Recovering, Inactive)) => {
                    prop_assert!(is_good && now - good_since.unwrap() >= rule.keep_firing_for);
                }
                Some(moved) => prop_assert!(false, "{:?}", moved),
            }
            if sample.stale.is_some() {
                prop_assert_eq!(after.condition, state.condition);
            }
            // Evaluating the same sample again changes only what depends on time.
            let again = evaluate(&rule, &sample, &after, now);
            if rule.keep_firing_for > TimeDelta::zero() {
                prop_assert_eq!(again.state, after);
            }
            // Every state has a reason.
            prop_assert!(!explain(&rule, &sample, &after, now).is_empty());
            state = after;
        }
    }
}
