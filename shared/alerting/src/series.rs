//! Windows of counts by group, kept in memory: the input of the evaluation.
//!
//! A series takes the groups of roll-ups, merges those that belong to the same group of its rules, and keeps only the
//! window. Reading a group costs the same whatever the traffic was.

use std::collections::{HashMap, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use records::Kind;
use records::rollup::{CANARY_EVENT, Level, MinuteGroups, ORGANIZATION};
use records::subject::NO_ORGANIZATION;

use crate::notification::Labels;
use crate::rule::{FailedWhen, Outcome};

/// The maximum number of buckets in a window: an hour is kept by the minute, a day in steps of 12 minutes.
///
/// A bucket takes 16 bytes for each group of each distinct series, or 40 if a level is measured. So an hour of 10,000
/// groups, the default of `[alerts] max_groups`, takes about 10 MB.
const MAX_BUCKETS: i64 = 120;
/// How long after its minute a record may arrive. Writers count a record in its own minute only if that minute is at
/// most this far behind the stream's clock, and otherwise in the stream's minute.
const ARRIVES_WITHIN: TimeDelta = TimeDelta::minutes(15);

/// The quantity that a series counts. Rules with equal shapes share a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// The kind; `None` if groups are added by name and nothing is counted.
    pub kind: Option<Kind>,
    /// Count only groups with these labels.
    pub filter: Labels,
    /// Which records are failures; `None` to use the kind's own definition.
    pub failed_when: Option<FailedWhen>,
    /// Keep one group for each combination of values of these labels.
    pub group_by: Vec<String>,
    /// The length of the window.
    pub window: TimeDelta,
    /// The level to measure, if any.
    pub field: Option<String>,
}

/// Roll-ups of one minute, from one batch or several.
#[derive(Debug, Clone, Copy)]
pub struct Minute<'m> {
    /// The kind.
    pub kind: Kind,
    /// The start of the minute.
    pub minute: DateTime<Utc>,
    /// The names of the labels, the organization first.
    pub label_names: &'m [String],
    /// The names of the levels.
    pub level_names: &'m [String],
    /// The groups.
    pub groups: &'m MinuteGroups<'static>,
}

/// The contents of a group's window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Number of records.
    pub total: u64,
    /// Number of records that failed.
    pub failed: u64,
    /// Records of the bucket that is leaving the window, in proportion to the part of it that is still inside: buckets
    /// are whole minutes, windows are not. Used for counts and rates; ratios only use whole records.
    pub fading: u64,
    /// The measured level.
    pub level: Level,
    /// When the group was last seen: the last minute of its records, or the arrival of a record if that is later.
    pub last_seen_at: Option<DateTime<Utc>>,
}

/// A window of counts for each group; see the module.
#[derive(Debug)]
pub struct Series {
    shape: Shape,
    bucket_minutes: i64,
    buckets: i64,
    slots: Vec<Group>,
    by_key: HashMap<String, usize>,
    free: Vec<usize>,
    touched: Vec<usize>,
    max_groups: usize,
    overflow: u64,
    key: String,
}

/// A group. It keeps its slot until it is forgotten.
#[derive(Debug, Default)]
struct Group {
    key: String,
    labels: Vec<Option<String>>,
    buckets: VecDeque<Bucket>,
    /// The bucket that has just left the window, but is still partly inside it.
    fading: Option<Bucket>,
    /// The level of `fading`. It counts in full: otherwise there would be no level at the start of each minute.
    fading_level: Option<Level>,
    /// The level of each bucket; empty if no level is measured.
    levels: VecDeque<Level>,
    total: u64,
    failed: u64,
    last_minute: Option<i64>,
    /// When its last record arrived, whatever the producer's clock says.
    arrived_at: Option<DateTime<Utc>>,
    is_touched: bool,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    number: i64,
    total: u32,
    failed: u32,
}

