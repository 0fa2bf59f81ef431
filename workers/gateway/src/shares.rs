//! What is there once for all callers, such as memory: so much in all, and never all of it for one of them, or one could
//! keep the others from it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Something of which there are so many units.
#[derive(Debug)]
pub(crate) struct Shares {
    taken: Mutex<Taken>,
    in_all: u64,
    per_caller: u64,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: u64,
    by: HashMap<Arc<str>, u64>,
}

/// Some units, as long as they are held.
#[derive(Debug)]
pub(crate) struct Share {
    shares: Arc<Shares>,
    caller: Arc<str>,
    units: u64,
}

/// Why there is no share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoShare {
    /// The caller has as much as one may have.
    OfOne,
    /// There is not as much left for anybody.
    InAll,
}

impl Shares {
    pub(crate) fn new(in_all: u64, per_caller: u64) -> Arc<Self> {
        Arc::new(Self { taken: Mutex::default(), in_all, per_caller })
    }

    /// Takes so many units for a caller.
    pub(crate) fn take(self: &Arc<Self>, caller: &Arc<str>, units: u64) -> Result<Share, NoShare> {
        let mut taken = self.lock();
        let (in_all, own) = (taken.in_all.saturating_add(units), taken.by.get(caller).copied().unwrap_or_default());
        let own = own.saturating_add(units);
        if own > self.per_caller {
            return Err(NoShare::OfOne);
        }
        if in_all > self.in_all {
            return Err(NoShare::InAll);
        }
        taken.in_all = in_all;
        taken.by.insert(caller.clone(), own);
        Ok(Share { shares: self.clone(), caller: caller.clone(), units })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // A panic while holding this lock left whole numbers behind.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Grows or shrinks it to so many units. Shrinking always succeeds.
    ///
    /// # Errors
    /// Where it cannot grow so far; it is then unchanged.
    pub(crate) fn set(&mut self, units: u64) -> Result<(), NoShare> {
        let shares = Arc::clone(&self.shares);
        let mut taken = shares.lock();
        let own = taken.by.get(&self.caller).copied().unwrap_or_default() - self.units + units;
        let in_all = taken.in_all - self.units + units;
        if units > self.units && own > shares.per_caller {
            return Err(NoShare::OfOne);
        }
        if units > self.units && in_all > shares.in_all {
            return Err(NoShare::InAll);
        }
        taken.in_all = in_all;
        taken.by.insert(self.caller.clone(), own);
        self.units = units;
        Ok(())
    }

    /// How many it has.
    #[cfg(test)]
    pub(crate) fn units(&self) -> u64 {
        self.units
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.lock();
        taken.in_all -= self.units;
        if let Some(own) = taken.by.get_mut(&self.caller) {
            *own -= self.units;
            // Nobody is remembered who has none.
            if *own == 0 {
                taken.by.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_bounded_and_given_back() {
        let shares = Shares::new(30, 20);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let held = [shares.take(&a, 5).unwrap(), shares.take(&a, 15).unwrap()];
        assert_eq!(shares.take(&a, 1).unwrap_err(), NoShare::OfOne);
        let last = shares.take(&b, 10).unwrap();
        assert_eq!(shares.take(&b, 1).unwrap_err(), NoShare::InAll);
        assert_eq!(shares.take(&b, u64::MAX).unwrap_err(), NoShare::OfOne);
        drop(held);
        assert!(shares.take(&b, 10).is_ok());
        drop(last);
        let mut first = shares.take(&a, 0).unwrap();
        let second = shares.take(&b, 15).unwrap();
        assert_eq!(first.set(21), Err(NoShare::OfOne));
        assert_eq!(first.set(16), Err(NoShare::InAll));
        assert_eq!((first.set(15), first.units()), (Ok(()), 15));
        assert!(shares.take(&a, 1).is_err(), "what it grew by is taken");
        first.set(5).unwrap();
        assert!(shares.take(&a, 10).is_ok(), "and what it shrank by is there again");
        drop((first, second));
        assert!(shares.lock().by.is_empty() && shares.lock().in_all == 0);
    }
}
