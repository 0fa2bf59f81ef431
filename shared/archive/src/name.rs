//! The names of objects: by kind, month and day, so that they are easy to find and a listing of a month is short.

use chrono::NaiveDate;
use object_store::path::Path;

use crate::{ArchiveError, Result};

const ROWS: &str = "ndjson.zst";
const MANIFEST: &str = "manifest.json";

/// The two objects of a part.
#[derive(Debug)]
pub(crate) struct Name {
    pub(crate) rows: Path,
    pub(crate) manifest: Path,
}

impl Name {
    pub(crate) fn of(kind: &str, day: NaiveDate, part: u32) -> Result<Self> {
        let month = month(kind, day)?;
        let stem = match part {
            0 => return Err(ArchiveError::Name("part numbers start at 1".to_owned())),
            1 => day.to_string(),
            _ => format!("{day}.{part}"),
        };
        let object = |ending| month.clone().join(format!("{stem}.{ending}"));
        Ok(Self { rows: object(ROWS), manifest: object(MANIFEST) })
    }
}

/// Returns the folder of all parts of a day's month.
pub(crate) fn month(kind: &str, day: NaiveDate) -> Result<Path> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if kind.is_empty() || !kind.bytes().all(plain) {
        return Err(ArchiveError::Name(format!("the kind {kind:?} must consist of letters, digits, `_` and `-`")));
    }
    Ok(Path::from(format!("{kind}/{}", day.format("%Y/%m"))))
}

/// Returns the part number of `day` that a manifest belongs to, or `None` if it belongs to no part of this day.
pub(crate) fn part(day: NaiveDate, manifest: &Path) -> Option<u32> {
    let stem = manifest.filename()?.strip_suffix(MANIFEST)?.strip_suffix('.')?;
    match stem.strip_prefix(&day.to_string())? {
        "" => Some(1),
        number => {
            let number = number.strip_prefix('.')?;
            // Only one spelling is accepted: `02` would name part 2 a second time.
            number.parse().ok().filter(|part: &u32| *part > 1 && part.to_string() == number)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_numbered_from_the_second_one_on() {
        let day = NaiveDate::from_ymd_opt(2026, 8, 1).unwrap();
        let first = Name::of("events", day, 1).unwrap();
        assert_eq!(first.rows.as_ref(), "events/2026/08/2026-08-01.ndjson.zst");
        assert_eq!(first.manifest.as_ref(), "events/2026/08/2026-08-01.manifest.json");
        let later = Name::of("events", day, 12).unwrap();
        assert_eq!(later.rows.as_ref(), "events/2026/08/2026-08-01.12.ndjson.zst");
        for (number, name) in [(1, first), (12, later)] {
            assert_eq!(part(day, &name.manifest), Some(number));
            assert_eq!(part(day, &name.rows), None);
            assert_eq!(part(day.succ_opt().unwrap(), &name.manifest), None);
        }
    }

    #[test]
    fn other_files_of_a_day_are_no_parts() {
        let day = NaiveDate::from_ymd_opt(2026, 8, 1).unwrap();
        for middle in [".1", ".02", ".+2", ".0", ".x", "2", ".2.3"] {
            let object = Path::from(format!("events/2026/08/{day}{middle}.manifest.json"));
            assert_eq!(part(day, &object), None, "{object}");
        }
    }

    #[test]
    fn names_that_would_lead_elsewhere_are_refused() {
        let day = NaiveDate::from_ymd_opt(2026, 8, 1).unwrap();
        for kind in ["", "..", "a/b", "a b"] {
            assert!(matches!(Name::of(kind, day, 1), Err(ArchiveError::Name(_))), "{kind}");
        }
        assert!(matches!(Name::of("events", day, 0), Err(ArchiveError::Name(_))));
    }
}
