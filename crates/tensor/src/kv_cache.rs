//! What is remembered of a sequence that is being continued: the keys and values of its rows in every layer, in pages.
//!
//! A page holds some neighbouring rows in all layers. Sequences that begin alike may share their first pages (Kwon et al. 2023). Keys lie as products read them: by head, sixteen rows side by side. Knows nothing of how attention is
//! computed, nor of whose sequences these are.

use super::cpu::{LANES, MatrixBuf};
use std::sync::Arc;

/// Rows of a page: whole registers of keys.
pub const BLOCK_SIZE: usize = 32;

/// What a row's keys and values look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvCacheShape {
    pub layers: usize,
    /// Of keys, as many as of values.
    pub kv_heads: usize,
    /// Numbers of a head.
    pub head_dim: usize,
}

impl KvCacheShape {
    /// Bytes of a page.
    pub fn block_bytes(self) -> usize {
        2 * self.layers * self.kv_heads * self.head_dim * BLOCK_SIZE * size_of::<f32>()
    }

    /// Pages that so many rows take.
    pub fn blocks_for_rows(rows: usize) -> usize {
        rows.div_ceil(BLOCK_SIZE)
    }
}

/// Some neighbouring rows of a sequence.
#[derive(Debug)]
pub struct KvBlock {
    shape: KvCacheShape,
    keys: MatrixBuf,
    values: MatrixBuf,
}

impl KvBlock {
    fn new(shape: KvCacheShape) -> Self {
        let allocate = || MatrixBuf::zeros_exact_size(shape.layers * shape.kv_heads, shape.head_dim * BLOCK_SIZE);
        Self { shape, keys: allocate(), values: allocate() }
    }

    fn head_offset(&self, layer: usize, head: usize) -> usize {
        (layer * self.shape.kv_heads + head) * self.shape.head_dim * BLOCK_SIZE
    }

    /// A head's keys: panels of sixteen rows, each `(width, 16)`.
    pub fn keys(&self, layer: usize, head: usize) -> &[f32] {
        &self.keys.as_padded_slice()[self.head_offset(layer, head)..]
    }

    /// A head's values, `(rows, width)`, with at least sixteen numbers behind the last row.
    pub fn values(&self, layer: usize, head: usize) -> &[f32] {
        &self.values.as_padded_slice()[self.head_offset(layer, head)..]
    }

    /// One row's key and value of a head.
    fn row_key_value(&self, layer: usize, head: usize, row: usize) -> (impl Iterator<Item = f32> + '_, &[f32]) {
        let width = self.shape.head_dim;
        let panel = &self.keys(layer, head)[row / LANES * width * LANES + row % LANES..];
        let value = &self.values(layer, head)[row * width..(row + 1) * width];
        (panel.iter().step_by(LANES).take(width).copied(), value)
    }

    fn write_row(&mut self, layer: usize, row: usize, key: &[f32], value: &[f32]) {
        let width = self.shape.head_dim;
        for head in 0..self.shape.kv_heads {
            let (start, columns) = (self.head_offset(layer, head), head * width..(head + 1) * width);
            let panel = &mut self.keys.as_mut_padded_slice()[start + row / LANES * width * LANES + row % LANES..];
            panel.iter_mut().step_by(LANES).zip(&key[columns.clone()]).for_each(|(to, from)| *to = *from);
            self.values.as_mut_padded_slice()[start + row * width..][..width].copy_from_slice(&value[columns]);
        }
    }
}

impl Clone for KvBlock {
    fn clone(&self) -> Self {
        let mut copy = Self::new(self.shape);
        copy.keys.as_mut_padded_slice().copy_from_slice(self.keys.as_padded_slice());
        copy.values.as_mut_padded_slice().copy_from_slice(self.values.as_padded_slice());
        copy
    }
}

/// The rows of one sequence so far.
#[derive(Debug, Clone)]
pub struct SequenceKvCache {
    shape: KvCacheShape,
    blocks: Vec<Arc<KvBlock>>,
    num_rows: usize,
    /// By layer: an adapter's own keys and values in front of the sequence's.
    prefix_lengths: Arc<[usize]>,
}

impl SequenceKvCache {
    /// Of a sequence that has not begun.
    pub fn new(shape: KvCacheShape) -> Self {
        Self { shape, blocks: Vec::new(), num_rows: 0, prefix_lengths: vec![0; shape.layers].into() }
    }

    /// Of a sequence whose first rows, and what is in front of them, are those of these pages.
    pub fn from_shared_blocks(
        shape: KvCacheShape,
        blocks: Vec<Arc<KvBlock>>,
        num_rows: usize,
        prefix_lengths: Arc<[usize]>,
    ) -> Self {
        Self { shape, blocks, num_rows, prefix_lengths }
    }

