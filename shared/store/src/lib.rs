//! Postgres: connection, migrations, partitions, COPY, positions, dead letters, error classification.
