//! Roll-ups: counts of records by minute and label, and, for kinds with a limit in bytes, volumes by day.
//!
//! The labels are read from encoded rows. So rejected records and duplicates are never counted, and counting costs
//! decoding nothing.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, NaiveDate, Utc};
use foldhash::fast::RandomState;

use crate::subject::NO_ORGANIZATION;
use crate::{Kind, row};

/// The first label of every kind.
pub const ORGANIZATION: &str = "organization_id";
/// The `event_type` of the canary, which checks the whole pipeline. It is published without an organization and stored
/// like any other event. Counts that are shown to users do not include it.
pub const CANARY_EVENT: &str = "watchbook.canary";

/// Maximum number of labels of a group, including the organization: the size of a key on the stack.
const MAX_LABELS: usize = 6;

/// Maximum number of groups of a minute after folding. Further groups are counted under their organization alone, so a
/// label with a different value in each record does not fill the disk.
const MAX_FOLDED_GROUPS: usize = 50_000;

/// A column by which the roll-ups group (a label), or which they measure (a level).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// A label: `text`, null or not.
    Text(&'static str),
    /// A label: `boolean`, as `true` or `false`.
    Boolean(&'static str),
    /// A level: `double precision`.
    Double(&'static str),
    /// A level: `bigint`.
    Bigint(&'static str),
}

impl Column {
    /// Returns the name of the column.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text(name) | Self::Boolean(name) | Self::Double(name) | Self::Bigint(name) => name,
        }
    }

    /// Returns the value of a label; `None` for NULL.
    fn label(self, value: Option<&[u8]>) -> Option<&[u8]> {
        match (self, value?) {
            (Self::Boolean(_), [0]) => Some(b"false"),
            (Self::Boolean(_), [_]) => Some(b"true"),
            (_, value) => Some(value),
        }
    }

    /// Returns the value of a level; `None` for NULL.
    fn level(self, value: Option<&[u8]>) -> Option<f64> {
        let bytes: [u8; 8] = value?.try_into().ok()?;
        Some(match self {
            Self::Bigint(_) => i64::from_be_bytes(bytes) as f64,
            _ => f64::from_be_bytes(bytes),
        })
    }
}

/// A level of a group: the number of samples, their sum and their peak, in the unit of the column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// Number of records that had the field.
    pub samples: u32,
    /// Sum of the values.
    pub sum: f64,
    /// Greatest value; negative infinity without samples.
    pub peak: f64,
}

impl Level {
    /// No samples.
    pub const NONE: Self = Self { samples: 0, sum: 0.0, peak: f64::NEG_INFINITY };

    /// Adds the samples of another level.
    pub fn add(&mut self, other: Self) {
        self.samples = self.samples.saturating_add(other.samples);
        self.sum += other.sum;
        self.peak = self.peak.max(other.peak);
    }
}

/// The groups of one minute or one day, in the arrays in which they are stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MinuteGroups<'r> {
    /// The values of all labels, each once.
    pub dictionary: Vec<Cow<'r, str>>,
    /// For each group and label, the index of its value in the dictionary, counted from 1; 0 for NULL.
    pub places: Vec<u32>,
    /// For each group, the number of records.
    pub total: Vec<u32>,
    /// For each group, the number of records that count as failures.
    pub failed: Vec<u32>,
    /// For each group, its levels.
    pub levels: Vec<Level>,
}

impl MinuteGroups<'_> {
    /// Returns the number of groups.
    pub fn len(&self) -> usize {
        self.total.len()
    }

    /// Returns whether there are no groups.
    pub fn is_empty(&self) -> bool {
        self.total.is_empty()
    }

    /// Returns the value of a label of a group; `None` for NULL. `labels` is the number of labels of each group.
    pub fn label(&self, group: usize, label: usize, labels: usize) -> Option<&str> {
        let place = usize::try_from(*self.places.get(group * labels + label)?).ok()?;
        self.dictionary.get(place.checked_sub(1)?).map(AsRef::as_ref)
    }

    /// Returns the organization of a group, `_` for none. `labels` is the number of labels of each group.
    pub fn organization(&self, group: usize, labels: usize) -> &str {
        self.label(group, 0, labels).unwrap_or(NO_ORGANIZATION)
    }
}

