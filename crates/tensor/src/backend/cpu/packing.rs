//! Weights in panels of sixteen columns, as products read them.

use super::matrix::{Matrix, MatrixBuf};
use super::simd::LANES;

/// For `x·Wᵀ`: W's rows `(rows, depth)` become columns, sixteen to a panel; 0 in the lanes that are left over.
pub fn pack_rows(weight: &[f32], rows: usize, k: usize) -> Matrix {
    let mut buf = MatrixBuf::zeros_in_arena(rows.div_ceil(LANES), k * LANES);
    pack_rows_into(buf.as_mut_slice(), k, weight.chunks_exact(k));
    buf.freeze()
}

/// The same for any rows of `depth` numbers, into as many panels as they need.
pub fn pack_rows_into<'a>(panels: &mut [f32], k: usize, rows: impl Iterator<Item = &'a [f32]>) {
    // The lanes that no row will fill are in the last panel.
    if let Some(last_panel) = panels.rchunks_exact_mut(k * LANES).next() {
        last_panel.fill(0.0);
    }
    for (index, row) in rows.enumerate() {
        let row_start = (index / LANES) * k * LANES + index % LANES;
        panels[row_start..].iter_mut().step_by(LANES).zip(row).for_each(|(dst, src)| *dst = *src);
    }
}

/// For `dY·W`, from the panels for `x·Wᵀ` with W `(output, input)`.
pub fn transpose_packed(panels: &Matrix, out_features: usize, in_features: usize) -> Matrix {
    let mut buf = MatrixBuf::zeros_in_arena(in_features.div_ceil(LANES), out_features * LANES);
    let packed = panels.as_slice();
    for (panel, out) in buf.as_mut_slice().chunks_exact_mut(out_features * LANES).enumerate() {
        for (row, out_lanes) in out.chunks_exact_mut(LANES).enumerate() {
            let start = (row / LANES) * in_features * LANES + row % LANES;
            for (lane, column) in out_lanes.iter_mut().zip(panel * LANES..in_features) {
                *lane = packed[start + column * LANES];
            }
        }
    }
    buf.freeze()
}

/// The transpose of a row-major matrix of `width` columns.
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
