//! Recurring silences against a brute-force implementation: minute by minute through both clock changes.

use alerting::recurrence::Recurrence;
use alerting::silence::Silence;
use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;
use proptest::prelude::*;
use uuid::Uuid;

/// A few days around each clock change of 2026, in UTC.
const CHANGES: [(&str, &str); 6] = [
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Australia/Lord_Howe", "2026-10-04"),
];

fn at(time: &str) -> DateTime<Utc> {
    time.parse().unwrap()
}

/// Returns the changes within a day from a time on, in UTC.
fn span(recurrence: &Recurrence, from: &str) -> Vec<String> {
    let mut changes = Vec::new();
    let mut was = recurrence.active_at(at(from));
    for minute in 1..=24 * 60 {
        let now = at(from) + TimeDelta::minutes(minute);
        if recurrence.active_at(now) != was {
            was = !was;
            changes.push(now.format("%H:%M").to_string());
        }
    }
    changes
}

#[test]
fn both_changes_in_berlin() {
    // In Berlin, clocks jump from 02:00 to 03:00 on 2026-03-29 at 01:00 UTC, and back from 03:00 to 02:00 on
    // 2026-10-25.
    for (when, day, expected) in [
        ("daily 01:00-04:00", "2026-03-28", vec!["00:00", "02:00"]),
        // A start that does not exist moves to the first instant after the gap.
        ("daily 02:30-03:30", "2026-03-28", vec!["01:00", "01:30"]),
        // So does an end.
        ("daily 01:30-02:30", "2026-03-28", vec!["00:30", "01:00"]),
        // An occurrence that is skipped entirely does not happen.
        ("daily 02:10-02:50", "2026-03-28", vec![]),
        ("daily 01:00-04:00", "2026-10-24", vec!["23:00", "03:00"]),
        // Of a repeated time, the first instant is the start and the second is the end.
        ("sun 02:30-03:30", "2026-10-24", vec!["00:30", "02:30"]),
        ("sun 01:30-02:30", "2026-10-24", vec!["23:30", "01:30"]),
        ("sun 02:10-02:50", "2026-10-24", vec!["00:10", "01:50"]),
    ] {
        let recurrence = Recurrence::parse(when, "Europe/Berlin").unwrap();
        assert_eq!(span(&recurrence, &format!("{day}T12:00:00Z")), expected, "{when} {day}");
    }
    let night = Recurrence::parse("sat 22:00-06:00", "Europe/Berlin").unwrap();
    assert_eq!(span(&night, "2026-03-28T12:00:00Z"), ["21:00", "04:00"], "seven hours");
    assert_eq!(span(&night, "2026-10-24T12:00:00Z"), ["20:00", "05:00"], "nine hours");
}

#[test]
fn a_day_is_that_of_the_beginning() {
    let weekend = Recurrence::parse("sat,sun 22:00-06:00", "UTC").unwrap();
    for (time, active) in [
        ("2026-06-13T21:59:59Z", false), // Saturday
        ("2026-06-13T22:00:00Z", true),
        ("2026-06-14T05:59:59Z", true),
        ("2026-06-14T06:00:00Z", false),
        ("2026-06-14T22:00:00Z", true),
        ("2026-06-15T05:59:59Z", true), // Monday
        ("2026-06-15T22:00:00Z", false),
        ("2026-06-13T05:00:00Z", false),
    ] {
        assert_eq!(weekend.active_at(at(time)), active, "{time}");
    }
}

