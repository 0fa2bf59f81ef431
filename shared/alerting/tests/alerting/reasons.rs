//! Reasons, word for word: people read them at three in the morning.

use crate::samples::{MAIN, at, rule, share, stale};
use alerting::evaluation::{Condition, State, explain};
use alerting::sample::Sample;
use chrono::{DateTime, TimeDelta};

fn state(condition: Condition) -> State {
    State { condition, ..State::default() }
}

#[test]
fn of_a_share() {
    let rule = rule(&format!("{MAIN}for = '1m'"));
    let since = Some(at("12:03:10"));
    let (inactive, firing) = (state(Condition::Inactive), state(Condition::Firing));
    let pending = State { pending_since: since, ..state(Condition::Pending) };
    let recovering = State { recovering_since: since, ..state(Condition::Recovering) };
    let over = State { since, started_at: since, ..inactive };
    for (sample, state, words) in [
        (
            share(4, 9),
            inactive,
            "4 of 9 failed, 44.4 %: below 10 samples, and the lower bound 18.9 % is not above 30 %",
        ),
        (share(9, 9), firing, "9 of 9 failed, 100 %: below 10 samples, but the lower bound 70.1 % is above 30 %"),
        (share(3, 3), inactive, "3 of 3 failed, 100 %: below 10 samples, and with fewer than 4 nothing is judged"),
        (share(31, 101), firing, "31 of 101 failed within 1 h, 30.7 %: above 30 %"),
        (share(30, 100), inactive, "30 of 100 failed within 1 h, 30 %: not above 30 %"),
        (share(0, 0), inactive, "no executions within 1 h: no data, which is not 0 %"),
        (
            share(0, 0),
            firing,
            "no executions within 1 h: no data, which is not 0 %; it keeps firing, because nothing is over without data",
        ),
        (
            share(1, 9),
            firing,
            "1 of 9 failed, 11.1 %: below 10 samples, and the lower bound 2 % is not above 30 %; it keeps firing, because so few say nothing about its end",
        ),
        (
            share(28, 100),
            firing,
            "28 of 100 failed within 1 h, 28 %: not above 30 %, but not below 25 % either: it keeps firing",
        ),
        (
            stale(share(31, 101)),
            inactive,
            "31 of 101 failed within 1 h, 30.7 %: above 30 %; but executions are written 200 s behind, and nothing is decided on stale data",
        ),
        (
            stale(share(0, 0)),
            firing,
            "no executions within 1 h: no data, which is not 0 %; but executions are written 200 s behind, and nothing is decided on stale data; it keeps firing meanwhile",
        ),
        (
            share(31, 101),
            pending,
            "pending: 31 of 101 failed within 1 h, 30.7 %: above 30 % since 12:03:10; fires at 12:04:10 if it stays so (UTC)",
        ),
        (
            share(20, 100),
            recovering,
            "recovering: 20 of 100 failed, 20 %, below 25 % since 12:03:10; over at 12:08:10 if it stays so (UTC)",
        ),
        (
            share(0, 0),
            State { recovering_since: None, ..recovering },
            "no executions within 1 h: no data, which is not 0 %; recovering, and the time begins anew when there is data to judge by",
        ),
        (share(20, 100), over, "over since 12:03:10 (UTC): 20 of 100 failed within 1 h, 20 %, below 25 %"),
        (share(28, 100), over, "28 of 100 failed within 1 h, 28 %: not above 30 %"),
    ] {
        assert_eq!(explain(&rule, &sample, &state, at("12:03:30")), words);
    }
    // On another day the time includes the date.
    let words = explain(&rule, &share(20, 100), &over, at("12:00:00") + TimeDelta::days(1));
    assert!(words.starts_with("over since 2026-06-15 12:03:10 (UTC): "), "{words}");
}

