//! The end of a test: nothing may be left over.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use records::Kind;

use super::{Server, World};
use crate::messages::MARKER;
use crate::servers;
use crate::wait::eventually;
use crate::worker::Watchbook;

/// Number of consumers that a reader leaves if it could not close: its own, and one of a stream query in progress.
const CONSUMERS_OF_A_BROKEN_READER: usize = 2;
/// Maximum bytes of a log shown for a failed test.
const SHOWN_LOG_BYTES: usize = 6_000;

impl World {
    /// Ends the test: stops running processes, and fails if anything is left over.
    pub async fn finish(mut self, running: impl IntoIterator<Item = Watchbook>) {
        let mut broken_readers = self.broken_readers.load(Ordering::Relaxed);
        for mut watchbook in running {
            if watchbook.is_ours_to_stop() {
                watchbook.stop().await;
            }
            broken_readers += usize::from(watchbook.was_killed()) * Kind::ALL.len();
        }
        for &kind in Kind::ALL {
            let account = self.account(kind).await;
            self.check(kind, &account).unwrap_or_else(|problem| panic!("left over in {kind}: {problem}"));
            let consumers = self.consumers(kind).await;
            let bound = broken_readers * CONSUMERS_OF_A_BROKEN_READER;
            assert!(consumers <= bound, "{consumers} consumers of {kind} are left over, {bound} may be");
        }
        self.no_session_is_left().await;
        self.no_log_holds_a_secret();
        self.finished = true;
        self.clean_up().await;
    }

    async fn consumers(&self, kind: Kind) -> usize {
        match self.jetstream.get_stream(self.stream(kind)).await {
            Ok(stream) => stream.cached_info().state.consumer_count,
            Err(_) => 0,
        }
    }

    async fn no_session_is_left(&self) {
        // The server keeps the sessions of a killed process until it notices the closed connections.
        eventually("no database session of a worker is left", async || {
            let left: (i64, Option<String>) = self
                .try_query_one(
                    "SELECT count(*), string_agg(application_name || ': ' || state, ', ') FROM pg_stat_activity
                      WHERE datname = current_database() AND application_name LIKE 'watchbook %'",
                )
                .await?;
            if left.0 == 0 { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
    }

    fn no_log_holds_a_secret(&self) {
        let password = self.database_url.split([':', '@']).nth(2).expect("a password").to_owned();
        for (name, path) in self.logs.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let log = String::from_utf8_lossy(&std::fs::read(path).expect("read a log")).into_owned();
            assert!(!log.contains(MARKER), "the log of {name} contains a body:\n{log}");
            assert!(!log.contains(&password), "the log of {name} contains the database's password:\n{log}");
        }
    }

    async fn clean_up(&self) {
        self.database.close().await;
        if matches!(self.nats, Server::Shared(_)) {
            for &kind in Kind::ALL {
                // The result is ignored, because some tests never create their streams.
                let _ = self.jetstream.delete_stream(self.stream(kind)).await;
            }
        }
        if matches!(self.postgres, Server::Shared(_)) {
            servers::drop_database(&self.name).await;
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        for (name, path) in self.logs.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let log = std::fs::read(path).unwrap_or_default();
            let shown = String::from_utf8_lossy(&log[log.len().saturating_sub(SHOWN_LOG_BYTES)..]).into_owned();
            eprintln!("--- the end of the log of watchbook {name}\n{shown}");
        }
        assert!(std::thread::panicking(), "end a test with `World::finish`, which checks for leftovers");
    }
}
