//! Reference to a loaded adapter or to the base model.

use espalier_core::artifact::LoadedAdapter;
use espalier_core::model::VirtualTokens;
use std::sync::Arc;

/// A loaded adapter with its version, or the base model alone.
///
/// Two handles are equal when they refer to the same loaded adapter. Two loads of one version are different, so that
/// every group of a batch has one set of tensors.
#[derive(Clone)]
pub struct AdapterHandle {
    version: Arc<str>,
    adapter: Option<Arc<LoadedAdapter>>,
}

impl AdapterHandle {
    pub fn new(version: impl Into<Arc<str>>, adapter: Arc<LoadedAdapter>) -> Self {
        Self { version: version.into(), adapter: Some(adapter) }
    }

    /// The base model without an adapter.
    pub fn base() -> Self {
        Self { version: Arc::from(""), adapter: None }
    }

    /// A handle that is equal to handles with the same name, for tests that compute nothing.
    #[cfg(test)]
    pub fn named(name: &str) -> Self {
        Self { version: Arc::from(name), adapter: None }
    }

    /// Version of the adapter; empty for the base model.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// `None` for the base model.
    pub fn loaded(&self) -> Option<&LoadedAdapter> {
        self.adapter.as_deref()
    }

    pub fn virtual_tokens(&self) -> VirtualTokens {
        self.loaded().map_or(VirtualTokens::Disabled, |adapter| adapter.hooks.virtual_tokens())
    }

    /// Number of virtual tokens that the adapter puts before a sequence.
    pub fn virtual_token_count(&self) -> usize {
        self.loaded().map_or(0, |adapter| adapter.manifest.method.num_virtual_tokens())
    }
}

impl PartialEq for AdapterHandle {
    fn eq(&self, other: &Self) -> bool {
        match (&self.adapter, &other.adapter) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => self.version == other.version,
            _ => false,
        }
    }
}