/// Counts rows by minute and label, and the volumes of kinds with a limit in bytes by day.
///
/// ```
/// use records::{Headers, Kind, Message, encode, rollup::Rollup};
///
/// let message = Message {
///     kind: Kind::Events,
///     prefix: "watchbook",
///     subject: "watchbook.events.acme.build.finished",
///     stream: "WATCHBOOK_EVENTS",
///     sequence: 4711,
///     published_at: "2026-06-15T12:00:30Z".parse()?,
///     headers: &Headers::default(),
///     body: br#"{"event_type":"build.finished"}"#,
/// };
/// let mut row = Vec::new();
/// let facts = encode(&message, None, &mut row)?;
/// let mut rollup = Rollup::new(Kind::Events);
/// rollup.add(&row, facts.created_at, facts.minute, facts.failed);
/// let counts = rollup.finish();
/// let (minute, groups) = &counts.minutes[0];
/// assert_eq!(minute.to_rfc3339(), "2026-06-15T12:00:00+00:00");
/// assert_eq!(groups.total, [1]);
/// // The labels of an event are its organization, its type and its project.
/// assert_eq!(groups.label(0, 1, 3), Some("build.finished"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Rollup<'r> {
    layout: Layout,
    minutes: BTreeMap<DateTime<Utc>, Builder<'r>>,
    days: BTreeMap<NaiveDate, Builder<'r>>,
    rows: u64,
}

/// The counts of a [`Rollup`].
#[derive(Debug, Default)]
pub struct Counts<'r> {
    /// The groups of each minute, oldest minute first.
    pub minutes: Vec<(DateTime<Utc>, MinuteGroups<'r>)>,
    /// The volumes of each day of `created_at` in UTC, oldest day first; empty if the kind has no limit in bytes. Each
    /// group has [`VOLUME_LABELS`] labels, organization and owner, and one level, whose sum is the number of bytes.
    pub volumes: Vec<(NaiveDate, MinuteGroups<'r>)>,
}

/// Number of labels of a volume: organization and owner.
pub const VOLUME_LABELS: usize = 2;

impl<'r> Rollup<'r> {
    /// Returns a roll-up without rows.
    pub fn new(kind: Kind) -> Self {
        Self { layout: Layout::of(kind), minutes: BTreeMap::new(), days: BTreeMap::new(), rows: 0 }
    }

    /// Counts a row in the binary format of COPY, with the facts that [`encode`](crate::encode) returned. `minute` is
    /// not always the minute of `created_at`.
    pub fn add(&mut self, row: &'r [u8], created_at: DateTime<Utc>, minute: DateTime<Utc>, failed: bool) {
        let mut labels = [None; MAX_LABELS];
        let mut levels = [None; MAX_LABELS];
        let bytes = self.layout.read(row, &mut labels, &mut levels);
        let builder = self.minutes.entry(minute).or_default();
        let group = builder.group(&labels[..self.layout.labels.len()], self.layout.levels.len());
        builder.count(group, 1, u32::from(failed));
        for (number, value) in levels.iter().take(self.layout.levels.len()).enumerate() {
            if let Some(value) = *value {
                builder.measure(group, number, Level { samples: 1, sum: value, peak: value });
            }
        }
        if let Some(owner) = self.layout.owner {
            let day = self.days.entry(created_at.date_naive()).or_default();
            let group = day.group(&[labels[0], labels[owner]], 1);
            day.count(group, 1, 0);
            day.measure(group, 0, Level { samples: 1, sum: bytes, peak: bytes });
        }
        self.rows += 1;
    }

    /// Returns the number of rows that were counted.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the counts.
    pub fn finish(self) -> Counts<'r> {
        Counts {
            minutes: self.minutes.into_iter().map(|(minute, builder)| (minute, builder.groups)).collect(),
            volumes: self.days.into_iter().map(|(day, builder)| (day, builder.groups)).collect(),
        }
    }
}

