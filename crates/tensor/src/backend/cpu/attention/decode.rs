//! Paged decode attention: queries of the last rows of each sequence against its KV cache, block by block.

use super::kv_block::CpuKvBlock;
use super::softmax::{ScoreMask, Softmax, padded_len};
use crate::backend::cpu::backend::{CpuBackend, buffer_from_matrix_buf};
use crate::backend::cpu::gemm::{AccumulatorInit, Gemm, Lhs, Rhs};
use crate::backend::cpu::matrix::MatrixBuf;
use crate::backend::cpu::simd::Isa;
use crate::backend::{Buffer, CachedSequence, DecodeAttentionInput, KV_BLOCK_ROWS, KvBlock, KvCacheOps, KvCacheShape};
use crate::error::Result;
use std::ops::Range;

impl KvCacheOps for CpuBackend {
    fn new_kv_block(&self, shape: KvCacheShape) -> Result<KvBlock> {
        Ok(KvBlock::new(CpuKvBlock::new(shape)))
    }

    fn write_kv_block(
        &self,
        block: &mut KvBlock,
        position: [usize; 2],
        key_value: [&Buffer; 2],
        source: Range<usize>,
    ) -> Result<()> {
        let block: &mut CpuKvBlock = block.make_mut().expect("the block belongs to this backend");
        block.write(position, key_value.map(Buffer::as_matrix), source);
        Ok(())
    }

    fn decode_attention(&self, input: DecodeAttentionInput) -> Result<Buffer> {
        let query = input.query.as_matrix();
        let mut out = MatrixBuf::new(query.rows(), query.width());
        let decode_sequences = input.sequences.iter().zip(input.query_layout.row_ranges());
        let sequences: Vec<DecodeSequence> =
            decode_sequences.map(|(cached, query_rows)| DecodeSequence { cached: *cached, query_rows }).collect();
        let score_len =
            |sequence: &DecodeSequence| sequence.query_rows.len().max(input.heads) * padded_len(sequence.cached.rows);
        let mut scores = MatrixBuf::new(1, sequences.iter().map(score_len).max().unwrap_or(0));
        for sequence in &sequences {
            for group in head_groups(&input, sequence) {
                attend_head_group(self.isa, &input, sequence, &group, scores.as_mut_padded_slice(), &mut out);
            }
        }
        Ok(buffer_from_matrix_buf(out))
    }
}

struct DecodeSequence<'a> {
    cached: CachedSequence<'a>,
    /// Rows of the sequence in the queries.
    query_rows: Range<usize>,
}

/// Query rows that share keys: the query heads of one row that share a key head, or all rows of one query head.
struct HeadGroup {
    kv_head: usize,
    first_head: usize,
    head_count: usize,
    query_rows: usize,
}

/// Splits the heads of one sequence into groups. The heads of a single row that share keys are the rows of one product.
fn head_groups(input: &DecodeAttentionInput, sequence: &DecodeSequence) -> Vec<HeadGroup> {
    let kv_heads = input.shape.kv_heads;
    let (group_size, rows) = (input.heads / kv_heads, sequence.query_rows.len());
    match rows {
        1 => (0..kv_heads)
            .map(|kv_head| HeadGroup {
                kv_head,
                first_head: kv_head * group_size,
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
    let (kv_len, row_stride) = (sequence.cached.rows, padded_len(sequence.cached.rows));
    let (head_width, query) = (input.shape.head_dim, input.query.as_matrix());
    let (hidden_size, score_rows) = (query.width(), group.head_count * group.query_rows);
    let query_row_stride = if group.query_rows == 1 { head_width } else { hidden_size };
    let query_offset = sequence.query_rows.start * hidden_size + group.first_head * head_width;
    let scores = &mut scores[..score_rows * row_stride];
    let kv_blocks = || sequence.cached.blocks.iter().map(KvBlock::as_cpu).zip((0..kv_len).step_by(KV_BLOCK_ROWS));
    for (kv_block, first_position) in kv_blocks() {
        isa.run(Gemm {
            m: score_rows,
            k: head_width,
            n: padded_len(KV_BLOCK_ROWS.min(kv_len - first_position)),
            lhs: Lhs { values: &query.as_padded_slice()[query_offset..], row_stride: query_row_stride, k_stride: 1 },
            rhs: Rhs::packed(kv_block.keys(input.layer, group.kv_head), head_width),
            init: AccumulatorInit::Zero,
            out: &mut scores[first_position..],
            out_stride: row_stride,
        });
    }
    // The query rows are the last rows of the sequence. The heads of a single row are masked alike.
    for scores in scores.chunks_exact_mut(group.query_rows * row_stride) {
        let prefix_len = sequence.cached.prefix_rows;
        let prefix_and_first_query = (prefix_len, kv_len - prefix_len - group.query_rows);
        let scale = 1.0 / (head_width as f32).sqrt();
        let mask = ScoreMask::new(input.mask, group.first_head, prefix_and_first_query, scale);
        isa.run(Softmax { scores, row_stride, length: kv_len, scale, mask: Some(mask) });
    }
    for (kv_block, first_position) in kv_blocks() {
        isa.run(Gemm {
            m: score_rows,
            k: KV_BLOCK_ROWS.min(kv_len - first_position),
            n: head_width,
            lhs: Lhs { values: &scores[first_position..], row_stride, k_stride: 1 },
            rhs: Rhs::row_major(kv_block.values(input.layer, group.kv_head), head_width),
            init: if first_position == 0 { AccumulatorInit::Zero } else { AccumulatorInit::Output },
            out: &mut out.as_mut_padded_slice()[query_offset..],
            out_stride: query_row_stride,
        });
    }
}
