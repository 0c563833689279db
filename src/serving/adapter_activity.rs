//! Which adapters the requests of this moment use, for `/metrics`.

use super::adapters::AdapterHandle;
use std::collections::BTreeSet;

/// Names of the adapters that requests use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdapterActivity {
    /// Adapters of sequences and inputs that are computed.
    pub running: BTreeSet<String>,
    /// Adapters of sequences and inputs that wait.
    pub waiting: BTreeSet<String>,
    /// Sequences, and with them adapters, that are generated at once.
    pub max_running: usize,
}

impl AdapterActivity {
    /// The names of adapters without the base model.
    pub fn labels<'a>(handles: impl IntoIterator<Item = &'a AdapterHandle>) -> impl Iterator<Item = String> {
        handles.into_iter().filter(|handle| handle.loaded().is_some()).map(|handle| handle.label().to_string())
    }
}
