//! Times that come again each week, by the clock of a place.

use std::fmt;

use chrono::{DateTime, Datelike, Days, MappedLocalTime, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc, Weekday};
use chrono_tz::{GapInfo, Tz};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Days of the week and two times of day: `sat,sun 22:00-06:00`, by the clock of a time zone.
///
/// A day is that on which the time begins; where it ends no later than it begins, it ends on the day after. A
/// beginning that clocks skip is the first instant after the gap, as is an end; of one that clocks show twice the
/// first counts as the beginning, and the second as the end. So a silence never is shorter than what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recurrence {
    /// For each day of the week, from Monday, whether it begins there.
    days: [bool; 7],
    from: NaiveTime,
    to: NaiveTime,
    timezone: Tz,
}

/// The text is no recurrence, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RecurrenceError(String);

const WEEK: [(Weekday, &str); 7] = [
    (Weekday::Mon, "mon"),
    (Weekday::Tue, "tue"),
    (Weekday::Wed, "wed"),
    (Weekday::Thu, "thu"),
    (Weekday::Fri, "fri"),
    (Weekday::Sat, "sat"),
    (Weekday::Sun, "sun"),
];

impl Recurrence {
    /// Reads days and times, such as `daily 02:30-03:30`, `mon-fri 01:00-02:00` or `sat,sun 22:00-06:00`, and the name
    /// of a time zone, such as `Europe/Berlin`.
    ///
    /// # Errors
    /// What is wrong with either.
    pub fn parse(when: &str, timezone: &str) -> Result<Self, RecurrenceError> {
        let wrong = |problem: String| RecurrenceError(format!("{problem}; expected such as `sat,sun 22:00-06:00`"));
        let timezone: Tz = timezone.trim().parse().map_err(|_| {
            RecurrenceError(format!("unknown time zone `{timezone}`: expected such as `Europe/Berlin`"))
        })?;
        let (days, times) =
            when.trim().split_once(char::is_whitespace).ok_or_else(|| wrong(format!("`{when}` names no times")))?;
        let (from, to) = times.split_once('-').ok_or_else(|| wrong(format!("`{times}` is no time to another")))?;
        let time = |text: &str| {
            // The end of a day is the beginning of the next.
            let text = if text.trim() == "24:00" { "00:00" } else { text.trim() };
            NaiveTime::parse_from_str(text, "%H:%M").map_err(|_| wrong(format!("`{text}` is no time of day")))
        };
        Ok(Self { days: days_of(days).map_err(wrong)?, from: time(from)?, to: time(to)?, timezone })
    }

    /// Whether it is such a time.
    pub fn active_at(&self, now: DateTime<Utc>) -> bool {
        // Two days before, because an occurrence may take one and clocks may be moved by another.
        self.occurrences(now, 2, 1).any(|(start, end)| start <= now && now < end)
    }

    /// Beginnings and ends around `now`: of occurrences on so many days before and after, without those that clocks
    /// skip as a whole.
    pub(crate) fn occurrences(
        &self,
        now: DateTime<Utc>,
        days_before: u64,
        days_after: u64,
    ) -> impl Iterator<Item = (DateTime<Utc>, DateTime<Utc>)> {
        let today = now.with_timezone(&self.timezone).date_naive();
        let first = today.checked_sub_days(Days::new(days_before)).unwrap_or(NaiveDate::MIN);
        let count = usize::try_from(days_before + days_after + 1).unwrap_or(usize::MAX);
        let days = first.iter_days().take(count);
        days.filter_map(|day| self.occurrence(day)).collect::<Vec<_>>().into_iter()
    }

    fn occurrence(&self, day: NaiveDate) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        let number = usize::try_from(day.weekday().num_days_from_monday()).ok()?;
        if !*self.days.get(number)? {
            return None;
        }
        let last = if self.to <= self.from { day.succ_opt()? } else { day };
        let start = self.instant(day.and_time(self.from), MappedLocalTime::earliest)?;
        let end = self.instant(last.and_time(self.to), MappedLocalTime::latest)?;
        (start < end).then_some((start, end))
    }

    /// When clocks show a time; where they skip it, the first instant after the gap.
    fn instant(
        &self,
        local: NaiveDateTime,
        of_two: fn(MappedLocalTime<DateTime<Tz>>) -> Option<DateTime<Tz>>,
    ) -> Option<DateTime<Utc>> {
        let shown = of_two(self.timezone.from_local_datetime(&local));
        let instant = shown.or_else(|| GapInfo::new(&local, &self.timezone)?.end);
        instant.map(|instant| instant.with_timezone(&Utc))
    }

    /// The days and times, as they are read.
    pub fn when(&self) -> String {
        self.to_string()
    }

    /// By whose clock.
    pub fn timezone(&self) -> Tz {
        self.timezone
    }
}

fn days_of(text: &str) -> Result<[bool; 7], String> {
    let mut days = [false; 7];
    if text.eq_ignore_ascii_case("daily") {
        return Ok([true; 7]);
    }
    let number = |name: &str| {
        let name = name.trim().to_ascii_lowercase();
        WEEK.iter().position(|(_, day)| *day == name).ok_or_else(|| format!("`{name}` is no day of the week"))
    };
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut day, last) = (number(first)?, number(last)?);
        // `fri-mon` goes over the end of the week.
        loop {
            if let Some(chosen) = days.get_mut(day) {
                *chosen = true;
            }
            if day == last {
                break;
            }
            day = (day + 1) % 7;
        }
    }
    Ok(days)
}

/// Days and times, without the time zone.
impl fmt::Display for Recurrence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days == [true; 7] {
            f.write_str("daily")?;
        } else {
            let names = WEEK.iter().zip(self.days).filter(|(_, chosen)| *chosen).map(|((_, name), _)| *name);
            f.write_str(&names.collect::<Vec<_>>().join(","))?;
        }
        write!(f, " {}-{}", self.from.format("%H:%M"), self.to.format("%H:%M"))
    }
}

#[derive(Serialize, Deserialize)]
struct Written {
    when: String,
    timezone: String,
}

impl Serialize for Recurrence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Written { when: self.to_string(), timezone: self.timezone.name().to_owned() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Recurrence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        Self::parse(&written.when, &written.timezone).map_err(serde::de::Error::custom)
    }
}
