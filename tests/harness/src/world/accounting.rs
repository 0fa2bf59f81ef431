//! Checks of what became of a kind's messages.

use std::sync::atomic::Ordering;

use records::Kind;

use super::World;
use crate::account::{self, Account};
use crate::wait::eventually;

impl World {
    /// Returns the current account of a kind.
    ///
    /// # Errors
    /// If a query fails.
    pub async fn try_account(&self, kind: Kind) -> Result<Account, String> {
        account::of(kind, &self.stream(kind), &self.jetstream, &self.database).await
    }

    /// Returns the current account of a kind.
    pub async fn account(&self, kind: Kind) -> Account {
        self.try_account(kind).await.unwrap_or_else(|error| panic!("the account of {kind}: {error}"))
    }

    /// Waits until the account of a kind meets a condition.
    pub async fn account_where(&self, kind: Kind, what: &str, holds: impl Fn(&Account) -> bool) -> Account {
        eventually(&format!("{kind}: {what}"), async || {
            let account = self.try_account(kind).await?;
            if holds(&account) { Ok(account) } else { Err(format!("{account:?}")) }
        })
        .await
    }

    /// Waits until every sequence of the stream is settled, and checks the sums.
    pub async fn settled(&self, kind: Kind) -> Account {
        let account = self.account_where(kind, "everything is settled", Account::is_quiet).await;
        self.check(kind, &account).unwrap_or_else(|problem| panic!("{kind}: {problem}"));
        account
    }

    /// Waits until every sequence is settled, and checks the outcomes: stored, duplicates, dead letters, deleted.
    pub async fn settled_as(&self, kind: Kind, outcomes: [u64; 4]) -> Account {
        let account = self.settled(kind).await;
        let found = [account.stored, account.duplicates, account.dead_letters, account.deleted];
        assert_eq!(found, outcomes, "{kind}: stored, duplicates, dead letters, deleted: {account:?}");
        account
    }

    /// Checks that the table of a kind contains exactly the records `0..count`, each once.
    pub async fn holds_exactly(&self, kind: Kind, count: u64) {
        let (rows, distinct, least, most): (i64, i64, Option<i64>, Option<i64>) = self
            .query_one(&format!(
                "SELECT count(*), count(DISTINCT (attributes->>'n')::bigint), min((attributes->>'n')::bigint),
                        max((attributes->>'n')::bigint) FROM {}",
                kind.spec().table
            ))
            .await;
        let count = i64::try_from(count).expect("a count");
        let bounds = if count == 0 { (None, None) } else { (Some(0), Some(count - 1)) };
        assert_eq!((rows, distinct, least, most), (count, count, bounds.0, bounds.1), "{kind}: not each record once");
    }

    pub(super) fn check(&self, kind: Kind, account: &Account) -> Result<(), String> {
        account.adds_up()?;
        if self.rows_dropped.load(Ordering::Relaxed) { Ok(()) } else { account.matches_rows(kind) }
    }

    /// Tells the checks that rows were added or removed directly, so that their number has no meaning.
    pub fn rows_were_dropped(&self) {
        self.rows_dropped.store(true, Ordering::Relaxed);
    }

    /// Tells the checks that this many readers were cut off without closing, besides those of killed processes.
    pub fn readers_were_broken(&self, readers: usize) {
        self.broken_readers.fetch_add(readers, Ordering::Relaxed);
    }
}
