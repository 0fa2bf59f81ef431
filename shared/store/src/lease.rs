//! Who does the work of which there is one: a session's advisory lock, gone when the session is.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;

use crate::Database;

/// A session that does not answer for so long is as good as lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// How often a standby looks whether the lease is free, and a holder whether it still holds it. With
/// the server noticing a dead session in six seconds at the most, take-over is a matter of seconds.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A session that holds or wants the lease on some named work. Correctness never depends on it: it
/// spares two processes from doing the same work, and the transactions decide.
#[derive(Debug)]
pub struct Lease {
    connection: PgConnection,
    name: String,
}

impl Lease {
    /// Opens a session that may take the lease called `name`.
    ///
    /// # Errors
    /// Where the server is away or refuses us.
    pub async fn open(database: &Database, name: &str) -> crate::Result<Self> {
        Ok(Self { connection: database.connect(name).await?, name: name.to_owned() })
    }

    /// Takes the lease if nobody holds it.
    ///
    /// # Errors
    /// Where the database cannot be asked, or is a standby: locks there mean nothing to the primary.
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

    /// Opens a session and waits until nobody else holds the lease; `None` where `stop` comes first. Calls
    /// `standing_by` once where somebody does.
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

    /// Confirms the lease until `held` is cancelled, and cancels it when the lease is lost.
    pub async fn keep(mut self, held: CancellationToken) {
        while pause(&held).await {
            if let Err(error) = self.confirm().await {
                tracing::warn!(lease = self.name, %error, "the lease is lost; somebody else may work from now on");
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
                "the server is a standby: its address has to lead to the primary",
            )));
        }
        Ok(())
    }

    /// Makes sure that the session, and so the lease, is still there.
    ///
    /// # Errors
    /// Where it is not: stop the work.
    pub async fn confirm(&mut self) -> crate::Result<()> {
        answered(self.refuse_standby()).await
    }

    /// Gives the lease up, so that a standby need not wait for the server to notice.
    pub async fn release(self) {
        // The session ends either way; an error only says that it has ended already.
        let _ = tokio::time::timeout(ANSWER_WITHIN, self.connection.close()).await;
    }

    /// Which process holds the lease of each of `names`, in their order.
    ///
    /// # Errors
    /// Where the database cannot be asked.
    pub async fn holders(connection: &mut PgConnection, names: &[String]) -> crate::Result<Vec<Option<String>>> {
        // The process is the second word of a session's name, see `Database`.
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

/// Waits until the next look; `false` where the token is cancelled first.
async fn pause(stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(LOOK_EVERY) => true,
    }
}

/// A network that swallows packets ends no connection: without a bound, whoever waits for an answer waits for ever.
async fn answered<T>(question: impl Future<Output = crate::Result<T>>) -> crate::Result<T> {
    match tokio::time::timeout(ANSWER_WITHIN, question).await {
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::Io(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            "the lease's session does not answer",
        ))),
    }
}
