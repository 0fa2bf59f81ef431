//! Weekly recurring times in a time zone.

use std::fmt;

use chrono::{DateTime, Datelike, Days, MappedLocalTime, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc, Weekday};
use chrono_tz::{GapInfo, Tz};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Days of the week and two times of day, such as `sat,sun 22:00-06:00`, in a time zone.
///
/// The days are those on which an occurrence starts; if the end is not later than the start, it ends on the next day.
/// A start or an end that a clock change skips moves to the first instant after the gap. Of a time that a clock change
/// repeats, the first instant is the start and the second is the end. So a silence is never shorter than requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recurrence {
    /// For each day of the week, from Monday: whether an occurrence starts on it.
    days: [bool; 7],
    from: NaiveTime,
    to: NaiveTime,
    timezone: Tz,
}

/// The text is not a valid recurrence; holds the reason.
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
    /// Parses days and times, such as `daily 02:30-03:30`, `mon-fri 01:00-02:00` or `sat,sun 22:00-06:00`, and the
    /// name of a time zone, such as `Europe/Berlin`.
    ///
    /// # Errors
    /// Returns a description of what is wrong with either.
    pub fn parse(when: &str, timezone: &str) -> Result<Self, RecurrenceError> {
        let wrong = |problem: String| RecurrenceError(format!("{problem}; write for example `sat,sun 22:00-06:00`"));
        let timezone: Tz = timezone.trim().parse().map_err(|_| {
            RecurrenceError(format!("unknown time zone `{timezone}`: expected a name such as `Europe/Berlin`"))
        })?;
        let (days, times) =
            when.trim().split_once(char::is_whitespace).ok_or_else(|| wrong(format!("`{when}` names no times")))?;
        let (from, to) = times.split_once('-').ok_or_else(|| wrong(format!("`{times}` is no time to another")))?;
        let time = |text: &str| {
            // The end of a day is the start of the next one.
            let text = if text.trim() == "24:00" { "00:00" } else { text.trim() };
            NaiveTime::parse_from_str(text, "%H:%M").map_err(|_| wrong(format!("`{text}` is no time of day")))
        };
        Ok(Self { days: days_of(days).map_err(wrong)?, from: time(from)?, to: time(to)?, timezone })
    }

    /// Checks whether `now` is within an occurrence.
    pub fn active_at(&self, now: DateTime<Utc>) -> bool {
        // Two days before: an occurrence can last one day, and a clock change can move it by another.
        self.occurrences(now, 2, 1).any(|(start, end)| start <= now && now < end)
    }

    /// Returns start and end of the occurrences from `before` days before `now` to `after` days after it. Omits
    /// occurrences that a clock change skips entirely.
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

    /// Returns the instant at which clocks show a time, or the first instant after the gap if they skip it.
    fn instant(
        &self,
        local: NaiveDateTime,
        of_two: fn(MappedLocalTime<DateTime<Tz>>) -> Option<DateTime<Tz>>,
    ) -> Option<DateTime<Utc>> {
        let shown = of_two(self.timezone.from_local_datetime(&local));
        let instant = shown.or_else(|| GapInfo::new(&local, &self.timezone)?.end);
        instant.map(|instant| instant.with_timezone(&Utc))
    }

    /// Returns the days and times, in the form that `parse` accepts.
    pub fn when(&self) -> String {
        self.to_string()
    }

    /// Returns the time zone.
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
        // `fri-mon` wraps around the end of the week.
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

/// Formats days and times, without the time zone.
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
