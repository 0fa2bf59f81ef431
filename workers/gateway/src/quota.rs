//! A per-caller quota over a shared resource, such as memory. The total is bounded, and so is the use of each caller:
//! no caller can use all of the resource.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A resource with a bounded number of units.
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

/// Units of a caller, released when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    quota: Arc<Quota>,
    caller: Arc<str>,
    units: u64,
}

/// The bound that a request for units would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QuotaExceeded {
    /// The caller's quota.
    Caller,
    /// The total of all callers.
    Total,
}

impl Quota {
    pub(crate) fn new(total: u64, per_caller: u64) -> Arc<Self> {
        Arc::new(Self { usage: Mutex::default(), total, per_caller })
    }

    /// Acquires units for a caller, without waiting.
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
        // The counts are consistent even if a panic poisoned the lock.
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Grows or shrinks the permit to `units`. Shrinking always succeeds.
    ///
    /// # Errors
    /// If growing would exceed a bound; the permit is then unchanged.
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

    /// Returns the number of units.
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
            // Remove callers without units, so that the map stays small.
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
        assert!(quota.acquire(&a, 1).is_err(), "growing uses units");
        first.set(5).unwrap();
        assert!(quota.acquire(&a, 10).is_ok(), "shrinking releases units");
        drop((first, second));
        assert!(quota.lock().by_caller.is_empty() && quota.lock().total == 0);
    }
}