#[test]
fn of_everything_else() {
    let errors = |rest: &str| rule(&format!("source = 'errors'\n{rest}"));
    let metrics = |rest: &str| rule(&format!("source = 'metrics'\n{rest}"));
    let count = |total| Sample { total, ..Sample::default() };
    let level = |samples, sum, peak| Sample { samples, sum, peak: Some(peak), ..Sample::default() };
    let now = at("12:00:00");
    let heard = |ago| Sample { last_seen_at: Some(now - TimeDelta::seconds(ago)), ..Sample::default() };
    let counts = errors("window = '5m'\nthreshold = '100'");
    let filtered = errors("window = '5m'\nthreshold = '100'\nwhere = { severity = 'critical' }");
    let rates = errors("window = '5m'\nthreshold = '60/min'");
    let cpu = metrics("window = '10m'\nvalue = 'avg(cpu_usage_percent)'\nthreshold = '90'\nmin_samples = 2");
    let memory = metrics("window = '10m'\nvalue = 'max(memory_usage_bytes)'\nthreshold = '2 GiB'");
    let silence = metrics("silent_for = '10m'");
    let first = errors("first_seen = true\ngroup_by = ['error_type']");
    let spike = errors("window = '1h'\ncompared_with = '7d'\nthreshold = '300%'");
    let ingest = rule("source = 'ingest'\nthreshold = '30s'");
    let spiked = |total, baseline| Sample { total, baseline, ..Sample::default() };
    for (rule, sample, words, value) in [
        (&counts, count(120), "120 errors within 5 min: above 100", "120"),
        (&counts, count(1), "1 error within 5 min: not above 100", "1"),
        (&filtered, count(0), "0 matching errors within 5 min: not above 100", "0"),
        (&rates, count(420), "420 errors within 5 min, 84/min: above 60/min", "84/min"),
        (&rates, count(7), "7 errors within 5 min, 1.4/min: not above 60/min", "1.4/min"),
        (&cpu, level(4, 373.0, 99.0), "average cpu_usage_percent 93.2 % within 10 min: above 90 %", "93.2 %"),
        (
            &cpu,
            level(1, 99.0, 99.0),
            "average cpu_usage_percent 99 % within 10 min, 1 of at least 2 samples: too few to judge by",
            "99 %",
        ),
        (&cpu, Sample::default(), "no cpu_usage_percent within 10 min: no data, which is not 0", "unknown"),
        (
            &memory,
            level(1, 1e9, 3_221_225_472.0),
            "peak memory_usage_bytes 3.0 GiB within 10 min: above 2.0 GiB",
            "3.0 GiB",
        ),
        (
            &silence,
            heard(721),
            "heard of last at 11:47:59 (UTC), 12 min 1 s ago: silent for more than 10 min",
            "2026-06-15 11:47:59",
        ),
        (
            &silence,
            heard(30),
            "heard of last at 11:59:30 (UTC), 30 s ago: not silent for more than 10 min",
            "2026-06-15 11:59:30",
        ),
        (&silence, Sample::default(), "no metrics heard of yet: no data", "unknown"),
        (
            &first,
            Sample { first_seen_at: Some(at("11:59:00")), ..Sample::default() },
            "seen for the first time at 11:59:00 (UTC): new for 1 h",
            "2026-06-15 11:59:00",
        ),
        (
            &first,
            Sample { first_seen_at: Some(DateTime::UNIX_EPOCH), ..Sample::default() },
            "known since the rule began: not new",
            "1970-01-01 00:00:00",
        ),
        (&first, Sample::default(), "not seen yet: no data", "unknown"),
        (&spike, spiked(60, Some(12)), "60 errors within 1 h against 12 7 d before, 500 %: above 300 %", "500 %"),
        (
            &spike,
            spiked(12, Some(0)),
            "12 errors within 1 h against 0 7 d before, 1200 %: below 20, too few for a spike",
            "1200 %",
        ),
        (&spike, spiked(60, None), "nothing is known of the same 1 h 7 d ago: no data", "unknown"),
        (
            &ingest,
            Sample { lag: Some(TimeDelta::seconds(45)), ..Sample::default() },
            "ingest is 45 s behind: above 30 s",
            "45 s",
        ),
        (&ingest, Sample::default(), "how far ingest is behind is not known: no data", "unknown"),
    ] {
        assert_eq!(explain(rule, &sample, &state(Condition::Inactive), now), words);
        assert_eq!(rule.value(&sample), value);
    }
}

#[test]
fn of_an_end() {
    let spike = rule("source = 'errors'\nwindow = '1h'\ncompared_with = '7d'\nthreshold = '300%'");
    let silence = rule("source = 'metrics'\nsilent_for = '10m'");
    let never = rule("source = 'errors'\nwindow = '5m'\nthreshold = '0'");
    let recovering = State { recovering_since: Some(at("12:00:00")), ..state(Condition::Recovering) };
    let heard = Sample { last_seen_at: Some(at("12:00:00")), ..Sample::default() };
    let spiked = |total, baseline| Sample { total, baseline, ..Sample::default() };
    for (rule, sample, words) in [
        (
            &spike,
            spiked(30, Some(20)),
            "recovering: 30 errors, 150 %, below 250 % since 12:00:00; over at 12:05:00 if it stays so (UTC)",
        ),
        (
            &spike,
            spiked(12, Some(1)),
            "recovering: 12 errors, 1200 %, below 17 errors since 12:00:00; over at 12:05:00 if it stays so (UTC)",
        ),
        (&silence, heard, "recovering: heard of last at 12:00:00 (UTC), 1 min ago, heard of again"),
        (&never, Sample::default(), "recovering: 0 errors, at 0 since 12:00:00; over at 12:05:00 if it stays so (UTC)"),
    ] {
        assert_eq!(explain(rule, &sample, &recovering, at("12:01:00")), words);
    }
}

#[test]
fn annotations_say_them() {
    let rule = rule(&format!(
        "{MAIN}group_by = ['organization']\nlabels = {{ team = 'runtime' }}\nseverity = 'critical'\n\
         annotations = {{ summary = '{{{{ labels.team }}}}: {{{{ organization }}}} {{{{ value }}}} ({{{{ reason }}}})' }}"
    ));
    let group = [("organization_id".to_owned(), "acme".to_owned())].into();
    let labels = rule.alert_labels(&group);
    let pairs: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(pairs, ["alertname=r", "organization_id=acme", "severity=critical", "team=runtime"]);
    let annotations = rule.annotations(&labels, &share(31, 101), "because");
    assert_eq!(annotations["summary"], "runtime: acme 30.7 % (because)");
}
