//! Reads current and former partitions from the catalogue. They are recognized by their bounds and not by their names,
//! because people and pg_partman create partitions as well.

use std::fmt;

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use sqlx::{FromRow, PgConnection};

use crate::Dataset;
use crate::partitions::Partition;
use crate::scoped_read::ROLE;

/// The name of a table for use in a statement: with its schema, each part quoted if necessary.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, FromRow)]
pub struct TableName {
    schema: String,
    relation: String,
}

impl TableName {
    /// Returns the name of a table that Watchbook created, which needs no quotes.
    pub(crate) fn ours(name: &str) -> Self {
        let (schema, relation) = name.split_once('.').unwrap_or(("public", name));
        Self { schema: schema.to_owned(), relation: relation.to_owned() }
    }

    /// Returns the name of another table in the same schema. `relation` must need no quotes.
    pub(crate) fn beside(&self, relation: &str) -> Self {
        Self { schema: self.schema.clone(), relation: relation.to_owned() }
    }

    /// Returns the name without its schema, quoted if necessary.
    pub(crate) fn relation(&self) -> &str {
        &self.relation
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.relation)
    }
}

/// A time range: its start, and its exclusive end.
pub(crate) type TimeRange = (DateTime<Utc>, DateTime<Utc>);

/// The type of a child of a partitioned table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Table,
    Partitioned,
    Foreign,
}

/// A child of a partitioned table. The range of a DEFAULT partition is all of time.
#[derive(Debug, Clone)]
pub(crate) struct Child {
    pub(crate) name: TableName,
    pub(crate) shape: Shape,
    pub(crate) is_default: bool,
    pub(crate) time: TimeRange,
    /// Whether a detach is pending, whoever started it.
    pub(crate) is_detaching: bool,
    /// Whether retention has started to detach it.
    pub(crate) is_marked: bool,
    /// Whether this user owns it and may therefore detach and drop it.
    pub(crate) is_owned: bool,
    /// Whether the reader role or PUBLIC may read it by its own name, bypassing the policies of its parent.
    pub(crate) is_readable: bool,
    /// Its size on disk with indexes; `None` if it was not requested, or if the table has just been dropped.
    pub(crate) bytes: Option<i64>,
}

/// Whether sizes are requested: Postgres then reads the file sizes of each table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sizes {
    Known,
    Unasked,
}

impl Sizes {
    const fn expression(self) -> &'static str {
        match self {
            Self::Known => "pg_total_relation_size(class.oid)",
            Self::Unasked => "NULL::bigint",
        }
    }
}

#[derive(FromRow)]
struct ChildRow {
    #[sqlx(flatten)]
    name: TableName,
    relkind: String,
    is_default: bool,
    starts_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
    is_detaching: bool,
    is_marked: bool,
    is_owned: bool,
    is_readable: bool,
    bytes: Option<i64>,
}

