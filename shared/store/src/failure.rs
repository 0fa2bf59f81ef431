//! Classification of database errors.

use std::borrow::Cow;

/// The class of a failed statement, which decides how to proceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The server is not reachable, starting, full, read-only or misconfigured. No row is at fault: reconnect and retry
    /// for ever.
    Outage,
    /// A conflict with another transaction. Retry soon.
    Contention,
    /// A row with that key exists already.
    Duplicate,
    /// The row has no partition; it was dropped in the meantime.
    MissingPartition,
    /// Postgres refuses the content of a row. Isolate the row; the others are fine.
    BadRow,
}

impl Failure {
    /// Classifies a driver's error.
    pub fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => {
                Self::of_code(&error.code().unwrap_or(Cow::Borrowed("")), error.constraint().is_some())
            }
            // Everything else is a connection problem or our own bug, so no row is at fault.
            _ => Self::Outage,
        }
    }

    /// Classifies an SQLSTATE: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
    /// A code that is not known to be a row's fault is an outage: a wrong guess then only waits, whereas a wrong guess
    /// the other way would dead-letter good records.
    fn of_code(code: &str, names_constraint: bool) -> Self {
        match code {
            // Serialization failure, deadlock, lock time-out.
            "40001" | "40P01" | "55P03" => Self::Contention,
            "23505" => Self::Duplicate,
            // A malformed binary COPY, or one whose columns or types differ from the table, because a newer build
            // migrated it. No row is at fault.
            "22P03" | "22P04" => Self::Outage,
            // Partition routing raises a check violation without a constraint name.
            "23514" if !names_constraint => Self::MissingPartition,
            _ => match code.get(..2).unwrap_or_default() {
                // Cardinality, data exception, integrity, WITH CHECK OPTION; a trigger's RAISE;
                // and "program limit exceeded", which is a value too deep or too large for an index.
                "21" | "22" | "23" | "44" | "54" | "P0" => Self::BadRow,
                _ => Self::Outage,
            },
        }
    }
}

/// Returns the server's message and SQLSTATE, for the person who fixes the producer.
pub fn describe(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => match error.code() {
            Some(code) => format!("{} (SQLSTATE {code})", error.message()),
            None => error.message().to_owned(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_never_a_bad_row() {
        for (code, failure) in [
            ("08006", Failure::Outage), // connection failure
            ("22P03", Failure::Outage), // invalid binary representation
            ("22P04", Failure::Outage), // bad COPY file format
            ("25006", Failure::Outage), // read-only: a fail-over left us on a replica
            ("28P01", Failure::Outage), // wrong password
            ("3D000", Failure::Outage), // no such database
            ("42501", Failure::Outage), // insufficient privilege
            ("42P01", Failure::Outage), // no such table: not migrated yet
            ("53100", Failure::Outage), // disk full
            ("53200", Failure::Outage), // out of memory
            ("53300", Failure::Outage), // too many connections
            ("57014", Failure::Outage), // cancelled; also how a COPY that we broke off comes back
            ("57P01", Failure::Outage), // admin shutdown
            ("57P02", Failure::Outage), // crash shutdown
            ("57P03", Failure::Outage), // starting up
            ("58030", Failure::Outage), // I/O error
            ("XX000", Failure::Outage), // internal error
            ("", Failure::Outage),
            ("40001", Failure::Contention),
            ("40P01", Failure::Contention),
            ("55P03", Failure::Contention),
            ("23505", Failure::Duplicate),
            ("22021", Failure::BadRow), // character not in repertoire
            ("22P02", Failure::BadRow), // invalid text representation
            ("22P05", Failure::BadRow), // untranslatable character
            ("23502", Failure::BadRow), // not null
            ("54000", Failure::BadRow), // index row too large
            ("54001", Failure::BadRow), // JSON too deep
            ("P0001", Failure::BadRow), // a trigger's RAISE
        ] {
            assert_eq!(Failure::of_code(code, false), failure, "{code}");
        }
        assert_eq!(Failure::of_code("23514", true), Failure::BadRow);
        assert_eq!(Failure::of_code("23514", false), Failure::MissingPartition);
        assert_eq!(Failure::of(&sqlx::Error::PoolTimedOut), Failure::Outage);
    }
}