    pub fn shape(&self) -> KvCacheShape {
        self.shape
    }

    /// The sequence's own, virtual tokens among them.
    pub fn num_rows(&self) -> usize {
        self.num_rows
    }

    /// By layer: keys and values in front of the sequence's.
    pub fn prefix_lengths(&self) -> &Arc<[usize]> {
        &self.prefix_lengths
    }

    pub fn is_empty(&self) -> bool {
        self.num_rows == 0
    }

    /// The place of a layer's next row.
    pub fn next_row(&self, layer: usize) -> usize {
        self.prefix_lengths[layer] + self.num_rows
    }

    /// The position of the next row, where what stands in front in any layer counts too.
    pub fn next_position(&self) -> usize {
        self.prefix_lengths.iter().copied().max().unwrap_or(0) + self.num_rows
    }

    /// The pages that hold nothing but rows that have been computed, at least in the layer with the most in front.
    pub fn full_blocks(&self) -> &[Arc<KvBlock>] {
        &self.blocks[..self.next_position() / BLOCK_SIZE]
    }

    pub fn blocks(&self) -> &[Arc<KvBlock>] {
        &self.blocks
    }

    /// An adapter's own keys and values of a layer, before the first row: `(rows, heads · width)` each.
    pub fn write_prefix(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        let width = self.shape.kv_heads * self.shape.head_dim;
        Arc::make_mut(&mut self.prefix_lengths)[layer] = keys.len() / width;
        self.write_rows(layer, 0, keys, values);
    }

    /// Keys and values of a layer's next rows: `(rows, heads · width)` each.
    pub fn append(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        self.write_rows(layer, self.next_row(layer), keys, values);
    }

    fn write_rows(&mut self, layer: usize, first_row: usize, keys: &[f32], values: &[f32]) {
        let width = self.shape.kv_heads * self.shape.head_dim;
        for ((key, value), row) in keys.chunks_exact(width).zip(values.chunks_exact(width)).zip(first_row..) {
            if row / BLOCK_SIZE == self.blocks.len() {
                self.blocks.push(Arc::new(KvBlock::new(self.shape)));
            }
            // What others share is copied before it is written on.
            Arc::make_mut(&mut self.blocks[row / BLOCK_SIZE]).write_row(layer, row % BLOCK_SIZE, key, value);
        }
    }

    /// So many rows have gone through all layers.
    pub fn advance(&mut self, rows: usize) {
        self.num_rows += rows;
    }

    /// The first `rows` keys and values of a layer, `(rows, heads · width)` each, as they were given.
    pub fn read_rows(&self, layer: usize, rows: usize) -> [Vec<f32>; 2] {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for row in 0..rows {
            for head in 0..self.shape.kv_heads {
                let (key, value) = self.blocks[row / BLOCK_SIZE].row_key_value(layer, head, row % BLOCK_SIZE);
                keys.extend(key);
                values.extend_from_slice(value);
            }
        }
        [keys, values]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip_and_shared_blocks_are_copied_on_write() {
        let shape = KvCacheShape { layers: 2, kv_heads: 3, head_dim: 4 };
        let numbers = |rows: usize, from: usize| (0..rows * 12).map(|at| (from + at) as f32).collect::<Vec<f32>>();
        let mut cache = SequenceKvCache::new(shape);
        for layer in 0..2 {
            cache.write_prefix(layer, &numbers(3, layer), &numbers(3, 1000 + layer));
            cache.append(layer, &numbers(40, 36 + layer), &numbers(40, 1036 + layer));
        }
        cache.advance(40);
        assert_eq!(
            (cache.num_rows(), cache.next_row(0), cache.blocks().len(), cache.full_blocks().len()),
            (40, 43, 2, 1)
        );
        assert_eq!(cache.read_rows(1, 43), [numbers(43, 1), numbers(43, 1001)]);
        let mut shared = SequenceKvCache::from_shared_blocks(
            shape,
            cache.full_blocks().to_vec(),
            20,
            Arc::clone(cache.prefix_lengths()),
        );
        assert_eq!((shared.num_rows(), shared.next_row(0)), (20, 23));
        shared.append(0, &[7.0; 12], &[8.0; 12]);
        shared.advance(1);
        assert_eq!(shared.read_rows(0, 23)[0], cache.read_rows(0, 23)[0]);
        assert_eq!(shared.read_rows(0, 24)[0][23 * 12..], [7.0; 12]);
        assert_eq!(cache.read_rows(0, 43), [numbers(43, 0), numbers(43, 1000)]);
        assert_eq!(shape.block_bytes(), 2 * 2 * 3 * 4 * 32 * 4);
    }
}