/// Returns every child of a dataset's table, oldest first. The DEFAULT partition sorts with the oldest.
///
/// # Errors
/// If the query fails.
pub(crate) async fn children(
    connection: &mut PgConnection,
    dataset: Dataset,
    sizes: Sizes,
) -> crate::Result<Vec<Child>> {
    // The same session prints and parses the bounds, so its time zone and date style do not matter. Infinity and years
    // that chrono does not support are clamped to supported ones.
    let end = |number: u8| {
        format!(
            "greatest(least(CASE WHEN is_default THEN CASE {number} WHEN 1 THEN '-infinity'::timestamptz ELSE 'infinity' END
                                 WHEN ends[{number}] = 'MINVALUE' THEN '-infinity'
                                 WHEN ends[{number}] = 'MAXVALUE' THEN 'infinity'
                                 ELSE trim(BOTH '''' FROM ends[{number}])::timestamptz END,
                            '9999-12-31 00:00:00+00'), '0001-01-01 00:00:00+00')"
        )
    };
    let rows: Vec<ChildRow> = sqlx::query_as(&format!(
        "SELECT quote_ident(namespace.nspname) AS schema, quote_ident(class.relname) AS relation, class.relkind::text AS relkind,
                is_default, {} AS starts_at, {} AS ends_at, inherits.inhdetachpending AS is_detaching,
                coalesce(starts_with(obj_description(class.oid, 'pg_class'), $2), false) AS is_marked,
                pg_has_role(class.relowner, 'USAGE') AS is_owned, {} AS bytes,
                EXISTS (SELECT FROM aclexplode(class.relacl) AS granted
                         WHERE privilege_type = 'SELECT'
                           AND grantee IN (SELECT 0 UNION ALL SELECT oid FROM pg_roles WHERE rolname = $3)) AS is_readable
           FROM pg_inherits AS inherits
           JOIN pg_class AS class ON class.oid = inherits.inhrelid
           JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
          CROSS JOIN LATERAL (SELECT pg_get_expr(class.relpartbound, class.oid) AS bound OFFSET 0) AS bounds
          CROSS JOIN LATERAL (SELECT bound = 'DEFAULT' AS is_default,
                                     regexp_match(bound, '^FOR VALUES FROM \\((.*)\\) TO \\((.*)\\)$') AS ends OFFSET 0) AS parsed
          WHERE inherits.inhparent = to_regclass($1) AND (is_default OR ends IS NOT NULL)
          ORDER BY starts_at, class.relname",
        end(1),
        end(2),
        sizes.expression()
    ))
    .bind(dataset.table())
    .bind(DETACHED_BY_RETENTION)
    .bind(ROLE)
    .fetch_all(connection)
    .await?;
    let child = |row: ChildRow| Child {
        name: row.name,
        shape: match row.relkind.as_str() {
            "p" => Shape::Partitioned,
            "f" => Shape::Foreign,
            _ => Shape::Table,
        },
        is_default: row.is_default,
        time: (row.starts_at, row.ends_at),
        is_detaching: row.is_detaching,
        is_marked: row.is_marked,
        is_owned: row.is_owned,
        is_readable: row.is_readable,
        bytes: row.bytes,
    };
    Ok(rows.into_iter().map(child).collect())
}

/// Returns the tables below a child that is itself partitioned, at any depth.
///
/// # Errors
/// If the query fails.
pub(crate) async fn leaves(
    connection: &mut PgConnection,
    child: &TableName,
) -> crate::Result<Vec<(TableName, Option<i64>)>> {
    let rows: Vec<(String, String, Option<i64>)> = sqlx::query_as(
        "SELECT quote_ident(namespace.nspname), quote_ident(class.relname), pg_total_relation_size(class.oid)
           FROM pg_partition_tree(to_regclass($1)) AS tree
           JOIN pg_class AS class ON class.oid = tree.relid
           JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
          WHERE class.relkind = 'r' ORDER BY class.relname",
    )
    .bind(child.to_string())
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(schema, relation, bytes)| (TableName { schema, relation }, bytes)).collect())
}

/// The prefix of the comment on a table that retention detaches. A table that somebody else detached, in order to keep
/// it, has no such comment and is left alone, whatever its name is. Earlier releases, which detached only partitions
/// with Watchbook's names, wrote no more than this.
const DETACHED_BY_RETENTION: &str = "taken out by retention";

/// Returns the comment on a table that retention detaches: its parent, and the bounds for reattaching it.
pub(crate) fn mark(dataset: Dataset, (from, until): TimeRange) -> String {
    let text = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
    format!("{DETACHED_BY_RETENTION}: {} from {} to {}", dataset.table(), text(from), text(until))
}

/// Returns the bounds in a comment of [`mark`], if it is about the dataset's table.
fn marked(dataset: Dataset, comment: &str) -> Option<TimeRange> {
    let rest = comment.strip_prefix(DETACHED_BY_RETENTION)?.strip_prefix(": ")?.strip_prefix(dataset.table())?;
    let (from, until) = rest.strip_prefix(" from ")?.split_once(" to ")?;
    let time = |text: &str| Some(DateTime::parse_from_rfc3339(text).ok()?.to_utc());
    Some((time(from)?, time(until)?))
}

/// A table that retention detached, and neither dropped nor reattached.
#[derive(Debug, Clone)]
pub(crate) struct Leftover {
    pub(crate) name: TableName,
    pub(crate) time: TimeRange,
    pub(crate) bytes: Option<i64>,
}

/// Returns the tables of a dataset that an interrupted run left detached, in any schema, oldest first.
///
/// # Errors
/// If the query fails.
pub(crate) async fn leftovers(connection: &mut PgConnection, dataset: Dataset) -> crate::Result<Vec<Leftover>> {
    let rows: Vec<(String, String, String, Option<i64>)> = sqlx::query_as(
        "SELECT quote_ident(namespace.nspname), quote_ident(class.relname), description, pg_total_relation_size(class.oid)
           FROM pg_description AS description
           JOIN pg_class AS class ON class.oid = objoid
           JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
          WHERE classoid = 'pg_class'::regclass AND objsubid = 0 AND starts_with(description, $1)
            AND class.relkind = 'r' AND NOT class.relispartition
          ORDER BY class.relname",
    )
    .bind(DETACHED_BY_RETENTION)
    .fetch_all(connection)
    .await?;
    let leftover = |(schema, relation, comment, bytes): (String, String, String, Option<i64>)| {
        let name = TableName { schema, relation };
        let time = if comment == DETACHED_BY_RETENTION { named(dataset, &name) } else { marked(dataset, &comment) }?;
        Some(Leftover { name, time, bytes })
    };
    let mut found: Vec<_> = rows.into_iter().filter_map(leftover).collect();
    found.sort_by_key(|leftover| leftover.time);
    Ok(found)
}

/// Returns the bounds of a partition from its name, if it is one of Watchbook's names.
fn named(dataset: Dataset, name: &TableName) -> Option<TimeRange> {
    let digits = name.to_string().strip_prefix(dataset.table())?.strip_prefix('_')?.to_owned();
    let text = if dataset.is_monthly() { format!("{digits}01") } else { digits };
    let partition = Partition::starting(dataset, NaiveDate::parse_from_str(&text, "%Y%m%d").ok()?);
    (partition.name() == name.to_string()).then(|| (partition.starts_at(), partition.ends_at()))
}

/// Returns the parts of a time range that none of `taken` covers, in order.
pub(crate) fn gaps((from, until): TimeRange, taken: impl IntoIterator<Item = TimeRange>) -> Vec<TimeRange> {
    let mut taken: Vec<_> = taken.into_iter().collect();
    taken.sort_unstable();
    let (mut gaps, mut begin) = (Vec::new(), from);
    for (first, behind) in taken {
        if first >= until {
            break;
        }
        if first > begin {
            gaps.push((begin, first));
        }
        begin = begin.max(behind);
    }
    if begin < until {
        gaps.push((begin, until));
    }
    gaps
}

#[cfg(test)]
mod tests {
    use records::Kind;

    use super::*;

    fn at(hour: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + chrono::TimeDelta::hours(hour)
    }

    #[test]
    fn gaps_are_what_nothing_covers() {
        let day = (at(24), at(48));
        for (taken, expected) in [
            (&[][..], &[(24, 48)][..]),
            (&[(24, 48)], &[]),
            (&[(0, 168)], &[]),
            (&[(36, 48), (24, 36)], &[]),
            (&[(24, 36)], &[(36, 48)]),
            (&[(22, 46)], &[(46, 48)]),
            (&[(26, 30), (40, 100)], &[(24, 26), (30, 40)]),
            (&[(0, 24), (48, 72)], &[(24, 48)]),
        ] {
            let found = gaps(day, taken.iter().map(|(from, until)| (at(*from), at(*until))));
            let expected: Vec<_> = expected.iter().map(|(from, until)| (at(*from), at(*until))).collect();
            assert_eq!(found, expected, "{taken:?}");
        }
    }

    #[test]
    fn a_mark_says_table_and_bounds() {
        let events = Dataset::Records(Kind::Events);
        let mark = mark(events, (at(24), at(48)));
        assert_eq!(
            mark,
            "taken out by retention: watchbook.event_logs from 1970-01-02T00:00:00Z to 1970-01-03T00:00:00Z"
        );
        assert_eq!(marked(events, &mark), Some((at(24), at(48))));
        assert_eq!(marked(Dataset::Records(Kind::Errors), &mark), None);
        for other in ["taken out by retention", "taken out by ann", "taken out by retention: watchbook.event_logs"] {
            assert_eq!(marked(events, other), None, "{other}");
        }
    }

    #[test]
    fn bounds_are_read_from_names_of_ours_alone() {
        let (events, audit) = (Dataset::Records(Kind::Events), Dataset::Records(Kind::Audit));
        assert_eq!(named(events, &TableName::ours("watchbook.event_logs_19700102")), Some((at(24), at(48))));
        assert_eq!(named(audit, &TableName::ours("control_plane.audit_logs_197001")), Some((at(0), at(31 * 24))));
        for other in ["watchbook.event_logs_1970010", "watchbook.event_logs_19700199", "public.event_logs_19700102"] {
            assert_eq!(named(events, &TableName::ours(other)), None, "{other}");
        }
    }
}
