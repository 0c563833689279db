//! The forward pass of one step: computes the next tokens of several sequences, each with its own adapter.

use super::sequence::{LogitsDemand, SampledTokens, SequenceState};
use crate::serving::adapters::AdapterHandle;
use crate::serving::multi_adapter::MultiAdapterBatch;
use espalier_core::error::{Error, Result};
use espalier_core::model::{BaseModel, Batch, RequiredRows, Tokens, VirtualTokens};
use espalier_tensor::kv_cache::SequenceKvCache;
use espalier_tensor::{Backend, Tape, Var};
use std::sync::Arc;

/// Rows of logits that exist at once, so that memory does not grow with tokens × vocabulary.
const LOGITS_CHUNK_ROWS: usize = 128;

/// Sequences that are computed together in a step; sequences of one adapter are neighbours.
pub struct ScheduledBatch {
    pub sequences: Vec<SequenceState>,
    /// Number of tokens to compute, per sequence.
    pub chunk_lengths: Vec<usize>,
    /// Threads that share the matrix products, if the weights are quantized.
    pub threads: usize,
}

/// Computes a step and returns its tokens. If the forward pass fails, its sequences get the error and are removed from the batch.
pub fn run_step(base: &BaseModel, backend: &Arc<dyn Backend>, batch: &mut ScheduledBatch) -> SampledTokens {
    let mut step = SampledTokens::default();
    match forward(base, backend, batch) {
        Ok(mut logits) => {
            for (sequence, logits) in batch.sequences.iter_mut().zip(&mut logits) {
                sequence.finish_prompt();
                if !logits.is_empty() {
                    step.add(sequence.sample_tokens(logits));
                }
            }
        }
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "generation step failed");
            for mut sequence in batch.sequences.drain(..) {
                sequence.fail(Error::internal(format!("{error:#}")));
            }
        }
    }
    step
}

/// Rows of logits of each sequence from which tokens are sampled.
type SampledRows = Vec<Vec<Vec<f32>>>;

/// Scores prompts, and returns the rows from which tokens are sampled.
fn forward(base: &BaseModel, backend: &Arc<dyn Backend>, batch: &mut ScheduledBatch) -> Result<SampledRows> {
    let chunks: Vec<(Tokens, VirtualTokens)> = batch
        .sequences
        .iter()
        .zip(&batch.chunk_lengths)
        .map(|(sequence, length)| (Tokens::from_ids(sequence.next_chunk(*length)), sequence.pending_virtual_tokens()))
        .collect();
    let demands: Vec<LogitsDemand> =
        batch.sequences.iter().zip(&chunks).map(|(one, (tokens, _))| one.logits_demand(tokens.ids.len())).collect();
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
    let required_rows = required_rows(&demands);
    let hidden = base.encode(&mut tape, &packed, &adapters, required_rows)?;
    let rows = needed_rows(&demands, &chunks, required_rows);
    let sampled = read_logits(base, &mut tape, (&adapters, hidden), &rows, &mut batch.sequences)?;
    let kv_caches = tape.into_kv_caches(row_counts);
    for ((sequence, kv_cache), (tokens, _)) in batch.sequences.iter_mut().zip(kv_caches).zip(&chunks) {
        sequence.advance(kv_cache, tokens.ids.len());
    }
    Ok(sampled)
}

fn required_rows(demands: &[LogitsDemand]) -> RequiredRows {
    match demands.iter().all(|demand| demand.scored.is_empty() && demand.sampled_rows <= 1) {
        true => RequiredRows::Last,
        false => RequiredRows::All,
    }
}

/// Row of hidden states whose logits are needed.
struct NeededRow {
    sequence: usize,
    /// Index among the computed rows of the sequence.
    row: u32,
    /// The prompt token that the row predicts; `None` for a row to sample from.
    scored_token: Option<u32>,
}

/// Rows of each sequence that are needed, among those that are computed, sequence by sequence.
fn needed_rows(demands: &[LogitsDemand], chunks: &[(Tokens, VirtualTokens)], computed: RequiredRows) -> Vec<NeededRow> {
    let mut rows = Vec::new();
    for (sequence, (demand, (tokens, _))) in demands.iter().zip(chunks).enumerate() {
        let scored = demand.scored.iter().zip(0..);
        rows.extend(scored.map(|(token, row)| NeededRow { sequence, row, scored_token: Some(*token) }));
        let computed_rows = match computed {
            RequiredRows::All => tokens.ids.len(),
            RequiredRows::First | RequiredRows::Last => 1,
        } as u32;
        let sampled = computed_rows - demand.sampled_rows as u32..computed_rows;
        rows.extend(sampled.map(|row| NeededRow { sequence, row, scored_token: None }));
    }
    rows
}

/// Reads the logits of the needed rows, a chunk of rows at a time: scores prompts, and returns the rows from which tokens are sampled.
fn read_logits(
    base: &BaseModel,
    tape: &mut Tape,
    (adapters, hidden): (&MultiAdapterBatch<'_>, Var),
    rows: &[NeededRow],
    sequences: &mut [SequenceState],
) -> Result<SampledRows> {
    let mut sampled = vec![Vec::new(); sequences.len()];
    let checkpoint = tape.position();
    for chunk in rows.chunks(LOGITS_CHUNK_ROWS) {
        let mut chunk_rows: Vec<Vec<u32>> = vec![Vec::new(); sequences.len()];
        chunk.iter().for_each(|needed| chunk_rows[needed.sequence].push(needed.row));
        let gathered = tape.gather_rows(hidden, chunk_rows.iter().map(Vec::as_slice))?;
        let logits = adapters.lm_logits(base, tape, gathered)?;
        for (needed, logits) in chunk.iter().zip(logits.chunks_exact(base.info().vocabulary_size)) {
            match needed.scored_token {
                Some(token) => sequences[needed.sequence].score_prompt_token(token, logits),
                None => sampled[needed.sequence].push(logits[..base.sampled_vocabulary_size()].to_vec()),
            }
        }
        tape.release_since(checkpoint, hidden);
    }
    Ok(sampled)
}
