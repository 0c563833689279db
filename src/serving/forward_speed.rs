//! Speed of the frozen base's forward passes on this machine, measured once.

use super::adapters::AdapterHandle;
use super::multi_adapter::{self, AdapterGroup};
use espalier_core::error::Result;
use espalier_core::model::{BaseModel, Tokens};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;

/// Operations of a measured pass, where the number of tokens allows it. A token takes about two operations per parameter.
const MEASURED_OPERATIONS: u64 = 4_000_000_000;
const TOKENS: std::ops::RangeInclusive<u64> = 16..=256;
/// Tokens of one sequence.
const SEQUENCE_TOKENS: usize = 32;

/// Tokens per second of one thread. The first call measures it.
#[derive(Default)]
pub struct ForwardSpeed {
    /// `None` if the base cannot be measured.
    tokens_per_second: OnceLock<Option<f64>>,
    is_started: AtomicBool,
    measured: Notify,
}

impl ForwardSpeed {
    /// Waits for the measurement, which goes on if nobody waits any more; `None` if it fails.
    pub async fn tokens_per_second(self: &Arc<Self>, base: &Arc<BaseModel>) -> Option<f64> {
        let measured = self.measured.notified();
        if let Some(speed) = self.tokens_per_second.get() {
            return *speed;
        }
        if !self.is_started.swap(true, Ordering::Relaxed) {
            let (speed, base) = (Arc::clone(self), Arc::clone(base));
            spawn_blocking(move || {
                let found = measure(&base).inspect_err(|error| tracing::warn!(%error, "the base cannot be measured"));
                let _ = speed.tokens_per_second.set(found.ok());
                speed.measured.notify_waiters();
            });
        }
        measured.await;
        self.tokens_per_second.get().copied().flatten()
    }
}

fn measure(base: &BaseModel) -> Result<f64> {
    let tokens = MEASURED_OPERATIONS / (2 * base.info().parameters.max(1));
    let tokens = tokens.clamp(*TOKENS.start(), *TOKENS.end()) as usize;
    let length = SEQUENCE_TOKENS.min(tokens).min(base.info().max_tokens);
    let count = tokens.div_ceil(length);
    let vocabulary = base.info().vocabulary_size as u32;
    let sequence =
        |number: usize| (0..length as u32).map(|index| (number as u32 * 31 + index * 7) % vocabulary).collect();
    let mut seconds = f64::INFINITY;
    // The first pass also reads the weights into memory.
    for _ in 0..2 {
        let inputs = (0..count).map(|number| Tokens::from_ids(sequence(number))).collect();
        let group = AdapterGroup { adapter: AdapterHandle::base(), inputs };
        let start = Instant::now();
        multi_adapter::forward(base, &[group])?;
        seconds = seconds.min(start.elapsed().as_secs_f64());
    }
    Ok((count * length) as f64 / seconds.max(1e-9))
}
