//! One step of some sequences: their next rows through the base, each with its own adapter, and the tokens that they say then.

use super::sequence::{SequenceState, fail_all};
use crate::serving::multi_adapter::MultiAdapterBatch;
use espalier_core::artifact::LoadedAdapter;
use espalier_core::error::Result;
use espalier_core::model::{BaseModel, Batch, RequiredRows, Tokens, VirtualTokens};
use espalier_tensor::kv_cache::SequenceKvCache;
use espalier_tensor::{Backend, Tape};
use std::sync::Arc;

/// Sequences of one part of a step, neighbours of the same adapter side by side, and how many tokens each may read.
pub struct ScheduledBatch {
    pub sequences: Vec<SequenceState>,
    pub max_tokens_per_sequence: Vec<usize>,
    /// Threads that share its products, where weights are held in fewer bits.
    pub threads: usize,
}

/// What a part has become: those that go on, and what was counted.
#[derive(Default)]
pub struct StepOutput {
    pub running: Vec<SequenceState>,
    /// Those that have said their last word.
    pub finished: Vec<SequenceState>,
    pub generated_tokens: usize,
}

/// Computes a part; where that fails, its sequences are told.
pub fn run_step(base: &BaseModel, kernels: &Arc<dyn Backend>, mut batch: ScheduledBatch) -> StepOutput {
    match forward(base, kernels, &mut batch) {
        Ok(mut logits) => {
            let generated_tokens = logits.iter().flatten().count();
            let mut output = StepOutput { generated_tokens, ..StepOutput::default() };
            for (mut sequence, logits) in batch.sequences.into_iter().zip(&mut logits) {
                match logits.as_mut().is_some_and(|logits| sequence.sample_next(logits)) {
                    true => output.finished.push(sequence),
                    false => output.running.push(sequence),
                }
            }
            output
        }
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "a step of generation failed");
            fail_all(&batch.sequences, &error);
            StepOutput::default()
        }
    }
}

/// The logits of each sequence that has nothing unread any more.
fn forward(base: &BaseModel, kernels: &Arc<dyn Backend>, batch: &mut ScheduledBatch) -> Result<Vec<Option<Vec<f32>>>> {
    let chunks: Vec<(Tokens, VirtualTokens)> = batch
        .sequences
        .iter()
        .zip(&batch.max_tokens_per_sequence)
        .map(|(sequence, max_tokens)| {
            (Tokens::from_ids(sequence.next_chunk(*max_tokens).to_vec()), sequence.pending_virtual_tokens())
        })
        .collect();
    let kv_cache_shape = batch.sequences[0].kv_cache.shape();
    let take_kv_cache =
        |sequence: &mut SequenceState| std::mem::replace(&mut sequence.kv_cache, SequenceKvCache::new(kv_cache_shape));
    let kv_caches: Vec<SequenceKvCache> = batch.sequences.iter_mut().map(take_kv_cache).collect();
    let row_counts: Vec<usize> =
        chunks.iter().map(|(tokens, virtual_tokens)| virtual_tokens.prompt_rows() + tokens.ids.len()).collect();
    let handles: Vec<_> = batch.sequences.iter().map(|sequence| sequence.adapter.clone()).collect();
    let adapters = MultiAdapterBatch::from_groups(adapter_runs(&handles));
    let mut tape = Tape::with_kv_cache(Arc::clone(kernels), Arc::from([]), kv_caches);
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
        tape.gather_rows(last_hidden, needs_logits.iter().map(|is_due| if *is_due { first_row } else { &[] }))?;
    let mut logits_rows = Vec::new();
    if needs_logits.contains(&true) {
        let logits = base.lm_logits(&mut tape, gathered)?;
        let logits = tape.to_host(logits)?.values;
        logits_rows = logits.chunks_exact(base.info().vocabulary_size).map(<[f32]>::to_vec).collect();
    }
    let mut logits_rows = logits_rows.into_iter();
    let kv_caches = tape.into_kv_caches(row_counts);
    for ((sequence, kv_cache), (tokens, _)) in batch.sequences.iter_mut().zip(kv_caches).zip(&chunks) {
        sequence.advance(kv_cache, tokens.ids.len());
    }
    Ok(needs_logits.into_iter().map(|is_due| is_due.then(|| logits_rows.next().unwrap_or_default())).collect())
}

/// Runs of sequences with the same adapter.
fn adapter_runs(handles: &[crate::serving::adapters::AdapterHandle]) -> Vec<(Option<&LoadedAdapter>, usize)> {
    let runs = handles.chunk_by(|one, other| one == other);
    runs.map(|run| (run[0].0.as_deref(), run.len())).collect()
}
