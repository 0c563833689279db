//! Attention to what is remembered: page by page, on scratch that stays in the cache.

use super::attention::Softmax;
use super::backend::{CpuBackend, buffer_from_matrix_buf};
use super::gemm::{AccumulatorInit, Gemm, Lhs, Rhs};
use super::matrix::MatrixBuf;
use super::score_mask::ScoreMask;
use super::simd::Isa;
use super::softmax::padded_len;
use crate::backend::Buffer;
use crate::decode_attention::{DecodeAttentionInput, DecodeAttentionOps};
use crate::error::Result;
use crate::kv_cache::{BLOCK_SIZE, SequenceKvCache};
use std::ops::Range;

impl DecodeAttentionOps for CpuBackend {
    fn decode_attention(&self, input: DecodeAttentionInput) -> Result<Buffer> {
        let (key, value) = (input.key.as_matrix(), input.value.as_matrix());
        for (kv_cache, range) in input.kv_caches.iter_mut().zip(input.key_layout.row_ranges()) {
            let value_range = range.start * key.width()..range.end * key.width();
            kv_cache.append(input.layer, &key.as_slice()[value_range.clone()], &value.as_slice()[value_range]);
        }
        let query = input.query.as_matrix();
        let mut out = MatrixBuf::new(query.rows(), query.width());
        let lengths = input
            .kv_caches
            .iter()
            .zip(input.key_layout.row_ranges())
            .map(|(kv_cache, rows)| kv_cache.next_row(input.layer) + rows.len());
        let decode_sequences = input.kv_caches.iter().zip(input.query_layout.row_ranges()).zip(lengths);
        let sequences: Vec<DecodeSequence> = decode_sequences
            .map(|((kv_cache, query_rows), length)| DecodeSequence { kv_cache, query_rows, kv_len: length })
            .collect();
        let max_scores =
            sequences.iter().map(|place| place.query_rows.len().max(input.heads) * padded_len(place.kv_len)).max();
        let mut scores = MatrixBuf::new(1, max_scores.unwrap_or(0));
        for sequence in &sequences {
            for group in head_groups(&input, sequence) {
                attend_head_group(self.isa, &input, sequence, &group, scores.as_mut_padded_slice(), &mut out);
            }
        }
        Ok(buffer_from_matrix_buf(out))
    }
}

/// A sequence that asks.
struct DecodeSequence<'a> {
    kv_cache: &'a SequenceKvCache,
    /// Of the queries.
    query_rows: Range<usize>,
    /// Rows that are remembered by now.
    kv_len: usize,
}

/// Rows of queries that look at the same keys: one row's neighbouring heads, or one head's rows.
struct HeadGroup {
    /// Of keys and values.
    kv_head: usize,
    first_head: usize,
    head_count: usize,
    query_rows: usize,
}

/// All heads of one sequence. A single row's heads that share keys are the rows of one product.
fn head_groups(input: &DecodeAttentionInput, sequence: &DecodeSequence) -> Vec<HeadGroup> {
    let kv_heads = sequence.kv_cache.shape().kv_heads;
    let (group_size, rows) = (input.heads / kv_heads, sequence.query_rows.len());
    match rows {
        1 => (0..kv_heads)
            .map(|shared| HeadGroup {
                kv_head: shared,
                first_head: shared * group_size,
                head_count: group_size,
                query_rows: rows,
            })
            .collect(),
        _ => (0..input.heads)
            .map(|head| HeadGroup { kv_head: head / group_size, first_head: head, head_count: 1, query_rows: rows })
            .collect(),
    }
}

fn attend_head_group(
    isa: Isa,
    input: &DecodeAttentionInput,
    sequence: &DecodeSequence,
    group: &HeadGroup,
    scores: &mut [f32],
    out: &mut MatrixBuf,
) {
    let (kv_cache, kv_len, row_stride) = (sequence.kv_cache, sequence.kv_len, padded_len(sequence.kv_len));
    let (head_width, query) = (kv_cache.shape().head_dim, input.query.as_matrix());
    let (hidden_size, score_rows) = (query.width(), group.head_count * group.query_rows);
    let query_row_stride = if group.query_rows == 1 { head_width } else { hidden_size };
    let query_offset = sequence.query_rows.start * hidden_size + group.first_head * head_width;
    let scores = &mut scores[..score_rows * row_stride];
    let kv_blocks = || kv_cache.blocks().iter().zip((0..kv_len).step_by(BLOCK_SIZE));
    for (kv_block, first_position) in kv_blocks() {
        isa.run(Gemm {
            m: score_rows,
            k: head_width,
            n: padded_len(BLOCK_SIZE.min(kv_len - first_position)),
            lhs: Lhs { values: &query.as_padded_slice()[query_offset..], row_stride: query_row_stride, k_stride: 1 },
            rhs: Rhs::packed(kv_block.keys(input.layer, group.kv_head), head_width),
            init: AccumulatorInit::Zero,
            out: &mut scores[first_position..],
            out_stride: row_stride,
        });
    }
    // The rows that ask are the sequence's last: what a single one must not see is hidden for all of its heads alike.
    for scores in scores.chunks_exact_mut(group.query_rows * row_stride) {
        let prefix_len = kv_cache.prefix_lengths()[input.layer];
        let prefix_and_first_query = (prefix_len, kv_len - prefix_len - group.query_rows);
        let scale = 1.0 / (head_width as f32).sqrt();
        let mask = ScoreMask::new(input.mask, group.first_head, prefix_and_first_query, scale);
        isa.run(Softmax { scores, row_stride, length: kv_len, scale, mask: Some(mask) });
    }
    for (kv_block, first_position) in kv_blocks() {
        isa.run(Gemm {
            m: score_rows,
            k: BLOCK_SIZE.min(kv_len - first_position),
            n: head_width,
            lhs: Lhs { values: &scores[first_position..], row_stride, k_stride: 1 },
            rhs: Rhs::row_major(kv_block.values(input.layer, group.kv_head), head_width),
            init: if first_position == 0 { AccumulatorInit::Zero } else { AccumulatorInit::Output },
            out: &mut out.as_mut_padded_slice()[query_offset..],
            out_stride: query_row_stride,
        });
    }
}