impl Series {
    /// Creates a series of at most `max_groups` groups. Records of further groups are counted in [`Series::overflow`].
    pub fn new(shape: Shape, max_groups: usize) -> Self {
        let minutes = (shape.window.num_seconds() + 59) / 60;
        let bucket_minutes = (minutes + MAX_BUCKETS - 1) / MAX_BUCKETS;
        let bucket_minutes = bucket_minutes.max(1);
        let mut series = Self {
            buckets: ((minutes + bucket_minutes - 1) / bucket_minutes).max(1),
            bucket_minutes,
            slots: Vec::new(),
            by_key: HashMap::new(),
            free: Vec::new(),
            touched: Vec::new(),
            max_groups,
            overflow: 0,
            key: String::new(),
            shape,
        };
        // Without `group_by` there is one group that always exists: its silence matters too.
        if series.shape.group_by.is_empty() {
            series.slot_of(&[]);
        }
        series
    }

    /// Returns what it counts.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Returns the number of records that were left out because there are too many groups.
    pub fn overflow(&self) -> u64 {
        self.overflow
    }

    /// Returns every slot that holds a group.
    pub fn slots(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.slots.len()).filter(|slot| !self.is_free(*slot))
    }

    /// Returns the number of groups.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Checks whether there are no groups.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    fn is_free(&self, slot: usize) -> bool {
        self.slots.get(slot).is_none_or(|group| self.by_key.get(&group.key).is_none_or(|found| *found != slot))
    }

    /// Returns the labels of a group, without those that have no value.
    pub fn labels(&self, slot: usize) -> Labels {
        let Some(group) = self.slots.get(slot) else { return Labels::new() };
        let pairs = self.shape.group_by.iter().zip(&group.labels);
        pairs.filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect()
    }

    /// Returns the last minute with records of a group.
    pub fn last_minute(&self, slot: usize) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp(self.slots.get(slot)?.last_minute? * 60, 0)
    }

    /// Returns the slots that counts were added to since the last call.
    pub fn take_touched(&mut self) -> Vec<usize> {
        let touched = std::mem::take(&mut self.touched);
        for slot in &touched {
            if let Some(group) = self.slots.get_mut(*slot) {
                group.is_touched = false;
            }
        }
        touched
    }

    /// Returns the slot of the group with these labels. Creates the group if needed, even above `max_groups`: a group
    /// is only requested by name for an alert, a rule on ingest or a baseline.
    pub fn slot_with(&mut self, labels: &Labels) -> Option<usize> {
        let values: Vec<_> = self.shape.group_by.iter().map(|name| labels.get(name).cloned()).collect();
        let values: Vec<_> = values.iter().map(Option::as_deref).collect();
        self.slot_within(&values, usize::MAX)
    }

    fn slot_of(&mut self, labels: &[Option<&str>]) -> Option<usize> {
        self.slot_within(labels, self.max_groups)
    }

    fn slot_within(&mut self, labels: &[Option<&str>], max_groups: usize) -> Option<usize> {
        self.key.clear();
        for label in labels {
            match label {
                // A length prefix keeps adjacent labels distinct.
                Some(label) => {
                    self.key.push(char::from_u32(label.len() as u32 + 1).unwrap_or('\u{1}'));
                    self.key.push_str(label);
                }
                None => self.key.push('\0'),
            }
        }
        if let Some(slot) = self.by_key.get(self.key.as_str()) {
            return Some(*slot);
        }
        if self.by_key.len() >= max_groups {
            return None;
        }
        let group = Group {
            key: self.key.clone(),
            labels: labels.iter().map(|label| label.map(str::to_owned)).collect(),
            ..Group::default()
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = group;
                slot
            }
            None => {
                self.slots.push(group);
                self.slots.len() - 1
            }
        };
        self.by_key.insert(self.key.clone(), slot);
        Some(slot)
    }

    /// Adds the groups of a minute. Ignores other kinds.
    pub fn add(&mut self, minute: Minute<'_>) {
        self.add_arrived(minute, None);
    }

    /// Adds the groups of a minute whose records have arrived by `now`. A record is a sign of life when it arrives,
    /// even if its producer's clock is behind. Its arrival counts as at most 15 minutes after its minute, because the
    /// record may have waited in the stream.
    pub fn add_new(&mut self, minute: Minute<'_>, now: DateTime<Utc>) {
        let latest = minute.minute + TimeDelta::seconds(59) + ARRIVES_WITHIN;
        self.add_arrived(minute, Some(latest.min(now)));
    }

    /// Forgets when records of a group arrived, so that only the last minute of its records counts.
    pub(crate) fn forget_arrival(&mut self, slot: usize) {
        if let Some(group) = self.slots.get_mut(slot) {
            group.arrived_at = None;
        }
    }

    fn add_arrived(&mut self, minute: Minute<'_>, arrived_at: Option<DateTime<Utc>>) {
        if self.shape.kind != Some(minute.kind) {
            return;
        }
        let (names, groups) = (minute.label_names, minute.groups);
        let place = |name: &str| names.iter().position(|known| known == name);
        let label = |group: usize, place: Option<usize>| {
            let value = groups.label(group, place?, names.len());
            // Records without an organization are labelled as in subjects.
            if place == Some(0) { Some(value.unwrap_or(NO_ORGANIZATION)) } else { value }
        };
        let group_by: Vec<_> = self.shape.group_by.iter().map(|name| place(name)).collect();
        let filter: Vec<_> = self.shape.filter.iter().map(|(name, value)| (place(name), value.clone())).collect();
        let failed_when = self.shape.failed_when.clone();
        let level =
            self.shape.field.as_ref().and_then(|field| minute.level_names.iter().position(|name| name == field));
        let (organization, event_type) = (place(ORGANIZATION), place("event_type"));
        let number = minute.minute.timestamp().div_euclid(60);
        let mut values = Vec::with_capacity(group_by.len());
        for group in 0..groups.len() {
            let is_canary = minute.kind == Kind::Events
                && label(group, event_type) == Some(CANARY_EVENT)
                && label(group, organization) == Some(NO_ORGANIZATION);
            if is_canary || filter.iter().any(|(place, value)| label(group, *place) != Some(value.as_str())) {
                continue;
            }
            let count = |counts: &[u32]| counts.get(group).copied().map_or(0, u64::from);
            let (total, own_failed) = (count(&groups.total), count(&groups.failed));
            let failed = match &failed_when {
                None => own_failed,
                Some(when) if !when.matches(|name| label(group, place(name))) => 0,
                Some(when) => match when.outcome() {
                    Outcome::All => total,
                    Outcome::Failed => own_failed,
                    Outcome::Succeeded => total.saturating_sub(own_failed),
                },
            };
            values.clear();
            values.extend(group_by.iter().map(|place| label(group, *place)));
            let Some(slot) = self.slot_of(&values) else {
                self.overflow += total;
                continue;
            };
            let measured = level
                .and_then(|level| groups.levels.get(group * minute.level_names.len() + level).copied())
                .unwrap_or(Level::NONE);
            if let Some(group) = self.slots.get_mut(slot) {
                group.arrived_at = group.arrived_at.max(arrived_at);
            }
            self.count(slot, number, total, failed, measured);
        }
    }

    fn count(&mut self, slot: usize, minute: i64, total: u64, failed: u64, level: Level) {
        let number = minute.div_euclid(self.bucket_minutes);
        let measures = self.shape.field.is_some();
        let Some(group) = self.slots.get_mut(slot) else { return };
        group.last_minute = group.last_minute.max(Some(minute));
        if !std::mem::replace(&mut group.is_touched, true) {
            self.touched.push(slot);
        }
        group.total += total;
        group.failed += failed;
        let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let place = group.buckets.partition_point(|bucket| bucket.number < number);
        match group.buckets.get_mut(place) {
            Some(bucket) if bucket.number == number => {
                bucket.total = bucket.total.saturating_add(narrow(total));
                bucket.failed = bucket.failed.saturating_add(narrow(failed));
                if let Some(known) = group.levels.get_mut(place) {
                    known.add(level);
                }
            }
            _ => {
                group.buckets.insert(place, Bucket { number, total: narrow(total), failed: narrow(failed) });
                if measures {
                    group.levels.insert(place, level);
                }
            }
        }
    }

    /// Returns the contents of a group's window at `now`. Drops buckets that have left the window, so time must not
    /// run backwards by more than a bucket.
    pub fn figures(&mut self, slot: usize, now: DateTime<Utc>) -> Figures {
        let seconds = 60 * self.bucket_minutes;
        let (oldest, into_newest) =
            (now.timestamp().div_euclid(seconds) - self.buckets + 1, now.timestamp().rem_euclid(seconds));
        let Some(group) = self.slots.get_mut(slot) else {
            return Figures { total: 0, failed: 0, fading: 0, level: Level::NONE, last_seen_at: None };
        };
        while let Some(bucket) = group.buckets.front()
            && bucket.number < oldest
        {
            group.total = group.total.saturating_sub(u64::from(bucket.total));
            group.failed = group.failed.saturating_sub(u64::from(bucket.failed));
            if bucket.number == oldest - 1 {
                let before = group.fading.filter(|fading| fading.number == bucket.number);
                let total = before.map_or(0, |fading| fading.total).saturating_add(bucket.total);
                let level = before.and(group.fading_level);
                group.fading = Some(Bucket { total, ..*bucket });
                group.fading_level = group.levels.front().map(|newer| {
                    let mut level = level.unwrap_or(Level::NONE);
                    level.add(*newer);
                    level
                });
            }
            group.buckets.pop_front();
            group.levels.pop_front();
        }
        group.fading = group.fading.filter(|fading| fading.number == oldest - 1);
        let fading = group.fading.map_or(0, |fading| i64::from(fading.total) * (seconds - into_newest) / seconds);
        let mut level = group.fading.and(group.fading_level).unwrap_or(Level::NONE);
        group.levels.iter().for_each(|bucket| level.add(*bucket));
        // The record is from somewhere in that minute. Assuming its end avoids alerting too early.
        let last_seen_at = group
            .last_minute
            .and_then(|minute| DateTime::from_timestamp(minute * 60 + 59, 0))
            .max(group.arrived_at)
            .map(|seen| seen.min(now));
        let fading = fading.unsigned_abs();
        Figures { total: group.total, failed: group.failed, fading, level, last_seen_at }
    }

    /// Forgets groups without records since `since` for which `keep` is false. Returns their slots.
    pub fn forget(&mut self, since: DateTime<Utc>, keep: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut gone = Vec::new();
        if self.shape.kind.is_none() || self.shape.group_by.is_empty() {
            return gone;
        }
        let since = since.timestamp().div_euclid(60);
        for slot in 0..self.slots.len() {
            let is_old = self.slots[slot].last_minute.is_none_or(|minute| minute < since);
            if is_old && !self.is_free(slot) && !keep(slot) {
                let group = std::mem::take(&mut self.slots[slot]);
                self.by_key.remove(&group.key);
                self.free.push(slot);
                gone.push(slot);
            }
        }
        self.touched.retain(|slot| !gone.contains(slot));
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noon() -> DateTime<Utc> {
        "2026-06-15T12:00:00Z".parse().unwrap()
    }

    fn series(window: TimeDelta, group_by: &[&str], max_groups: usize) -> Series {
        let group_by = group_by.iter().map(|name| (*name).to_owned()).collect();
        let kind = Some(Kind::Events);
        let shape = Shape { kind, filter: Labels::new(), failed_when: None, group_by, window, field: None };
        Series::new(shape, max_groups)
    }

    fn add(series: &mut Series, minute: DateTime<Utc>, organization: &str, total: u32) {
        let groups = MinuteGroups {
            dictionary: vec![organization.to_owned().into()],
            places: vec![1],
            total: vec![total],
            failed: vec![0],
            levels: Vec::new(),
        };
        let names = [ORGANIZATION.to_owned()];
        series.add(Minute { kind: Kind::Events, minute, label_names: &names, level_names: &[], groups: &groups });
    }

    #[test]
    fn a_steady_rate_is_the_same_at_every_second() {
        for window in [1, 5, 60] {
            let mut series = series(TimeDelta::minutes(window), &[], 10);
            let mut written = -90;
            for second in 0..300 {
                let now = noon() + TimeDelta::seconds(second);
                // Ten a second: the whole minutes, and the part of this minute that has passed.
                while written < now.timestamp().div_euclid(60) - noon().timestamp() / 60 {
                    add(&mut series, noon() + TimeDelta::minutes(written), "acme", 600);
                    written += 1;
                }
                let figures = series.figures(0, now);
                let of_this_minute = 10 * (second as u64 % 60);
                assert_eq!(
                    figures.total + figures.fading + of_this_minute,
                    600 * window as u64,
                    "{window} m, second {second}"
                );
            }
        }
    }

    #[test]
    fn what_arrives_is_heard_of_whatever_its_clock_says_and_what_waited_is_not() {
        let groups = MinuteGroups { places: vec![0], total: vec![1], failed: vec![0], ..MinuteGroups::default() };
        let names = [ORGANIZATION.to_owned()];
        let seen_at = |behind: i64, waited: i64| {
            let mut series = series(TimeDelta::hours(1), &[], 10);
            let minute = noon() - TimeDelta::minutes(behind + waited);
            let minute = Minute { kind: Kind::Events, minute, label_names: &names, level_names: &[], groups: &groups };
            series.add_new(minute, noon());
            let seen = series.figures(0, noon()).last_seen_at;
            series.forget_arrival(0);
            (noon() - seen.unwrap(), noon() - series.figures(0, noon()).last_seen_at.unwrap())
        };
        let seconds = |minutes: i64| (TimeDelta::minutes(minutes) - TimeDelta::seconds(59)).max(TimeDelta::zero());
        assert_eq!(seen_at(0, 0), (seconds(0), seconds(0)));
        assert_eq!(seen_at(14, 0), (seconds(0), seconds(14)));
        assert_eq!(seen_at(0, 60), (seconds(45), seconds(60)));
        // Ahead of our clock: it cannot have been seen later than now.
        assert_eq!(seen_at(-1, 0), (seconds(0), seconds(0)));
    }

    #[test]
    fn a_clock_that_is_ahead_takes_nothing_from_others() {
        let mut short = series(TimeDelta::minutes(1), &[], 10);
        add(&mut short, noon() + TimeDelta::minutes(1), "fast", 1);
        add(&mut short, noon(), "right", 400);
        assert_eq!(short.figures(0, noon() + TimeDelta::seconds(30)).total, 401);
        // Late records within the window still count.
        let mut series = series(TimeDelta::minutes(5), &[], 10);
        add(&mut series, noon(), "x", 1);
        add(&mut series, noon() - TimeDelta::minutes(4), "x", 10);
        add(&mut series, noon() - TimeDelta::minutes(5), "x", 100);
        add(&mut series, noon() - TimeDelta::minutes(9), "x", 1_000);
        let figures = series.figures(0, noon() + TimeDelta::seconds(30));
        assert_eq!((figures.total, figures.fading), (11, 50));
    }

    #[test]
    fn groups_have_a_bound_that_names_do_not() {
        let mut series = series(TimeDelta::hours(1), &[ORGANIZATION], 2);
        for organization in ["a", "b", "c"] {
            add(&mut series, noon(), organization, 7);
        }
        assert_eq!((series.len(), series.overflow()), (2, 7));
        let labels = Labels::from([(ORGANIZATION.to_owned(), "c".to_owned())]);
        let slot = series.slot_with(&labels).unwrap();
        add(&mut series, noon(), "c", 7);
        assert_eq!((series.figures(slot, noon()).total, series.labels(slot)), (7, labels));
        // A reused slot holds nothing of the group that was forgotten.
        let later = noon() + TimeDelta::hours(30);
        assert_eq!(series.forget(later, |kept| kept == slot).len(), 2);
        add(&mut series, later, "d", 1);
        assert_eq!(series.len(), 2);
        let totals: u64 =
            series.slots().collect::<Vec<_>>().into_iter().map(|slot| series.figures(slot, later).total).sum();
        assert_eq!(totals, 1);
    }
}
