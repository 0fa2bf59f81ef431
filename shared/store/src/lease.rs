//! Leases, which elect one process for a piece of work: a session-level advisory lock, released when the session ends.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;

use crate::Database;

/// A session that does not answer within this time is treated as lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// How often a standby tries to take the lease and the holder confirms it. The server notices a dead session within
/// 6 s, so a take-over takes seconds.
const POLL_EVERY: Duration = Duration::from_millis(500);

/// A session that holds or wants the lease on named work. Correctness never depends on it: it avoids duplicate work,
/// and the transactions decide.
#[derive(Debug)]
pub struct Lease {
    connection: PgConnection,
    name: String,
}

impl Lease {
    /// Opens a session that may take the lease called `name`.
    ///
    /// # Errors
    /// If the server is not reachable or refuses the connection.
    pub async fn open(database: &Database, name: &str) -> crate::Result<Self> {
        Ok(Self { connection: database.connect(name).await?, name: name.to_owned() })
    }

    /// Takes the lease if it is free. Returns whether it did.
    ///
    /// # Errors
    /// If the query fails, or the server is a standby, whose locks do not affect the primary.
    pub async fn try_acquire(&mut self) -> crate::Result<bool> {
        answered(async {
            self.refuse_standby().await?;
            sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended('watchbook ' || $1, 0))")
                .bind(&self.name)
                .fetch_one(&mut self.connection)
                .await
        })
        .await
    }

    /// Opens a session and waits for the lease. Returns `None` if `stop` is cancelled first. Calls `standing_by` once
    /// if another process holds the lease.
    ///
    /// # Errors
    /// As [`Lease::open`] and [`Lease::try_acquire`].
    pub async fn wait(
        database: &Database,
        name: &str,
        standing_by: impl FnOnce(),
        stop: &CancellationToken,
    ) -> crate::Result<Option<Self>> {
        let mut lease = Self::open(database, name).await?;
        let mut standing_by = Some(standing_by);
        while !lease.try_acquire().await? {
            if let Some(tell) = standing_by.take() {
                tell();
            }
            if !pause(stop).await {
                return Ok(None);
            }
        }
        Ok(Some(lease))
    }

    /// Confirms the lease until `held` is cancelled, and cancels `held` if the lease is lost.
    pub async fn keep(mut self, held: CancellationToken) {
        while pause(&held).await {
            if let Err(error) = self.confirm().await {
                tracing::warn!(lease = self.name, %error, "the lease is lost; another process may take it");
                held.cancel();
                return;
            }
        }
        self.release().await;
    }

    async fn refuse_standby(&mut self) -> crate::Result<()> {
        let is_standby: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut self.connection).await?;
        if is_standby {
            return Err(sqlx::Error::Io(std::io::Error::other(
                "the server is a standby: DATABASE_URL must lead to the primary",
            )));
        }
        Ok(())
    }

    /// Checks that the session, and with it the lease, still exists.
    ///
    /// # Errors
    /// If it does not: stop the work.
    pub async fn confirm(&mut self) -> crate::Result<()> {
        answered(self.refuse_standby()).await
    }

    /// Releases the lease by closing the session, so that a standby need not wait for the server to notice.
    pub async fn release(self) {
        // The session ends either way; an error means that it has ended already.
        let _ = tokio::time::timeout(ANSWER_WITHIN, self.connection.close()).await;
    }

    /// Returns the process that holds each of the leases `names`, in their order.
    ///
    /// # Errors
    /// If the query fails.
    pub async fn holders(connection: &mut PgConnection, names: &[String]) -> crate::Result<Vec<Option<String>>> {
        // The process is the second word of `application_name`, see `Database`.
        sqlx::query_scalar(
            "SELECT (SELECT split_part(activity.application_name, ' ', 2)
                       FROM pg_locks AS lock JOIN pg_stat_activity AS activity USING (pid)
                      WHERE lock.locktype = 'advisory' AND lock.granted AND lock.objsubid = 1
                        AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                        AND (lock.classid::bigint << 32 | lock.objid::bigint) = key.hash
                      LIMIT 1)
               FROM (SELECT ordinality, hashtextextended('watchbook ' || name, 0) AS hash
                       FROM unnest($1::text[]) WITH ORDINALITY AS asked(name, ordinality)) AS key
              ORDER BY key.ordinality",
        )
        .bind(names)
        .fetch_all(connection)
        .await
    }
}

/// Waits for [`POLL_EVERY`]. Returns `false` if the token is cancelled first.
async fn pause(stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(POLL_EVERY) => true,
    }
}

/// Bounds a query by [`ANSWER_WITHIN`]. A network that drops packets does not end a connection, so without a bound the
/// query could wait for ever.
async fn answered<T>(statement: impl Future<Output = crate::Result<T>>) -> crate::Result<T> {
    match tokio::time::timeout(ANSWER_WITHIN, statement).await {
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::Io(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            "the lease's session does not answer",
        ))),
    }
}
