//! Adapters in memory: handles to them, loading with verification, and the cache.

pub mod cache;
mod handle;
pub mod loader;

pub use handle::AdapterHandle;
