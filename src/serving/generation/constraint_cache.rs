//! Compiles constraints on a few threads and caches them by the hash of their text, within a byte budget.

#[cfg(test)]
mod tests;

use super::constraint::{ConstraintFactory, TokenConstraint};
use super::constraint_spec::ConstraintSpec;
use crate::serving::errors::RETRY_AFTER;
use crate::serving::owners::{Owner, OwnerSemaphore};
use crate::serving::pinned_lru::{Pinned, PinnedLru};
use espalier_core::error::{Context, Error, Result};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Stack size of a compiler thread in bytes; unused pages cost nothing.
const COMPILER_STACK_BYTES: usize = 256 << 20;

pub struct ConstraintCache {
    factory: Arc<ConstraintFactory>,
    compiled: Arc<PinnedLru<TokenConstraint>>,
    capacity_bytes: u64,
    /// Bounds the compiler threads; owners that wait get one in turn.
    compilers: OwnerSemaphore,
}

impl ConstraintCache {
    pub fn new(factory: ConstraintFactory, capacity_bytes: u64, threads: usize) -> Self {
        Self {
            factory: Arc::new(factory),
            compiled: PinnedLru::new(capacity_bytes),
            capacity_bytes,
            compilers: OwnerSemaphore::new(threads),
        }
    }

    /// Returns the compiled constraint, from the cache or compiled on a thread of its own. Dropping the future before the
    /// thread starts drops the work.
    ///
    /// # Errors
    /// `Invalid` (`invalid_format`) if the schema or expression is wrong, unsupported or too large; `Busy`
    /// (`constraint_memory_full`) if the constraints in use leave no room for another one.
    pub async fn compile(&self, owner: &Owner, spec: ConstraintSpec) -> Result<Pinned<TokenConstraint>> {
        spec.check_size()?;
        let key = spec.cache_key();
        if let Some(compiled) = self.compiled.get(&key) {
            return Ok(compiled);
        }
        // Before the wait for a thread, which may be long, so that a request is refused soon or not at all.
        let slot = self.compiled.wait_for_room().await.ok_or_else(|| self.no_room())?;
        let permit = self.compilers.acquire(owner).await;
        // Another request may have compiled it meanwhile.
        if let Some(compiled) = self.compiled.get(&key) {
            return Ok(compiled);
        }
        let (factory, compiled) = (Arc::clone(&self.factory), Arc::clone(&self.compiled));
        let (result_tx, result_rx) = oneshot::channel();
        let compile = move || {
            // Held until the constraint is counted.
            let _held = (permit, slot);
            let result = factory.compile(&spec).map(|constraint| {
                let bytes = constraint.bytes();
                compiled.insert(&key, constraint, bytes)
            });
            // Fails when the request was cancelled; the constraint is cached for the next one.
            let _ = result_tx.send(result);
        };
        let thread = std::thread::Builder::new().name("constraint".to_string()).stack_size(COMPILER_STACK_BYTES);
        thread.spawn(compile).context("starting the constraint compiler")?;
        result_rx.await.unwrap_or_else(|_| Err(Error::internal("the compiler of constraints is gone")))
    }

    fn no_room(&self) -> Error {
        let detail = format!(
            "formats of response_format and tools in use fill the memory of {} bytes for them: try again in a moment, or start the server \
             with a larger --constraint-memory",
            self.capacity_bytes
        );
        Error::busy("constraint_memory_full", detail, RETRY_AFTER)
    }
}
