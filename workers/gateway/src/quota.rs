//! What is there once for all callers, such as memory: so much in all, and never all of it for one of them, or one could
//! keep the others from it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Something of which there are so many units.
#[derive(Debug)]
pub(crate) struct Quota {
    usage: Mutex<Usage>,
    total: u64,
    per_caller: u64,
}

#[derive(Debug, Default)]
struct Usage {
    total: u64,
    by_caller: HashMap<Arc<str>, u64>,
}

/// Some units, as long as they are held.
#[derive(Debug)]
pub(crate) struct Permit {
    quota: Arc<Quota>,
    caller: Arc<str>,
    units: u64,
}

/// Why there is no share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QuotaExceeded {
    /// The caller has as much as one may have.
    Caller,
    /// There is not as much left for anybody.
    Total,
}

impl Quota {
    pub(crate) fn new(total: u64, per_caller: u64) -> Arc<Self> {
        Arc::new(Self { usage: Mutex::default(), total, per_caller })
    }

    /// Takes so many units for a caller.
    pub(crate) fn acquire(self: &Arc<Self>, caller: &Arc<str>, units: u64) -> Result<Permit, QuotaExceeded> {
        let mut usage = self.lock();
        let (total, own) =
            (usage.total.saturating_add(units), usage.by_caller.get(caller).copied().unwrap_or_default());
        let own = own.saturating_add(units);
        if own > self.per_caller {
            return Err(QuotaExceeded::Caller);
        }
        if total > self.total {
            return Err(QuotaExceeded::Total);
        }
        usage.total = total;
        usage.by_caller.insert(caller.clone(), own);
        Ok(Permit { quota: self.clone(), caller: caller.clone(), units })
    }

    fn lock(&self) -> MutexGuard<'_, Usage> {
        // A panic while holding this lock left whole numbers behind.
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Grows or shrinks it to so many units. Shrinking always succeeds.
    ///
    /// # Errors
    /// Where it cannot grow so far; it is then unchanged.
    pub(crate) fn set(&mut self, units: u64) -> Result<(), QuotaExceeded> {
        let quota = Arc::clone(&self.quota);
        let mut usage = quota.lock();
        let own = usage.by_caller.get(&self.caller).copied().unwrap_or_default() - self.units + units;
        let total = usage.total - self.units + units;
        if units > self.units && own > quota.per_caller {
            return Err(QuotaExceeded::Caller);
        }
        if units > self.units && total > quota.total {
            return Err(QuotaExceeded::Total);
        }
        usage.total = total;
        usage.by_caller.insert(self.caller.clone(), own);
        self.units = units;
        Ok(())
    }

    /// How many it has.
    #[cfg(test)]
    pub(crate) fn units(&self) -> u64 {
        self.units
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut usage = self.quota.lock();
        usage.total -= self.units;
        if let Some(own) = usage.by_caller.get_mut(&self.caller) {
            *own -= self.units;
            // Nobody is remembered who has none.
            if *own == 0 {
                usage.by_caller.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_bounded_and_given_back() {
        let quota = Quota::new(30, 20);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let held = [quota.acquire(&a, 5).unwrap(), quota.acquire(&a, 15).unwrap()];
        assert_eq!(quota.acquire(&a, 1).unwrap_err(), QuotaExceeded::Caller);
        let last = quota.acquire(&b, 10).unwrap();
        assert_eq!(quota.acquire(&b, 1).unwrap_err(), QuotaExceeded::Total);
        assert_eq!(quota.acquire(&b, u64::MAX).unwrap_err(), QuotaExceeded::Caller);
        drop(held);
        assert!(quota.acquire(&b, 10).is_ok());
        drop(last);
        let mut first = quota.acquire(&a, 0).unwrap();
        let second = quota.acquire(&b, 15).unwrap();
        assert_eq!(first.set(21), Err(QuotaExceeded::Caller));
        assert_eq!(first.set(16), Err(QuotaExceeded::Total));
        assert_eq!((first.set(15), first.units()), (Ok(()), 15));
        assert!(quota.acquire(&a, 1).is_err(), "what it grew by is taken");
        first.set(5).unwrap();
        assert!(quota.acquire(&a, 10).is_ok(), "and what it shrank by is there again");
        drop((first, second));
        assert!(quota.lock().by_caller.is_empty() && quota.lock().total == 0);
    }
}
