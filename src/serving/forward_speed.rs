//! Speed of the frozen base's forward passes on this machine, measured once.

use super::adapters::AdapterHandle;
use super::multi_adapter::{self, AdapterGroup};
use espalier_core::error::Result;
use espalier_core::model::{BaseModel, Tokens};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Operations of a measured pass, and its tokens. A token takes about two operations per parameter.
const MEASURED_OPERATIONS: u64 = 4_000_000_000;
const TOKENS: std::ops::RangeInclusive<u64> = 16..=256;
/// Tokens of one sequence.
const SEQUENCE_TOKENS: usize = 32;

/// Measured speed; the first call measures it.
#[derive(Default)]
pub struct ForwardSpeed {
    tokens_per_second: Mutex<Option<f64>>,
}

impl ForwardSpeed {
    /// Tokens per second of one thread. The first call takes as long as two passes of about four billion operations.
    pub fn tokens_per_second(&self, base: &BaseModel) -> Result<f64> {
        // Held during the measurement, so that only one call measures.
        let mut measured = self.tokens_per_second.lock().unwrap_or_else(PoisonError::into_inner);
        match *measured {
            Some(speed) => Ok(speed),
            None => Ok(*measured.insert(measure(base)?)),
        }
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