/// Merges the groups of several stored rows of the same minute.
#[derive(Debug)]
pub struct Fold<'r> {
    builder: Builder<'r>,
}

impl<'r> Fold<'r> {
    /// Returns a fold without groups.
    pub fn new() -> Self {
        Self { builder: Builder::default() }
    }

    /// Adds groups. Each has `labels` labels and `levels` levels; these must be the same in every call.
    pub fn add(&mut self, groups: &'r MinuteGroups<'_>, labels: usize, levels: usize) {
        let mut values = [None; MAX_LABELS];
        for group in 0..groups.len() {
            for (number, value) in values.iter_mut().take(labels).enumerate() {
                *value = groups.label(group, number, labels).map(str::as_bytes);
            }
            let is_full = self.builder.groups.len() >= MAX_FOLDED_GROUPS;
            if is_full && !self.builder.knows(&values[..labels.min(MAX_LABELS)]) {
                values[1..].fill(None);
            }
            let place = self.builder.group(&values[..labels.min(MAX_LABELS)], levels);
            let count = |counts: &[u32]| counts.get(group).copied().unwrap_or_default();
            self.builder.count(place, count(&groups.total), count(&groups.failed));
            for number in 0..levels {
                self.builder.measure(
                    place,
                    number,
                    groups.levels.get(group * levels + number).copied().unwrap_or(Level::NONE),
                );
            }
        }
    }

    /// Returns the merged groups.
    pub fn finish(self) -> MinuteGroups<'r> {
        self.builder.groups
    }
}

impl Default for Fold<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// The positions of labels and levels in a row.
#[derive(Debug)]
struct Layout {
    labels: Vec<Column>,
    levels: Vec<Column>,
    /// The label that is the owner of the volume, for kinds with a limit in bytes.
    owner: Option<usize>,
    /// The role of each column of a row, up to the last one that has a role.
    roles: Vec<ColumnRole>,
}

#[derive(Debug, Clone, Copy)]
enum ColumnRole {
    None,
    Label(usize),
    Level(usize),
    /// The bytes of the column count for the volume.
    Volume,
}

impl Layout {
    fn of(kind: Kind) -> Self {
        let spec = kind.spec();
        let labels: Vec<_> = std::iter::once(Column::Text(ORGANIZATION)).chain(spec.labels.iter().copied()).collect();
        let levels = spec.levels.to_vec();
        let place = |columns: &[Column], name: &str| columns.iter().position(|column| column.name() == name);
        let mut roles: Vec<_> = kind
            .columns()
            .map(|name| match (place(&labels, name), place(&levels, name)) {
                (Some(label), _) => ColumnRole::Label(label),
                (_, Some(level)) => ColumnRole::Level(level),
                _ if spec.volume.is_some_and(|volume| volume.text == name) => ColumnRole::Volume,
                _ => ColumnRole::None,
            })
            .collect();
        roles.truncate(roles.iter().rposition(|column| !matches!(column, ColumnRole::None)).map_or(0, |last| last + 1));
        let owner = spec.volume.and_then(|volume| place(&labels, volume.owner));
        Self { labels, levels, owner, roles }
    }

    /// Reads the labels and levels of a row. Returns how many bytes count for the volume.
    fn read<'r>(
        &self,
        row: &'r [u8],
        labels: &mut [Option<&'r [u8]>; MAX_LABELS],
        levels: &mut [Option<f64>; MAX_LABELS],
    ) -> f64 {
        let mut volume = 0.0;
        for (used, value) in self.roles.iter().zip(row::values(row)) {
            match *used {
                ColumnRole::None => {}
                ColumnRole::Label(number) => {
                    labels[number] = self.labels.get(number).and_then(|column| column.label(value));
                }
                ColumnRole::Level(number) => {
                    levels[number] = self.levels.get(number).and_then(|column| column.level(value));
                }
                ColumnRole::Volume => volume = value.map_or(0.0, |value| value.len() as f64),
            }
        }
        volume
    }
}

