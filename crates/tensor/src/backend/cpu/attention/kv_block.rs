//! Block of the KV cache in the layout that products read: keys in panels of sixteen rows, values row by row.

use crate::backend::cpu::matrix::{Matrix, MatrixBuf};
use crate::backend::cpu::simd::LANES;
use crate::backend::{KV_BLOCK_ROWS, KvBlock, KvCacheShape};
use std::ops::Range;

/// Keys and values of neighbouring rows in all layers.
#[derive(Debug)]
pub struct CpuKvBlock {
    shape: KvCacheShape,
    keys: MatrixBuf,
    values: MatrixBuf,
}

impl CpuKvBlock {
    pub fn new(shape: KvCacheShape) -> Self {
        let allocate = || MatrixBuf::zeros_exact_size(shape.layers * shape.kv_heads, shape.head_dim * KV_BLOCK_ROWS);
        Self { shape, keys: allocate(), values: allocate() }
    }

    fn head_offset(&self, layer: usize, head: usize) -> usize {
        (layer * self.shape.kv_heads + head) * self.shape.head_dim * KV_BLOCK_ROWS
    }

    /// Keys of a head: panels of sixteen rows, each `(head width, 16)`.
    pub fn keys(&self, layer: usize, head: usize) -> &[f32] {
        &self.keys.as_padded_slice()[self.head_offset(layer, head)..]
    }

    /// Values of a head `(rows, head width)`, followed by at least sixteen spare values.
    pub fn values(&self, layer: usize, head: usize) -> &[f32] {
        &self.values.as_padded_slice()[self.head_offset(layer, head)..]
    }

    /// Copies the rows `source` of `key` and `value`, `(rows, key heads · head width)` each.
    pub fn write(&mut self, [layer, first_row]: [usize; 2], [key, value]: [&Matrix; 2], source: Range<usize>) {
        assert!(first_row + source.len() <= KV_BLOCK_ROWS, "the rows fit into the block");
        for (row, source_row) in (first_row..).zip(source) {
            self.write_row([layer, row], key.row(source_row), value.row(source_row));
        }
    }

    fn write_row(&mut self, [layer, row]: [usize; 2], key: &[f32], value: &[f32]) {
        let width = self.shape.head_dim;
        for head in 0..self.shape.kv_heads {
            let (start, columns) = (self.head_offset(layer, head), head * width..(head + 1) * width);
            let panel = &mut self.keys.as_mut_padded_slice()[start + row / LANES * width * LANES + row % LANES..];
            panel.iter_mut().step_by(LANES).zip(&key[columns.clone()]).for_each(|(dst, src)| *dst = *src);
            self.values.as_mut_padded_slice()[start + row * width..][..width].copy_from_slice(&value[columns]);
        }
    }
}

impl Clone for CpuKvBlock {
    fn clone(&self) -> Self {
        let mut copy = Self::new(self.shape);
        copy.keys.as_mut_padded_slice().copy_from_slice(self.keys.as_padded_slice());
        copy.values.as_mut_padded_slice().copy_from_slice(self.values.as_padded_slice());
        copy
    }
}

impl KvBlock {
    /// # Panics
    /// If the block belongs to another backend.
    pub(in crate::backend::cpu) fn as_cpu(&self) -> &CpuKvBlock {
        self.downcast_ref().expect("the block belongs to this backend")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;
    use crate::backend::Backend;
    use crate::backend::cpu::CpuBackend;
    use crate::kv_cache::SequenceKvCache;
    use std::sync::Arc;

    /// The first `rows` keys and values of a layer `(rows, heads · width)`.
    fn read_rows(cache: &SequenceKvCache, layer: usize, rows: usize) -> [Vec<f32>; 2] {
        let (shape, mut keys, mut values) = (cache.shape(), Vec::new(), Vec::new());
        for row in 0..rows {
            let (block, row) = (cache.blocks()[row / KV_BLOCK_ROWS].as_cpu(), row % KV_BLOCK_ROWS);
            for head in 0..shape.kv_heads {
                let panel = &block.keys(layer, head)[row / LANES * shape.head_dim * LANES + row % LANES..];
                keys.extend(panel.iter().step_by(LANES).take(shape.head_dim));
                values.extend(&block.values(layer, head)[row * shape.head_dim..(row + 1) * shape.head_dim]);
            }
        }
        [keys, values]
    }

    #[test]
    fn rows_round_trip_and_shared_blocks_are_copied_on_write() {
        let backend = CpuBackend::detect();
        let shape = KvCacheShape { layers: 2, kv_heads: 3, head_dim: 4 };
        let numbers = |rows: usize, from: usize| (0..rows * 12).map(|at| (from + at) as f32).collect::<Vec<f32>>();
        let upload = |values: Vec<f32>| backend.upload(&Tensor::new([values.len() / 12, 12], values)).unwrap();
        let mut cache = SequenceKvCache::new(shape);
        for layer in 0..2 {
            let prefix = [numbers(3, layer), numbers(3, 1000 + layer)].map(upload);
            cache.write_prefix(&backend, layer, prefix.each_ref()).unwrap();
            let rows = [numbers(40, 36 + layer), numbers(40, 1036 + layer)].map(upload);
            cache.append(&backend, layer, rows.each_ref(), 0..40).unwrap();
        }
        cache.advance(40);
        assert_eq!(
            (cache.num_rows(), cache.next_row(0), cache.blocks().len(), cache.full_blocks().len()),
            (40, 43, 2, 1)
        );
        assert_eq!(read_rows(&cache, 1, 43), [numbers(43, 1), numbers(43, 1001)]);
        let mut shared = SequenceKvCache::from_shared_blocks(
            shape,
            cache.full_blocks().to_vec(),
            20,
            Arc::clone(cache.prefix_lengths()),
        );
        assert_eq!((shared.num_rows(), shared.next_row(0)), (20, 23));
        let row = [vec![7.0; 12], vec![8.0; 12]].map(upload);
        shared.append(&backend, 0, row.each_ref(), 0..1).unwrap();
        shared.advance(1);
        assert_eq!(read_rows(&shared, 0, 23)[0], read_rows(&cache, 0, 23)[0]);
        assert_eq!(read_rows(&shared, 0, 24)[0][23 * 12..], [7.0; 12]);
        assert_eq!(read_rows(&cache, 0, 43), [numbers(43, 0), numbers(43, 1000)]);
        assert_eq!(shape.block_bytes(), 2 * 2 * 3 * 4 * 32 * 4);
    }
}