#[test]
fn what_is_written_is_read_again_and_what_is_wrong_is_said() {
    for (when, shown) in [
        ("daily 02:30-03:30", "daily 02:30-03:30"),
        ("mon-fri 1:00-2:00", "mon,tue,wed,thu,fri 01:00-02:00"),
        ("Sat,SUN  22:00 - 06:00", "sat,sun 22:00-06:00"),
        ("fri-mon 00:00-24:00", "mon,fri,sat,sun 00:00-00:00"),
        ("mon-sun 10:00-11:00", "daily 10:00-11:00"),
    ] {
        let recurrence = Recurrence::parse(when, "Europe/Berlin").unwrap();
        assert_eq!(recurrence.to_string(), shown);
        let json = serde_json::to_string(&recurrence).unwrap();
        assert_eq!(json, format!(r#"{{"when":"{shown}","timezone":"Europe/Berlin"}}"#));
        assert_eq!(serde_json::from_str::<Recurrence>(&json).unwrap(), recurrence);
    }
    for (when, zone, problem) in [
        ("daily", "UTC", "names no times"),
        ("daily 10:00", "UTC", "is no time to another"),
        ("daily 10:00-25:00", "UTC", "`25:00` is no time of day"),
        ("weekend 10:00-11:00", "UTC", "`weekend` is no day of the week"),
        ("mon-foo 10:00-11:00", "UTC", "`foo` is no day of the week"),
        ("daily 10:00-11:00", "Berlin", "unknown time zone `Berlin`"),
    ] {
        let error = Recurrence::parse(when, zone).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}

/// Checks by the local clock alone; only valid for times that no clock change affects.
fn by_the_clock(now: DateTime<Utc>, zone: Tz, from: NaiveTime, to: NaiveTime) -> bool {
    let shown = now.with_timezone(&zone).time().with_nanosecond(0).unwrap();
    if from < to { from <= shown && shown < to } else { shown >= from || shown < to }
}

/// Computes an occurrence independently: it starts in the first minute in which local clocks have reached `from`. It
/// ends in the last minute in which they show `to`, or else after the last one in which they have not reached it.
fn by_stepping(day: NaiveDate, zone: Tz, from: NaiveTime, to: NaiveTime) -> (DateTime<Utc>, DateTime<Utc>) {
    let start_local = day.and_time(from);
    let end_local = if to <= from { day.succ_opt().unwrap() } else { day }.and_time(to);
    // Far enough before and after the day for every offset from UTC.
    let base = day.and_time(NaiveTime::MIN).and_utc() - TimeDelta::hours(16);
    let minutes = |hours: i64| (0..hours * 12).map(move |step| base + TimeDelta::minutes(step * 5));
    let local = |instant: DateTime<Utc>| instant.with_timezone(&zone).naive_local();
    let start = minutes(48).find(|instant| local(*instant) >= start_local).unwrap();
    let last = minutes(84).rfind(|instant| local(*instant) <= end_local).unwrap();
    (start, if local(last) == end_local { last } else { last + TimeDelta::minutes(5) })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn it_agrees_with_brute_force_through_every_change(
        change in 0_usize..CHANGES.len(),
        from in 0_u32..24 * 12,
        to in 0_u32..24 * 12,
        // Mostly close to the clock change itself.
        near in prop::bool::weighted(0.7),
    ) {
        let (zone, day) = CHANGES[change];
        let shift = |value: u32| if near { (value % 36) + 12 } else { value };
        let time = |value: u32| NaiveTime::from_num_seconds_from_midnight_opt(shift(value) * 300, 0).unwrap();
        let (from, to) = (time(from), time(to));
        let recurrence = Recurrence::parse(&format!("daily {}-{}", from.format("%H:%M"), to.format("%H:%M")), zone).unwrap();
        let zone: Tz = zone.parse().unwrap();
        let noon = at(&format!("{day}T12:00:00Z"));
        let days = (-3..=3).map(|days| (noon + TimeDelta::days(days)).date_naive());
        let spans: Vec<_> = days.map(|day| by_stepping(day, zone, from, to)).collect();
        for minute in (-36 * 12..36 * 12).map(|step| step * 5) {
            let now = noon + TimeDelta::minutes(minute);
            let expected = spans.iter().any(|(start, end)| *start <= now && now < *end);
            prop_assert_eq!(recurrence.active_at(now), expected, "{} {} {} {}", now, zone, from, to);
            if minute.abs() > 26 * 60 {
                prop_assert_eq!(expected, by_the_clock(now, zone, from, to), "{} {} {} {}", now, zone, from, to);
            }
        }
    }

    #[test]
    fn the_next_change_is_the_next(
        change in 0_usize..CHANGES.len(),
        times in (0_u32..48, 0_u32..48, 0_usize..7),
        hours in -60_i64..60,
    ) {
        let (zone, day) = CHANGES[change];
        let time = |half: u32| format!("{:02}:{:02}", half / 2, half % 2 * 30);
        let days = ["daily", "sun", "sat,sun", "mon-fri", "sat", "mon", "sun-tue"][times.2];
        let when = format!("{days} {}-{}", time(times.0), time(times.1));
        let silence = Silence {
            id: Uuid::nil(),
            matchers: vec!["a=b".parse().unwrap()],
            starts_at: at(&format!("{day}T12:00:00Z")) - TimeDelta::days(10),
            ends_at: at(&format!("{day}T12:00:00Z")) + TimeDelta::days(10),
            recurrence: Some(Recurrence::parse(&when, zone).unwrap()),
            created_by: "ann".to_owned(),
            reason: "because".to_owned(),
            ended_at: None,
        };
        let now = at(&format!("{day}T12:00:00Z")) + TimeDelta::hours(hours);
        let is_active = silence.active_at(now);
        let steps = (1..).map(|step| now + TimeDelta::minutes(step * 15)).take_while(|step| *step <= silence.ends_at);
        let expected = steps.into_iter().find(|step| silence.active_at(*step) != is_active);
        prop_assert_eq!(silence.next_change_after(now), expected, "{} {} {}", when, zone, now);
    }
}
