//! What keeps the records of one plugin from pushing out those of another.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many records of each instance wait.
#[derive(Debug, Default)]
pub(super) struct Shares(HashMap<Arc<str>, usize>);

impl Shares {
    /// A place for one more record of `instance`, which has `most` of them.
    pub(super) fn take(&mut self, instance: &Arc<str>, most: usize) -> bool {
        match self.0.get_mut(instance) {
            Some(taken) if *taken >= most => return false,
            Some(taken) => *taken += 1,
            None => drop(self.0.insert(instance.clone(), 1)),
        }
        true
    }

    pub(super) fn give_back(&mut self, instance: &str) {
        match self.0.get_mut(instance) {
            Some(taken) if *taken > 1 => *taken -= 1,
            _ => drop(self.0.remove(instance)),
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// How many records of each plugin were lost.
#[derive(Debug, Default)]
pub(super) struct Losses(Mutex<BTreeMap<Arc<str>, u64>>);

impl Losses {
    pub(super) fn add(&self, plugin: &Arc<str>) {
        *self.table().entry(plugin.clone()).or_default() += 1;
    }

    pub(super) fn all(&self) -> BTreeMap<Arc<str>, u64> {
        self.table().clone()
    }

    pub(super) fn total(&self) -> u64 {
        self.table().values().sum()
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_instance_has_places_of_its_own_and_leaves_nothing_behind() {
        let (one, other): (Arc<str>, Arc<str>) = ("one".into(), "other".into());
        let mut shares = Shares::default();
        assert!(shares.take(&one, 2) && shares.take(&one, 2) && !shares.take(&one, 2));
        assert!(shares.take(&other, 2));
        shares.give_back("one");
        assert!(shares.take(&one, 2) && !shares.take(&one, 2));
        for instance in ["one", "one", "other", "unknown"] {
            shares.give_back(instance);
        }
        assert!(shares.0.is_empty());
    }
}
