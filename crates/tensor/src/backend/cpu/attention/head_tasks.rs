//! Work items of attention: the rows of one sequence and head, and blocks of its query rows.

use crate::RaggedLayout;
use crate::attention_mask::MaskContext;
use crate::backend::cpu::attention::softmax::{ScoreMask, padded_len};
use crate::backend::cpu::matrix::Matrix;
use crate::backend::cpu::simd::LANES;
use std::ops::Range;

/// Probabilities of longer sequences are recomputed in the backward pass, not saved.
const MAX_SAVED_LEN: usize = 256;
/// Query rows per block under a window or causal mask: whole tiles, and few enough to skip most masked keys.
pub const QUERY_BLOCK_ROWS: usize = 48;

/// Inputs of attention over all sequences and heads.
#[derive(Clone, Copy)]
pub struct AttentionInputs<'a> {
    /// `(rows, heads · head width)`
    pub query: &'a Matrix,
    /// `(rows, key heads · head width)`; neighbouring query heads share a key head if there are fewer.
    pub key: &'a Matrix,
    pub value: &'a Matrix,
    /// Rows of the sequences in `query`.
    pub query_layout: &'a RaggedLayout,
    /// Rows of the sequences in `key` and `value`.
    pub key_layout: &'a RaggedLayout,
    pub heads: usize,
    pub mask_context: Option<MaskContext<'a>>,
}

/// One head of one sequence.
#[derive(Clone)]
pub struct HeadTask {
    pub query_rows: Range<usize>,
    pub key_rows: Range<usize>,
    pub head: usize,
    /// First column in the queries, and in the keys and values.
    pub query_column: usize,
    pub kv_column: usize,
    /// Whether this is the first query head that reads its key head.
    pub is_first_of_group: bool,
    /// Key rows before the sequence's own (0 without a mask), and the position of the first query row.
    pub prefix_len: usize,
    pub first_query_position: usize,
    /// Offset of the saved probabilities; `None` if they are recomputed.
    pub saved_offset: Option<usize>,
}

impl<'a> AttentionInputs<'a> {
    pub fn head_width(&self) -> usize {
        self.query.width() / self.heads
    }

    pub fn scale(&self) -> f32 {
        1.0 / (self.head_width() as f32).sqrt()
    }

    /// Number of query heads that share one key head (Ainslie et al. 2023).
    fn group_size(&self) -> usize {
        self.query.width() / self.key.width()
    }

    pub fn head_tasks(&self) -> impl Iterator<Item = HeadTask> {
        let (head_width, group_size) = (self.head_width(), self.group_size());
        let mut saved_end = 0;
        let heads = self.heads;
        let mask_context = self.mask_context;
        self.query_layout.row_ranges().zip(self.key_layout.row_ranges()).enumerate().flat_map(
            move |(sequence, (query_rows, key_rows))| {
                let own_len = mask_context.map_or(key_rows.len(), |mask| mask.unprefixed_key_layout.length(sequence));
                let prefix_len = key_rows.len() - own_len;
                let first_query_position =
                    mask_context.map_or(0, |mask| mask.mask.query_offset(query_rows.len(), own_len));
                let (saved_start, saved_per_head) = (saved_end, saved_scores_per_head(&query_rows, &key_rows));
                saved_end += heads * saved_per_head.unwrap_or(0);
                (0..heads).map(move |head| HeadTask {
                    query_rows: query_rows.clone(),
                    key_rows: key_rows.clone(),
                    head,
                    query_column: head * head_width,
                    kv_column: head / group_size * head_width,
                    is_first_of_group: head % group_size == 0,
                    prefix_len,
                    first_query_position,
                    saved_offset: saved_per_head.map(|one| saved_start + head * one),
                })
            },
        )
    }

    /// Number of saved probabilities.
    pub fn saved_len(&self) -> usize {
        let row_ranges = self.query_layout.row_ranges().zip(self.key_layout.row_ranges());
        row_ranges
            .filter_map(|(query_rows, key_rows)| saved_scores_per_head(&query_rows, &key_rows))
            .map(|saved| self.heads * saved)
            .sum()
    }

    /// Mask and bias of a block's scores.
    pub fn score_mask(&self, task: &HeadTask, block: &QueryBlock) -> Option<ScoreMask<'a>> {
        let mask_context = self.mask_context?;
        let first_query_position = task.first_query_position + block.rows.start;
        Some(
            ScoreMask::new(mask_context.mask, task.head, (task.prefix_len, first_query_position), self.scale())
                .starting_at_key(block.keys.start),
        )
    }

    /// Splits the query rows into blocks, each with the keys that any of its rows attends to.
    pub fn query_blocks(&self, task: &HeadTask) -> impl Iterator<Item = QueryBlock> + use<'a> {
        let (query_count, prefix_len, first_query_position, key_count) =
            (task.query_rows.len(), task.prefix_len, task.first_query_position, task.key_rows.len());
        let windowed_mask = self.mask_context.map(|mask| mask.mask).filter(|mask| mask.is_masked());
        let max_rows = if windowed_mask.is_some() { QUERY_BLOCK_ROWS } else { query_count };
        (0..query_count).step_by(max_rows.max(1)).map(move |block_start| {
            let query_rows = block_start..query_count.min(block_start + max_rows);
            let visible_keys = windowed_mask.map(|mask| {
                mask.visible_range(
                    first_query_position + query_rows.start..first_query_position + query_rows.end,
                    prefix_len,
                    key_count,
                )
            });
            let visible_keys = visible_keys.unwrap_or(0..key_count);
            // Start at a whole vector.
            QueryBlock { rows: query_rows, keys: visible_keys.start / LANES * LANES..visible_keys.end }
        })
    }

    pub fn max_key_len(&self) -> usize {
        self.key_layout.row_ranges().map(|rows| rows.len()).max().unwrap_or(0)
    }
}

/// Number of saved probabilities per head of a sequence; `None` if they are recomputed.
fn saved_scores_per_head(query_rows: &Range<usize>, key_rows: &Range<usize>) -> Option<usize> {
    (key_rows.len() <= MAX_SAVED_LEN).then(|| padded_len(key_rows.len()) * query_rows.len())
}

/// Query rows of a head, and the range of keys outside of which all are masked.
pub struct QueryBlock {
    pub rows: Range<usize>,
    pub keys: Range<usize>,
}

impl QueryBlock {
    /// The block's range in a head's scores, whose rows are `stride` apart.
    pub fn score_range(&self, stride: usize) -> Range<usize> {
        self.rows.start * stride + self.keys.start..self.rows.end * stride
    }

    pub fn query_rows(&self, sequence_rows: &Range<usize>) -> Range<usize> {
        sequence_rows.start + self.rows.start..sequence_rows.start + self.rows.end
    }

    pub fn key_rows(&self, sequence_rows: &Range<usize>) -> Range<usize> {
        sequence_rows.start + self.keys.start..sequence_rows.start + self.keys.end
    }
}
