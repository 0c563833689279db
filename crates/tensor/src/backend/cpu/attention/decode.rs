//! Paged decode attention: queries of the last rows of each sequence against its KV cache, block by block. Blocks of query rows are split over the
//! active intra-op threads.

use super::head_tasks::QUERY_BLOCK_ROWS;
use super::kv_block::CpuKvBlock;
use super::softmax::{ScoreMask, Softmax, padded_len};
use crate::backend::cpu::backend::{CpuBackend, buffer_from_matrix_buf};
use crate::backend::cpu::gemm::{AccumulatorInit, Gemm, Lhs, Rhs};
use crate::backend::cpu::matrix::MatrixBuf;
use crate::backend::cpu::simd::Isa;
use crate::backend::cpu::threads::with_current_pool;
use crate::backend::{Buffer, CachedSequence, DecodeAttentionInput, KV_BLOCK_ROWS, KvBlock, KvCacheOps, KvCacheShape};
use crate::error::Result;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

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
        let mut remaining = out.as_mut_slice();
        let mut blocks = Vec::new();
        for block in query_blocks(&input) {
            let (block_out, rest) = std::mem::take(&mut remaining).split_at_mut(block.query_rows.len() * query.width());
            remaining = rest;
            blocks.push((block, Mutex::new(block_out)));
        }
        let score_len =
            |(block, _): &(CachedQueryBlock, _)| block.query_rows.len().max(input.heads) * padded_len(block.keys);
        let most_scores = blocks.iter().map(score_len).max().unwrap_or(0);
        // Later rows of a sequence attend to more keys, so they go first.
        let queue = Mutex::new(blocks.iter().rev());
        let attend = |_| {
            let mut scores = MatrixBuf::new(1, most_scores);
            let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            while let Some((block, out)) = next() {
                // Each block is taken from the queue once, so its lock is never contended.
                let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
                for group in head_groups(&input, block) {
                    attend_head_group(self.isa, &input, block, &group, scores.as_mut_padded_slice(), &mut out);
                }
            }
        };
        with_current_pool(|pool| match pool {
            Some(pool) if blocks.len() > 1 => pool.run(attend),
            _ => attend(0),
        });
        drop(blocks);
        Ok(buffer_from_matrix_buf(out))
    }
}

/// Adjacent query rows of one sequence. One thread computes their attention.
struct CachedQueryBlock<'a> {
    cached: CachedSequence<'a>,
    /// Rows of the block in the queries.
    query_rows: Range<usize>,
    /// Number of leading keys that include every key the block attends to.
    keys: usize,
    /// Position of the first query row among the sequence's own rows.
    first_position: usize,
}

/// Splits the query rows of all sequences into blocks, in order.
fn query_blocks<'a>(input: &'a DecodeAttentionInput) -> impl Iterator<Item = CachedQueryBlock<'a>> {
    input.sequences.iter().zip(input.query_layout.row_ranges()).flat_map(move |(cached, rows)| {
        let (prefix_rows, key_count) = (cached.prefix_rows, cached.rows);
        // The query rows are the last rows of the sequence.
        let sequence_position = key_count - prefix_rows - rows.len();
        rows.clone().step_by(QUERY_BLOCK_ROWS).map(move |start| {
            let query_rows = start..rows.end.min(start + QUERY_BLOCK_ROWS);
            let first_position = sequence_position + start - rows.start;
            let positions = first_position..first_position + query_rows.len();
            let keys = input.mask.visible_range(positions, prefix_rows, key_count).end;
            CachedQueryBlock { cached: *cached, query_rows, keys, first_position }
        })
    })
}

/// Query rows that share keys: the query heads of one row that share a key head, or all rows of one query head.
struct HeadGroup {
    kv_head: usize,
    first_head: usize,
    head_count: usize,
    query_rows: usize,
}

/// Splits the heads of a block into groups. The heads of a single row that share keys are the rows of one product.
fn head_groups(input: &DecodeAttentionInput, block: &CachedQueryBlock) -> Vec<HeadGroup> {
    let kv_heads = input.shape.kv_heads;
    let (group_size, rows) = (input.heads / kv_heads, block.query_rows.len());
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
    block: &CachedQueryBlock,
    group: &HeadGroup,
    scores: &mut [f32],
    out: &mut [f32],
) {
    let (kv_len, row_stride) = (block.keys, padded_len(block.keys));
    let (head_width, query) = (input.shape.head_dim, input.query.as_matrix());
    let (hidden_size, score_rows) = (query.width(), group.head_count * group.query_rows);
    let query_row_stride = if group.query_rows == 1 { head_width } else { hidden_size };
    let column = group.first_head * head_width;
    let query_offset = block.query_rows.start * hidden_size + column;
    let scores = &mut scores[..score_rows * row_stride];
    let kv_blocks = || block.cached.blocks.iter().map(KvBlock::as_cpu).zip((0..kv_len).step_by(KV_BLOCK_ROWS));
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
    // The heads of a single row are masked alike.
    for scores in scores.chunks_exact_mut(group.query_rows * row_stride) {
        let prefix_and_first_query = (block.cached.prefix_rows, block.first_position);
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
            out: &mut out[column..],
            out_stride: query_row_stride,
        });
    }
}
