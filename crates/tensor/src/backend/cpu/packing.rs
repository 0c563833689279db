//! Packing of weights into panels of sixteen columns, the layout that GEMM reads.

use super::matrix::{Matrix, MatrixBuf};
use super::simd::LANES;
use super::threads::par_for_each_chunk;

/// Packs W `(rows, k)` for `x·Wᵀ`: its rows become columns, sixteen to a panel; unused lanes are 0.
pub fn pack_rows(weight: &[f32], rows: usize, k: usize) -> Matrix {
    let mut buf = MatrixBuf::zeros_in_arena(rows.div_ceil(LANES), k * LANES);
    par_for_each_chunk(buf.as_mut_slice(), k * LANES, |panel, out| {
        pack_rows_into(out, k, weight[panel * LANES * k..].chunks_exact(k).take(LANES));
    });
    buf.freeze()
}

/// Packs rows of `k` values into as many panels as they need.
pub fn pack_rows_into<'a>(panels: &mut [f32], k: usize, rows: impl Iterator<Item = &'a [f32]>) {
    // Only the last panel has unused lanes.
    if let Some(last_panel) = panels.rchunks_exact_mut(k * LANES).next() {
        last_panel.fill(0.0);
    }
    for (index, row) in rows.enumerate() {
        let row_start = (index / LANES) * k * LANES + index % LANES;
        panels[row_start..].iter_mut().step_by(LANES).zip(row).for_each(|(dst, src)| *dst = *src);
    }
}

/// Packs W for `dY·W`, from its panels for `x·Wᵀ`, W `(output, input)`.
pub fn transpose_packed(panels: &Matrix, out_features: usize, in_features: usize) -> Matrix {
    let mut buf = MatrixBuf::zeros_in_arena(in_features.div_ceil(LANES), out_features * LANES);
    let packed = panels.as_slice();
    par_for_each_chunk(buf.as_mut_slice(), out_features * LANES, |panel, out| {
        for (row, out_lanes) in out.chunks_exact_mut(LANES).enumerate() {
            let start = (row / LANES) * in_features * LANES + row % LANES;
            for (lane, column) in out_lanes.iter_mut().zip(panel * LANES..in_features) {
                *lane = packed[start + column * LANES];
            }
        }
    });
    buf.freeze()
}

/// Transposes a row-major matrix of `cols` columns.
pub fn transpose(values: &[f32], cols: usize, out: &mut [f32]) {
    let rows = values.len() / cols.max(1);
    for (row, values) in values.chunks_exact(cols).enumerate() {
        out[row..].iter_mut().step_by(rows).zip(values).for_each(|(dst, src)| *dst = *src);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeded_rng::SeededRng;

    #[test]
    fn packed_panels_hold_every_weight_at_the_gemm_offset() {
        for (rows, k) in [(1, 1), (16, 3), (17, 5), (40, 33)] {
            let mut random = SeededRng::new(1, &["panels"]);
            let weight: Vec<f32> = (0..rows * k).map(|_| random.standard_normal()).collect();
            let panels = pack_rows(&weight, rows, k);
            let transposed_panels = transpose_packed(&panels, rows, k);
            for row in 0..rows {
                for column in 0..k {
                    let expected = weight[row * k + column];
                    assert_eq!(panels.row(row / LANES)[column * LANES + row % LANES], expected);
                    assert_eq!(transposed_panels.row(column / LANES)[row * LANES + column % LANES], expected);
                }
            }
        }
    }
}
