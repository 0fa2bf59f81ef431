//! What became of a kind's messages.

use std::sync::atomic::Ordering;

use records::Kind;

use super::World;
use crate::account::{self, Account};
use crate::wait::eventually;

impl World {
    /// A kind's account, now.
    ///
    /// # Errors
    /// Where one of the servers does not answer, in words.
    pub async fn try_account(&self, kind: Kind) -> Result<Account, String> {
        account::of(kind, &self.stream(kind), &self.jetstream, &self.database).await
    }

    /// A kind's account, now.
    pub async fn account(&self, kind: Kind) -> Account {
        self.try_account(kind).await.unwrap_or_else(|error| panic!("the account of {kind}: {error}"))
    }

    /// Waits until an account is as it should be.
    pub async fn account_where(&self, kind: Kind, what: &str, holds: impl Fn(&Account) -> bool) -> Account {
        eventually(&format!("{kind}: {what}"), async || {
            let account = self.try_account(kind).await?;
            if holds(&account) { Ok(account) } else { Err(format!("{account:?}")) }
        })
        .await
    }

    /// Waits until everything that the stream ever took is settled, and makes sure that it adds up.
    pub async fn settled(&self, kind: Kind) -> Account {
        let account = self.account_where(kind, "everything is settled", Account::is_quiet).await;
        self.check(kind, &account).unwrap_or_else(|problem| panic!("{kind}: {problem}"));
        account
    }

    /// Waits until everything is settled, and makes sure how it ended: stored, duplicates, dead letters, deleted.
    pub async fn settled_as(&self, kind: Kind, outcomes: [u64; 4]) -> Account {
        let account = self.settled(kind).await;
        let found = [account.stored, account.duplicates, account.dead_letters, account.deleted];
        assert_eq!(found, outcomes, "{kind}: stored, duplicates, dead letters, deleted: {account:?}");
        account
    }

    /// Makes sure that the table of a kind holds exactly the records `0..count`, each once.
    pub async fn holds_exactly(&self, kind: Kind, count: u64) {
        let (rows, distinct, least, most): (i64, i64, Option<i64>, Option<i64>) = self
            .ask(&format!(
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

    /// Rows were removed or added behind our back: from now on their number says nothing.
    pub fn rows_were_dropped(&self) {
        self.rows_dropped.store(true, Ordering::Relaxed);
    }

    /// Readers were cut off without a chance to say good-bye, beside those of processes that were killed.
    pub fn readers_were_broken(&self, readers: usize) {
        self.broken_readers.fetch_add(readers, Ordering::Relaxed);
    }
}
