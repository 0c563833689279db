//! Decides how many tokens of each sequence a step computes, and on which thread.
//!
//! A step takes as long as its largest batch, and every decoding sequence waits for it. So prompts are prefilled in chunks
//! that the threads share (chunked prefill, Agrawal et al. 2024); chunks grow with the number of prefilling sequences per
//! decoding sequence.

/// Prompt tokens in one step when no sequence is decoding.
const IDLE_PREFILL_CHUNK: usize = 256;

/// Smallest batch for a thread of its own, in rows.
const MIN_BATCH_ROWS: usize = 4;

/// Most prompt tokens in one step while sequences are decoding.
const MAX_PREFILL_TOKENS: usize = 2 * IDLE_PREFILL_CHUNK;

/// How the serving threads share the sequences of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parallelism {
    /// Threads can share the matrix products of one batch, which quantized weights allow.
    IntraOp,
    /// Each thread computes a batch of its own.
    InterOp,
}

/// What a sequence needs from the next step.
#[derive(Debug, Clone, Copy)]
pub struct SequenceDemand {
    /// Tokens that are not in the KV cache yet, at least one.
    pub uncomputed_tokens: usize,
    /// Whether these are prompt tokens.
    pub is_prefilling: bool,
    /// Position in the order of arrival of all sequences.
    pub arrival_order: u64,
}

/// Returns the number of tokens to compute per sequence. Decoding sequences get all of theirs; prefilling sequences share a
/// budget of `prefill_chunk_tokens` × (prefilling / decoding), first come, first served.
pub fn prefill_chunks(demands: &[SequenceDemand], threads: usize, prefill_chunk_tokens: usize) -> Vec<usize> {
    let mut prefilling: Vec<usize> = (0..demands.len()).filter(|index| demands[*index].is_prefilling).collect();
    prefilling.sort_by_key(|index| demands[*index].arrival_order);
    let decoding = demands.len() - prefilling.len();
    let mut budget = match decoding {
        0 => IDLE_PREFILL_CHUNK.max(prefill_chunk_tokens),
        decoding => {
            let chunk_tokens = prefill_chunk_tokens.max(1);
            (chunk_tokens * prefilling.len().div_ceil(decoding).max(1)).min(chunk_tokens.max(MAX_PREFILL_TOKENS))
        }
    };
    // A chunk is computed by one thread, unless it is the only one.
    let max_chunk = if demands.len() == 1 { budget } else { budget.div_ceil(threads.max(1)) };
    let mut chunk_lengths: Vec<usize> = demands.iter().map(|demand| demand.uncomputed_tokens).collect();
    for index in prefilling {
        chunk_lengths[index] = chunk_lengths[index].min(max_chunk).min(budget);
        budget -= chunk_lengths[index];
    }
    chunk_lengths
}

/// Rows of a step up to which a draft costs less than the tokens that it may save: the weights are read once for all of them.
const MAX_DRAFT_ROWS: usize = 8;

/// Most tokens of a sequence's draft while so many sequences run.
pub fn draft_limit(running: usize, max_tokens: usize) -> usize {
    (MAX_DRAFT_ROWS / running.max(1)).saturating_sub(1).min(max_tokens)
}

