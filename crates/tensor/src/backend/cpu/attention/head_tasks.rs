//! What attention is computed for, piece by piece: a sequence's rows of one head, and of those the rows that see the same keys.

use crate::RaggedLayout;
use crate::attention_mask::MaskContext;
use crate::backend::cpu::attention::score_mask::ScoreMask;
use crate::backend::cpu::attention::softmax::padded_len;
use crate::backend::cpu::matrix::Matrix;
use crate::backend::cpu::simd::LANES;
use std::ops::Range;

/// Longer sequences' probabilities are not kept for the backward pass, but computed once more.
const MAX_SAVED_LEN: usize = 256;
/// Rows that look at the same keys, where not all look at all: whole tiles, and few enough to see little of what is hidden.
const QUERY_BLOCK_ROWS: usize = 48;

#[derive(Clone, Copy)]
pub struct AttentionInputs<'a> {
    /// `(rows, heads · head width)`
    pub query: &'a Matrix,
    /// Each with as many heads, or fewer: a head's queries then share keys and values with those beside it.
    pub key: &'a Matrix,
    pub value: &'a Matrix,
    /// The sequences' rows in `query`.
    pub query_layout: &'a RaggedLayout,
    /// Their rows in `key` and `value`.
    pub key_layout: &'a RaggedLayout,
    pub heads: usize,
    pub mask_context: Option<MaskContext<'a>>,
}

/// A sequence's rows of one head.
#[derive(Clone)]
pub struct HeadTask {
    pub query_rows: Range<usize>,
    pub key_rows: Range<usize>,
    pub head: usize,
    /// First column of the queries, and of the keys and values.
    pub query_column: usize,
    pub kv_column: usize,
    /// Whether it is the first that reads these keys and values.
    pub is_first_of_group: bool,
    /// Keys in front of the sequence's own, where distances count, and the place of the first row that asks.
    pub prefix_len: usize,
    pub first_query_position: usize,
    /// Where the probabilities are kept; `None` where they are not.
    pub saved_offset: Option<usize>,
}

impl<'a> AttentionInputs<'a> {
    pub fn head_width(&self) -> usize {
        self.query.width() / self.heads
    }

    pub fn scale(&self) -> f32 {
        1.0 / (self.head_width() as f32).sqrt()
    }

    /// Heads of queries that share one of keys and values (Ainslie et al. 2023).
    fn group_size(&self) -> usize {
        self.query.width() / self.key.width()
    }

    pub fn head_tasks(&self) -> impl Iterator<Item = HeadTask> {
        let (head_width, group_size) = (self.head_width(), self.group_size());
        let mut saved_end = 0;
        let scales = self.heads;
        let mask_context = self.mask_context;
        self.query_layout.row_ranges().zip(self.key_layout.row_ranges()).enumerate().flat_map(
            move |(sequence, (asking, key_rows))| {
                let own_len = mask_context.map_or(key_rows.len(), |near| near.unprefixed_key_layout.length(sequence));
                let prefix_len = key_rows.len() - own_len;
                let first_query_position = mask_context.map_or(0, |near| near.mask.query_offset(asking.len(), own_len));
                let (saved_start, saved_per_head) = (saved_end, saved_scores_per_head(&asking, &key_rows));
                saved_end += scales * saved_per_head.unwrap_or(0);
                (0..scales).map(move |head| HeadTask {
                    query_rows: asking.clone(),
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

    /// How many probabilities are kept.
    pub fn saved_len(&self) -> usize {
        let row_ranges = self.query_layout.row_ranges().zip(self.key_layout.row_ranges());
        row_ranges
            .filter_map(|(query_rows, key_rows)| saved_scores_per_head(&query_rows, &key_rows))
            .map(|saved| self.heads * saved)
            .sum()
    }

    /// What distances do to the scores of some rows of a place.
    pub fn score_mask(&self, task: &HeadTask, block: &QueryBlock) -> Option<ScoreMask<'a>> {
        let mask_context = self.mask_context?;
        let first_query_position = task.first_query_position + block.rows.start;
        Some(
            ScoreMask::new(mask_context.mask, task.head, (task.prefix_len, first_query_position), self.scale())
                .starting_at_key(block.keys.start),
        )
    }

    /// All rows of a place, with the keys that they look at.
    pub fn query_blocks(&self, task: &HeadTask) -> impl Iterator<Item = QueryBlock> + use<'a> {
        let (query_count, prefix_len, first_query_position, key_count) =
            (task.query_rows.len(), task.prefix_len, task.first_query_position, task.key_rows.len());
        let hiding_mask = self.mask_context.map(|near| near.mask).filter(|distance| distance.is_masked());
        let max_rows = if hiding_mask.is_some() { QUERY_BLOCK_ROWS } else { query_count };
        (0..query_count).step_by(max_rows.max(1)).map(move |block_start| {
            let query_rows = block_start..query_count.min(block_start + max_rows);
            let visible_keys = hiding_mask.map(|distance| {
                distance.visible_range(
                    first_query_position + query_rows.start..first_query_position + query_rows.end,
                    prefix_len,
                    key_count,
                )
            });
            let visible_keys = visible_keys.unwrap_or(0..key_count);
            // from a register's start
            QueryBlock { rows: query_rows, keys: visible_keys.start / LANES * LANES..visible_keys.end }
        })
    }

    pub fn max_key_len(&self) -> usize {
        self.key_layout.row_ranges().map(|rows| rows.len()).max().unwrap_or(0)
    }
}

/// How many probabilities of a sequence are kept for each head, if any.
fn saved_scores_per_head(query_rows: &Range<usize>, key_rows: &Range<usize>) -> Option<usize> {
    (key_rows.len() <= MAX_SAVED_LEN).then(|| padded_len(key_rows.len()) * query_rows.len())
}

/// Some rows of a place that ask, and keys that they look at: all others are hidden from them.
pub struct QueryBlock {
    pub rows: Range<usize>,
    pub keys: Range<usize>,
}

impl QueryBlock {
    /// Its part of a head's probabilities, whose rows are a `step` apart.
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