/// The groups of a minute or a day while they are counted.
#[derive(Debug, Default)]
struct Builder<'r> {
    groups: MinuteGroups<'r>,
    levels: usize,
    words: HashMap<&'r [u8], u32, RandomState>,
    by_places: HashMap<[u32; MAX_LABELS], usize, RandomState>,
    /// The last value of each label, because most records share most of their labels with the previous one.
    last: [Option<(&'r [u8], u32)>; MAX_LABELS],
}

impl<'r> Builder<'r> {
    /// Returns the group with these labels, and adds it if there is none.
    fn group(&mut self, labels: &[Option<&'r [u8]>], levels: usize) -> usize {
        self.levels = levels;
        let mut places = [0; MAX_LABELS];
        for (number, value) in labels.iter().enumerate() {
            if let Some(value) = *value {
                places[number] = self.place(number, value);
            }
        }
        let groups = &mut self.groups;
        *self.by_places.entry(places).or_insert_with(|| {
            groups.places.extend_from_slice(&places[..labels.len()]);
            groups.total.push(0);
            groups.failed.push(0);
            groups.levels.extend(std::iter::repeat_n(Level::NONE, levels));
            groups.total.len() - 1
        })
    }

    /// Returns whether there is a group with these labels.
    fn knows(&self, labels: &[Option<&[u8]>]) -> bool {
        let mut places = [0; MAX_LABELS];
        for (place, value) in places.iter_mut().zip(labels) {
            if let Some(value) = value {
                let Some(known) = self.words.get(value) else { return false };
                *place = *known;
            }
        }
        self.by_places.contains_key(&places)
    }

    fn place(&mut self, label: usize, value: &'r [u8]) -> u32 {
        if let Some((last, place)) = self.last[label]
            && last == value
        {
            return place;
        }
        let dictionary = &mut self.groups.dictionary;
        let place = *self.words.entry(value).or_insert_with(|| {
            // The text in a row is UTF-8, so nothing is replaced.
            dictionary.push(String::from_utf8_lossy(value));
            dictionary.len() as u32
        });
        self.last[label] = Some((value, place));
        place
    }

    fn count(&mut self, group: usize, total: u32, failed: u32) {
        if let (Some(all), Some(of_them)) = (self.groups.total.get_mut(group), self.groups.failed.get_mut(group)) {
            *all = all.saturating_add(total);
            *of_them = of_them.saturating_add(failed);
        }
    }

    fn measure(&mut self, group: usize, number: usize, level: Level) {
        if let Some(known) = self.groups.levels.get_mut(group * self.levels + number) {
            known.add(level);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Headers, Message, encode};

    fn rows(kind: Kind, bodies: &[&str]) -> Vec<(Vec<u8>, DateTime<Utc>, bool)> {
        let published_at = "2026-06-15T12:00:30Z".parse().unwrap();
        let headers = Headers::default();
        let row = |(number, body): (usize, &&str)| {
            let message = Message {
                kind,
                prefix: "watchbook",
                subject: &format!("watchbook.{kind}.{}.x", if number % 2 == 0 { "acme" } else { "_" }),
                stream: "S",
                sequence: number as u64 + 1,
                published_at,
                headers: &headers,
                body: body.as_bytes(),
            };
            let mut row = Vec::new();
            let facts = encode(&message, None, &mut row).unwrap();
            (facts.minute, facts.failed, row)
        };
        bodies.iter().enumerate().map(row).map(|(minute, failed, row)| (row, minute, failed)).collect()
    }

    /// Returns each group as its labels and counts, sorted.
    fn groups(kind: Kind, groups: &MinuteGroups<'_>) -> Vec<(Vec<String>, u32, u32)> {
        let labels = kind.spec().labels.len() + 1;
        let of = |group: usize| {
            let names = (0..labels).map(|label| groups.label(group, label, labels).unwrap_or("-").to_owned());
            (names.collect(), groups.total[group], groups.failed[group])
        };
        let mut all: Vec<_> = (0..groups.len()).map(of).collect();
        all.sort();
        all
    }

    #[test]
    fn every_label_of_every_kind_is_a_column_that_its_rows_hold() {
        for &kind in Kind::ALL {
            let spec = kind.spec();
            assert!(spec.labels.len() < MAX_LABELS && spec.levels.len() <= MAX_LABELS, "{kind}");
            for column in spec.labels.iter().chain(spec.levels) {
                assert!(spec.columns.contains(&column.name()), "{kind} {}", column.name());
            }
            if let Some(volume) = spec.volume {
                let measured = spec.labels.iter().chain(spec.levels).map(|column| column.name());
                assert!(spec.labels.contains(&Column::Text(volume.owner)), "{kind}: whose volume it is");
                assert!(spec.columns.contains(&volume.text) && !measured.into_iter().any(|name| name == volume.text));
            }
            // The fixtures fill every column, so each label and level occurs in one of their rows.
            let mut found = vec![false; spec.labels.len() + 1];
            let mut measured = vec![false; spec.levels.len()];
            let bodies: Vec<_> = spec.fixtures.accepted.lines().filter(|line| !line.trim().is_empty()).collect();
            let layout = Layout::of(kind);
            for body in bodies {
                let message = Message {
                    kind,
                    prefix: "watchbook",
                    subject: &format!("watchbook.{kind}.{}.x", crate::Fixtures::ORGANIZATION),
                    stream: "S",
                    sequence: 1,
                    published_at: crate::Fixtures::PUBLISHED_AT.parse().unwrap(),
                    headers: &Headers::default(),
                    body: body.as_bytes(),
                };
                let mut row = Vec::new();
                if encode(&message, None, &mut row).is_err() {
                    continue;
                }
                let (mut labels, mut levels) = ([None; MAX_LABELS], [None; MAX_LABELS]);
                layout.read(&row, &mut labels, &mut levels);
                found.iter_mut().zip(labels).for_each(|(found, label)| *found |= label.is_some());
                measured.iter_mut().zip(levels).for_each(|(found, level)| *found |= level.is_some());
            }
            assert!(found.iter().chain(&measured).all(|found| *found), "{kind} {found:?} {measured:?}");
        }
    }

    #[test]
    fn rows_are_counted_by_minute_and_label() {
        let execution = |strategy: &str, success: bool, second: u32| {
            format!(
                r#"{{"user_id":"u","strategy_id":"{strategy}","execution_type":"TERMINAL","success":{success},"execution_time_ms":5,"created_at":"2026-06-15T11:59:{second:02}Z"}}"#
            )
        };
        let mut bodies = vec![execution("a", true, 1), execution("b", false, 2), execution("a", false, 59)];
        bodies.push(execution("a", true, 30).replace("11:59", "12:00"));
        let rows = rows(Kind::Executions, &bodies.iter().map(String::as_str).collect::<Vec<_>>());
        let mut rollup = Rollup::new(Kind::Executions);
        rows.iter().for_each(|(row, minute, failed)| rollup.add(row, *minute, *minute, *failed));
        assert_eq!(rollup.rows(), 4);
        let counts = rollup.finish();
        assert_eq!(counts.volumes, []);
        let minutes = counts.minutes;
        let labels = |org: &str, strategy: &str| [org, strategy, "u", "TERMINAL", "false"].map(str::to_owned).to_vec();
        assert_eq!(minutes.len(), 2);
        assert_eq!(groups(Kind::Executions, &minutes[0].1), [(labels("-", "b"), 1, 1), (labels("acme", "a"), 2, 1)]);
        assert_eq!(groups(Kind::Executions, &minutes[1].1), [(labels("-", "a"), 1, 0)]);
        // Merging both gives the same counts as one minute.
        let count = Kind::Executions.spec().labels.len() + 1;
        let mut fold = Fold::new();
        minutes.iter().chain(&minutes).for_each(|(_, groups)| fold.add(groups, count, 0));
        assert_eq!(
            groups(Kind::Executions, &fold.finish()),
            [(labels("-", "a"), 2, 0), (labels("-", "b"), 2, 2), (labels("acme", "a"), 4, 2)]
        );
    }

    #[test]
    fn what_is_folded_has_a_bound_beyond_which_new_groups_count_for_their_organization() {
        let count = u32::try_from(MAX_FOLDED_GROUPS).unwrap();
        let groups = |users: std::ops::Range<u32>| MinuteGroups {
            dictionary: std::iter::once("acme".into())
                .chain(users.clone().map(|user| user.to_string().into()))
                .collect(),
            places: (0..users.len() as u32).flat_map(|user| [1, user + 2]).collect(),
            total: vec![1; users.len()],
            failed: vec![0; users.len()],
            levels: Vec::new(),
        };
        let (full, more) = (groups(0..count), groups(count - 1..count + 9));
        let mut fold = Fold::new();
        fold.add(&full, 2, 0);
        fold.add(&more, 2, 0);
        let folded = fold.finish();
        // The known group is counted as such, and the nine new ones together.
        assert_eq!(folded.len(), MAX_FOLDED_GROUPS + 1);
        assert_eq!(folded.total[MAX_FOLDED_GROUPS - 1..], [2, 9]);
        assert_eq!(folded.label(MAX_FOLDED_GROUPS, 0, 2), Some("acme"));
        assert_eq!(folded.label(MAX_FOLDED_GROUPS, 1, 2), None);
    }

    #[test]
    fn levels_know_samples_sum_and_peak() {
        let rows = rows(
            Kind::Metrics,
            &[
                r#"{"container_id":"c","cpu_usage_percent":50.5,"memory_usage_bytes":100}"#,
                r#"{"container_id":"c","cpu_usage_percent":7}"#,
                r#"{"container_id":"c","cpu_usage_percent":99.5,"memory_usage_bytes":300}"#,
            ],
        );
        let mut rollup = Rollup::new(Kind::Metrics);
        rows.iter().for_each(|(row, minute, failed)| rollup.add(row, *minute, *minute, *failed));
        let (_, groups) = rollup.finish().minutes.remove(0);
        let level = |samples, sum, peak| Level { samples, sum, peak };
        assert_eq!(groups.total, [2, 1]);
        assert_eq!(groups.levels, [level(2, 150.0, 99.5), level(2, 400.0, 300.0), level(1, 7.0, 7.0), Level::NONE]);
    }

    #[test]
    fn volumes_are_of_the_day_of_created_at_whatever_the_minute() {
        let line = |container: &str, message: &str| {
            format!(r#"{{"container_id":"{container}","stream":"stdout","message":"{message}"}}"#)
        };
        let bodies = [line("a", "12345"), line("a", ""), line("a", "é"), line("b", "1"), line("a", "123")];
        let rows = rows(Kind::Logs, &bodies.iter().map(String::as_str).collect::<Vec<_>>());
        let midnight: DateTime<Utc> = "2026-06-15T00:00:00Z".parse().unwrap();
        let before = midnight - chrono::TimeDelta::microseconds(1);
        let mut rollup = Rollup::new(Kind::Logs);
        for ((row, minute, failed), created_at) in rows.iter().zip([midnight, midnight, before, before, midnight]) {
            rollup.add(row, created_at, *minute, *failed);
        }
        let counts = rollup.finish();
        assert_eq!(counts.minutes.len(), 1);
        let of = |(day, groups): &(NaiveDate, MinuteGroups<'_>)| {
            let label = |group, label| groups.label(group, label, VOLUME_LABELS).unwrap_or("-").to_owned();
            let group =
                |group| (label(group, 0) + " " + &label(group, 1), groups.total[group], groups.levels[group].sum);
            (day.to_string(), (0..groups.len()).map(group).collect::<Vec<_>>())
        };
        let volume = |owner: &str, rows, bytes| (owner.to_owned(), rows, bytes);
        assert_eq!(
            counts.volumes.iter().map(of).collect::<Vec<_>>(),
            [
                ("2026-06-14".to_owned(), vec![volume("acme a", 1, 2.0), volume("- b", 1, 1.0)]),
                ("2026-06-15".to_owned(), vec![volume("acme a", 2, 8.0), volume("- a", 1, 0.0)]),
            ]
        );
    }
}