/// Returns the sequences of each batch, in their order. Prefill chunks go to the least loaded batch; decoding sequences stay
/// beside their neighbours, which have the same adapter. Returns a single batch, whose products the threads share
/// ([`Parallelism::IntraOp`]), if there are few rows or if one chunk has most of them.
pub fn partition_batch(
    demands: &[SequenceDemand],
    chunk_lengths: &[usize],
    threads: usize,
    parallelism: Parallelism,
) -> Vec<Vec<usize>> {
    let rows: usize = chunk_lengths.iter().sum();
    let rows_per_batch = rows.div_ceil(threads.max(1)).max(MIN_BATCH_ROWS);
    let mut batches = vec![(0, Vec::new()); rows.div_ceil(rows_per_batch)];
    let (mut prefilling, decoding): (Vec<usize>, Vec<usize>) =
        (0..demands.len()).filter(|index| chunk_lengths[*index] > 0).partition(|index| demands[*index].is_prefilling);
    prefilling.sort_by_key(|index| std::cmp::Reverse(chunk_lengths[*index]));
    for index in prefilling.into_iter().chain(decoding) {
        let batch_with_room =
            batches.iter().position(|(filled, _)| !demands[index].is_prefilling && *filled < rows_per_batch);
        let least_loaded = || (0..batches.len()).min_by_key(|batch| batches[*batch].0);
        if let Some(batch) = batch_with_room.or_else(least_loaded) {
            batches[batch].0 += chunk_lengths[index];
            batches[batch].1.push(index);
        }
    }
    let max_rows = batches.iter().map(|(filled, _)| *filled).max().unwrap_or(0);
    if parallelism == Parallelism::IntraOp && 2 * max_rows > 3 * rows_per_batch {
        return vec![(0..demands.len()).filter(|index| chunk_lengths[*index] > 0).collect()];
    }
    let sort_indices = |(_, mut batch): (usize, Vec<usize>)| {
        batch.sort_unstable();
        batch
    };
    batches.into_iter().map(sort_indices).filter(|batch| !batch.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demands(prefilling: &[usize], decoding: usize) -> Vec<SequenceDemand> {
        let prefill = prefilling.iter().zip(0..).map(|(uncomputed_tokens, arrival_order)| SequenceDemand {
            uncomputed_tokens: *uncomputed_tokens,
            is_prefilling: true,
            arrival_order,
        });
        let decode = (0..decoding).map(|arrival_order| SequenceDemand {
            uncomputed_tokens: 1,
            is_prefilling: false,
            arrival_order: 100 + arrival_order as u64,
        });
        prefill.chain(decode).collect()
    }

    /// Number of rows of each batch.
    fn rows_per_batch(demands: &[SequenceDemand], threads: usize, prefill_chunk_tokens: usize) -> Vec<usize> {
        let chunk_lengths = prefill_chunks(demands, threads, prefill_chunk_tokens);
        let batches = partition_batch(demands, &chunk_lengths, threads, Parallelism::IntraOp);
        let mut all: Vec<usize> = batches.iter().flatten().copied().collect();
        all.sort_unstable();
        let expected: Vec<usize> = (0..demands.len()).filter(|index| chunk_lengths[*index] > 0).collect();
        assert_eq!(all, expected, "each sequence is in one batch");
        batches.iter().map(|batch| batch.iter().map(|index| chunk_lengths[*index]).sum()).collect()
    }

    #[test]
    fn prompts_are_prefilled_in_chunks_while_others_decode() {
        assert_eq!(prefill_chunks(&demands(&[500], 0), 2, 64), [256]);
        assert_eq!(prefill_chunks(&demands(&[500], 4), 2, 64)[0], 32);
        assert_eq!(prefill_chunks(&demands(&[500, 500, 500], 4), 2, 64)[..3], [32, 32, 0]);
        assert_eq!(prefill_chunks(&demands(&[10, 500, 500], 4), 2, 64)[..3], [10, 32, 22]);
        // five prefilling sequences and one decoding
        assert_eq!(prefill_chunks(&demands(&[100; 5], 1), 2, 64)[..5], [100, 100, 100, 20, 0]);
        assert_eq!(
            prefill_chunks(&demands(&[400; 40], 1), 2, 64).iter().sum::<usize>(),
            512 + 1,
            "the budget has a maximum"
        );
        assert_eq!(prefill_chunks(&demands(&[500, 500], 0), 2, 64), [128, 128]);
        assert_eq!(
            prefill_chunks(&demands(&[7], 9), 4, 0)[0],
            1,
            "at least one token is computed, whatever the setting"
        );
        let mut late = demands(&[50, 50], 3);
        late[0].arrival_order = 9;
        assert_eq!(prefill_chunks(&late, 1, 60)[..2], [10, 50]);
    }

    #[test]
    fn drafts_are_shorter_the_more_sequences_run() {
        assert_eq!([1, 2, 3, 4, 5, 60].map(|running| draft_limit(running, 7)), [7, 3, 1, 1, 0, 0]);
        assert_eq!([0, 2].map(|max_tokens| draft_limit(1, max_tokens)), [0, 2]);
    }

    #[test]
    fn batches_have_about_equal_row_counts() {
        assert_eq!(rows_per_batch(&demands(&[], 16), 2, 64), [8, 8]);
        assert_eq!(rows_per_batch(&demands(&[62, 62], 14), 2, 64), [39, 39]);
        assert_eq!(rows_per_batch(&demands(&[500], 30), 2, 64), [32, 30]);
        assert_eq!(rows_per_batch(&demands(&[60; 8], 0), 4, 64), [76, 60, 60, 60]);
        assert_eq!(rows_per_batch(&demands(&[], 3), 8, 64), [3], "threads share the products of few rows");
        assert_eq!(rows_per_batch(&demands(&[500], 1), 2, 64), [33], "and those of a chunk that has most of the rows");
        assert_eq!(rows_per_batch(&demands(&[512], 0), 2, 64), [256]);
        assert!(partition_batch(&[], &[], 2, Parallelism::IntraOp).is_empty());
        let (one, chunk_lengths) = (demands(&[500], 1), [32, 1]);
        assert_eq!(partition_batch(&one, &chunk_lengths, 2, Parallelism::InterOp), [[0], [1]]);
    }

    #[test]
    fn decoding_sequences_keep_their_adapter_neighbours() {
        let demands = demands(&[], 10);
        let chunk_lengths = prefill_chunks(&demands, 2, 64);
        assert_eq!(
            partition_batch(&demands, &chunk_lengths, 2, Parallelism::InterOp),
            [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
        );
    }
}
