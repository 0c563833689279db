//! The forward pass of one step: computes the next tokens of several sequences, each with its own adapter.

use super::sequence::SequenceState;
use crate::serving::adapters::AdapterHandle;
use crate::serving::multi_adapter::MultiAdapterBatch;
use espalier_core::error::{Error, Result};
use espalier_core::model::{BaseModel, Batch, RequiredRows, Tokens, VirtualTokens};
use espalier_tensor::kv_cache::SequenceKvCache;
use espalier_tensor::{Backend, Tape};
use std::sync::Arc;

/// Sequences that are computed together in a step; sequences of one adapter are neighbours.
pub struct ScheduledBatch {
    pub sequences: Vec<SequenceState>,
    /// Number of tokens to compute, per sequence.
    pub chunk_lengths: Vec<usize>,
    /// Threads that share the matrix products, if the weights are quantized.
    pub threads: usize,
}

/// Computes a step and returns the number of generated tokens. If the forward pass fails, its sequences get the error
/// and are removed from the batch.
pub fn run_step(base: &BaseModel, backend: &Arc<dyn Backend>, batch: &mut ScheduledBatch) -> usize {
    match forward(base, backend, batch) {
        Ok(mut logits) => {
            for (sequence, logits) in batch.sequences.iter_mut().zip(&mut logits) {
                if let Some(logits) = logits {
                    sequence.sample_next(logits);
                }
            }
            logits.iter().flatten().count()
        }
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "generation step failed");
            for mut sequence in batch.sequences.drain(..) {
                sequence.fail(Error::internal(format!("{error:#}")));
            }
            0
        }
    }
}

/// Returns the logits of each sequence whose last token was computed.
fn forward(base: &BaseModel, backend: &Arc<dyn Backend>, batch: &mut ScheduledBatch) -> Result<Vec<Option<Vec<f32>>>> {
    let chunks: Vec<(Tokens, VirtualTokens)> = batch
        .sequences
        .iter()
        .zip(&batch.chunk_lengths)
        .map(|(sequence, length)| {
            (Tokens::from_ids(sequence.next_chunk(*length).to_vec()), sequence.pending_virtual_tokens())
        })
        .collect();
    let kv_cache_shape = batch.sequences[0].kv_cache.shape();
    let take_kv_cache =
        |sequence: &mut SequenceState| std::mem::replace(&mut sequence.kv_cache, SequenceKvCache::new(kv_cache_shape));
    let kv_caches: Vec<SequenceKvCache> = batch.sequences.iter_mut().map(take_kv_cache).collect();
    let row_counts: Vec<usize> =
        chunks.iter().map(|(tokens, virtual_tokens)| virtual_tokens.prompt_rows() + tokens.ids.len()).collect();
    let handles: Vec<AdapterHandle> = batch.sequences.iter().map(|sequence| sequence.adapter.clone()).collect();
    let adapter_runs = handles.chunk_by(|one, other| one == other);
    let adapters = MultiAdapterBatch::from_groups(adapter_runs.map(|run| (&run[0], run.len())));
    let mut tape = Tape::with_kv_cache(Arc::clone(backend), Arc::from([]), kv_caches);
    let packed = Batch::with_virtual_tokens(chunks.iter().map(|(tokens, virtual_tokens)| (tokens, *virtual_tokens)));
    let last_hidden = base.encode(&mut tape, &packed, &adapters, RequiredRows::Last)?;
    let needs_logits: Vec<bool> = batch
        .sequences
        .iter()
        .zip(&chunks)
        .map(|(sequence, (tokens, _))| tokens.ids.len() == sequence.uncomputed_tokens())
        .collect();
    let first_row: &[u32] = &[0];
    let gathered =
        tape.gather_rows(last_hidden, needs_logits.iter().map(|is_needed| if *is_needed { first_row } else { &[] }))?;
    let mut logits_rows = Vec::new();
    if needs_logits.contains(&true) {
        let logits = adapters.lm_logits(base, &mut tape, gathered)?;
        let token_logits = |row: &[f32]| row[..base.sampled_vocabulary_size()].to_vec();
        logits_rows = logits.chunks_exact(base.info().vocabulary_size).map(token_logits).collect();
    }
    let mut logits_rows = logits_rows.into_iter();
    let kv_caches = tape.into_kv_caches(row_counts);
    for ((sequence, kv_cache), (tokens, _)) in batch.sequences.iter_mut().zip(kv_caches).zip(&chunks) {
        sequence.advance(kv_cache, tokens.ids.len());
    }
    Ok(needs_logits.into_iter().map(|is_needed| is_needed.then(|| logits_rows.next().unwrap_or_default())).collect())
}
