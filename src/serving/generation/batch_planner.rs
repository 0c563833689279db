//! Who computes how many rows in a step, and on which thread.
//!
//! A step is as long as its longest part, and whoever speaks waits for it with every token. So prompts are read in pieces that
//! the threads share (Agrawal et al. 2024): the more wait to speak, the more is read between two tokens of those who do. Knows
//! nothing of models.

/// Tokens of prompts that are read at once where nobody waits for the next token.
const IDLE_PREFILL_CHUNK: usize = 256;

/// Rows that are rather shared by products than by parts.
const MIN_BATCH_ROWS: usize = 4;

/// Tokens of prompts that are read in a step at most, however many wait.
const MAX_PREFILL_TOKENS: usize = 2 * IDLE_PREFILL_CHUNK;

/// Whether threads can multiply together: they do where weights are held in fewer bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parallelism {
    IntraOp,
    InterOp,
}

/// A sequence before its step.
#[derive(Debug, Clone, Copy)]
pub struct SequenceDemand {
    /// Tokens whose rows are not computed yet, at least one.
    pub uncomputed_tokens: usize,
    /// Whether it still reads its prompt, and says nothing yet.
    pub is_prefilling: bool,
    /// Its number among all that came.
    pub arrival_order: u64,
}

/// The rows of each: of those that speak all, of those that read as far as `prompt_tokens` for each one that waits beside one
/// that speaks. Who came first reads first.
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
    // A piece is computed by one thread, unless nothing else is.
    let max_chunk = if demands.len() == 1 { budget } else { budget.div_ceil(threads.max(1)) };
    let mut chunk_lengths: Vec<usize> = demands.iter().map(|demand| demand.uncomputed_tokens).collect();
    for index in prefilling {
        chunk_lengths[index] = chunk_lengths[index].min(max_chunk).min(budget);
        budget -= chunk_lengths[index];
    }
    chunk_lengths
}

/// The sequences of each part, in their order: pieces of prompts where there is most room, and those that speak beside their
/// neighbours. One part stands for all threads together, where they share products: there are few rows then, or most of them are
/// one piece.
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
        let least_loaded = || (0..batches.len()).min_by_key(|part| batches[*part].0);
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
    batches.into_iter().map(sort_indices).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demands(prefilling: &[usize], decoding: usize) -> Vec<SequenceDemand> {
        let prefill = prefilling.iter().zip(0..).map(|(uncomputed_tokens, arrival_order)| SequenceDemand {
            uncomputed_tokens: *uncomputed_tokens,
            is_prefilling: true,
            arrival_order: arrival_order,
        });
        let decode = (0..decoding).map(|arrival_order| SequenceDemand {
            uncomputed_tokens: 1,
            is_prefilling: false,
            arrival_order: 100 + arrival_order as u64,
        });
        prefill.chain(decode).collect()
    }

    /// The rows of each part.
    fn rows_per_batch(demands: &[SequenceDemand], threads: usize, prefill_chunk_tokens: usize) -> Vec<usize> {
        let chunk_lengths = prefill_chunks(demands, threads, prefill_chunk_tokens);
        let batches = partition_batch(demands, &chunk_lengths, threads, Parallelism::IntraOp);
        let mut all: Vec<usize> = batches.iter().flatten().copied().collect();
        all.sort_unstable();
        let expected: Vec<usize> = (0..demands.len()).filter(|index| chunk_lengths[*index] > 0).collect();
        assert_eq!(all, expected, "each is computed once");
        batches.iter().map(|batch| batch.iter().map(|index| chunk_lengths[*index]).sum()).collect()
    }

    #[test]
    fn prompts_are_prefilled_in_chunks_while_others_decode() {
        assert_eq!(prefill_chunks(&demands(&[500], 0), 2, 64), [256]);
        assert_eq!(prefill_chunks(&demands(&[500], 4), 2, 64)[0], 32);
        assert_eq!(prefill_chunks(&demands(&[500, 500, 500], 4), 2, 64)[..3], [32, 32, 0]);
        assert_eq!(prefill_chunks(&demands(&[10, 500, 500], 4), 2, 64)[..3], [10, 32, 22]);
        // five that wait beside one that speaks
        assert_eq!(prefill_chunks(&demands(&[100; 5], 1), 2, 64)[..5], [100, 100, 100, 20, 0]);
        assert_eq!(
            prefill_chunks(&demands(&[400; 40], 1), 2, 64).iter().sum::<usize>(),
            512 + 1,
            "there is an end to it"
        );
        assert_eq!(prefill_chunks(&demands(&[500, 500], 0), 2, 64), [128, 128]);
        assert_eq!(prefill_chunks(&demands(&[7], 9), 4, 0)[0], 1, "whatever the setting, it goes on");
        let mut late = demands(&[50, 50], 3);
        late[0].arrival_order = 9;
        assert_eq!(prefill_chunks(&late, 1, 60)[..2], [10, 50]);
    }

    #[test]
    fn batches_have_about_equal_row_counts() {
        assert_eq!(rows_per_batch(&demands(&[], 16), 2, 64), [8, 8]);
        assert_eq!(rows_per_batch(&demands(&[62, 62], 14), 2, 64), [39, 39]);
        assert_eq!(rows_per_batch(&demands(&[500], 30), 2, 64), [32, 30]);
        assert_eq!(rows_per_batch(&demands(&[60; 8], 0), 4, 64), [76, 60, 60, 60]);
        assert_eq!(rows_per_batch(&demands(&[], 3), 8, 64), [3], "few rows are shared by products");
        assert_eq!(rows_per_batch(&demands(&[500], 1), 2, 64), [33], "so is a piece beside next to nothing");
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
