//! Computes which log lines exceed the volume limit, from the volumes alone. Pure.

use std::collections::BTreeMap;

use chrono::NaiveDate;

use super::Volume;

/// The excess of one container on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excess {
    /// The organization; `None` for lines without one.
    pub organization_id: Option<String>,
    /// The container.
    pub container_id: String,
    /// The day of `created_at`, in UTC.
    pub day: NaiveDate,
    /// Bytes of messages to remove, oldest lines first.
    pub bytes_to_remove: u64,
    /// Whether these are all bytes of the day.
    pub whole_day: bool,
    /// Number of lines of the day.
    pub lines: u64,
}

/// Returns what to remove so that each container has at most `limit` bytes: whole days, oldest first, and a part of the
/// last one. Ordered by organization, container and day.
pub fn excess(volumes: &[Volume], limit: u64) -> Vec<Excess> {
    let mut containers: BTreeMap<(Option<&str>, &str), Vec<&Volume>> = BTreeMap::new();
    for volume in volumes {
        containers.entry((volume.organization_id.as_deref(), &volume.container_id)).or_default().push(volume);
    }
    let mut excess = Vec::new();
    for mut days in containers.into_values() {
        let held = days.iter().fold(0_u64, |sum, volume| sum.saturating_add(volume.bytes));
        let mut over = held.saturating_sub(limit);
        days.sort_by_key(|volume| volume.day);
        // Removing a day of empty lines would free nothing.
        for volume in days.into_iter().filter(|volume| volume.bytes > 0) {
            if over == 0 {
                break;
            }
            let bytes_to_remove = volume.bytes.min(over);
            over -= bytes_to_remove;
            excess.push(Excess {
                organization_id: volume.organization_id.clone(),
                container_id: volume.container_id.clone(),
                day: volume.day,
                bytes_to_remove,
                whole_day: bytes_to_remove == volume.bytes,
                lines: volume.lines,
            });
        }
    }
    excess
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(number: u32) -> NaiveDate {
        NaiveDate::from_ymd_opt(2026, 6, number).unwrap()
    }

    fn volume(organization: Option<&str>, number: u32, bytes: u64) -> Volume {
        Volume {
            day: day(number),
            organization_id: organization.map(str::to_owned),
            container_id: "c".to_owned(),
            lines: 9,
            bytes,
        }
    }

    #[test]
    fn the_oldest_days_go_until_the_rest_fits() {
        // Bytes of the days 1, 2, 3; the limit; the expected excess: day, bytes, whole day.
        type Case = ([u64; 3], u64, &'static [(u32, u64, bool)]);
        let cases: [Case; 10] = [
            ([10, 20, 30], 60, &[]),
            ([10, 20, 30], 61, &[]),
            ([10, 20, 30], 59, &[(1, 1, false)]),
            ([10, 20, 30], 50, &[(1, 10, true)]),
            ([10, 20, 30], 49, &[(1, 10, true), (2, 1, false)]),
            ([10, 20, 30], 30, &[(1, 10, true), (2, 20, true)]),
            ([10, 20, 30], 0, &[(1, 10, true), (2, 20, true), (3, 30, true)]),
            ([0, 20, 30], 30, &[(2, 20, true)]),
            ([0, 0, 0], 0, &[]),
            ([u64::MAX, 20, 30], 30, &[(1, u64::MAX - 30, false)]),
        ];
        for (bytes, limit, expected) in cases {
            // The order of the input does not matter.
            let volumes: Vec<_> =
                [3, 1, 2].map(|number| volume(Some("acme"), number, bytes[number as usize - 1])).into();
            let found: Vec<_> = excess(&volumes, limit)
                .into_iter()
                .map(|excess| (excess.day, excess.bytes_to_remove, excess.whole_day))
                .collect();
            let expected: Vec<_> =
                expected.iter().map(|(number, bytes, whole)| (day(*number), *bytes, *whole)).collect();
            assert_eq!(found, expected, "{bytes:?} {limit}");
        }
    }

    #[test]
    fn each_organization_has_its_own_containers() {
        let mut other = volume(None, 1, 70);
        other.container_id = "d".to_owned();
        let volumes = [
            volume(None, 1, 60),
            volume(Some("acme"), 1, 60),
            volume(None, 2, 60),
            other,
            volume(Some("globex"), 2, 101),
        ];
        let found: Vec<_> = excess(&volumes, 100)
            .into_iter()
            .map(|excess| {
                (excess.organization_id, excess.container_id, excess.day, excess.bytes_to_remove, excess.lines)
            })
            .collect();
        let c = || "c".to_owned();
        assert_eq!(found, [(None, c(), day(1), 20, 9), (Some("globex".to_owned()), c(), day(2), 1, 9)]);
    }
}
