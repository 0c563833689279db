//! Usage that is counted in memory until it is added to the database.

use super::auth::Caller;
use crate::store::{ResolvedAdapter, UsageCounts, UsageIncrement};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Usage since it was taken last, by owner and adapter.
#[derive(Debug, Default)]
pub struct UsageCounters {
    counts: Mutex<HashMap<String, HashMap<String, UsageCounts>>>,
}

impl UsageCounters {
    /// Counts for a caller, and charges the tokens to its limits.
    pub fn record(&self, caller: &Caller, adapter: Option<&ResolvedAdapter>, counts: UsageCounts) {
        caller.charge_tokens(counts.input_tokens + counts.output_tokens);
        let adapter = adapter.map(|adapter| usage_name(adapter, &caller.owner)).unwrap_or_default();
        self.add(&caller.owner, &adapter, counts);
    }

    fn add(&self, owner: &str, adapter: &str, counts: UsageCounts) {
        let mut all = self.lock();
        // Looked up by reference first: a request allocates nothing for an owner and adapter that are counted already.
        match all.get_mut(owner).and_then(|adapters| adapters.get_mut(adapter)) {
            Some(counted) => counted.add(counts),
            None => all.entry(owner.to_string()).or_default().entry(adapter.to_string()).or_default().add(counts),
        }
    }

    /// Takes what was counted.
    pub fn take(&self) -> Vec<UsageIncrement> {
        let owners = std::mem::take(&mut *self.lock());
        let of_owner = |(owner, adapters): (String, HashMap<String, UsageCounts>)| {
            adapters.into_iter().map(move |(adapter, counts)| UsageIncrement { owner: owner.clone(), adapter, counts })
        };
        owners.into_iter().flat_map(of_owner).collect()
    }

    /// Puts back what could not be stored.
    pub fn put_back(&self, increments: Vec<UsageIncrement>) {
        increments.iter().for_each(|increment| self.add(&increment.owner, &increment.adapter, increment.counts));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, HashMap<String, UsageCounts>>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Name of an adapter, or its id; that of another owner begins with the owner and a slash.
fn usage_name(adapter: &ResolvedAdapter, owner: &str) -> String {
    let name = adapter.name.clone().unwrap_or_else(|| adapter.id.to_string());
    if adapter.owner == owner { name } else { format!("{}/{name}", adapter.owner) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_taken_once_and_can_be_put_back() {
        let counters = UsageCounters::default();
        let counts = UsageCounts { requests: 1, input_tokens: 5, output_tokens: 2 };
        counters.add("acme", "intents", counts);
        counters.add("acme", "intents", counts);
        let taken = counters.take();
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].counts, UsageCounts { requests: 2, input_tokens: 10, output_tokens: 4 });
        assert!(counters.take().is_empty());
        counters.put_back(taken.clone());
        assert_eq!(counters.take(), taken);
    }
}
