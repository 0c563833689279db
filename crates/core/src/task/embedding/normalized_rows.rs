//! Rows of norm 1, their cosines, and the gradients of these. Computed on the host: a batch has a few rows per example, and its
//! sum needs a fixed order.

use crate::task::output_head::l2_norm;

/// Rows scaled to norm 1, and their original norms.
pub struct NormalizedRows {
    width: usize,
    rows: Vec<f32>,
    norms: Vec<f64>,
}

impl NormalizedRows {
    /// From `count` rows, concatenated.
    pub fn new(rows: &[f32], count: usize) -> Self {
        let width = rows.len() / count.max(1);
        let norms: Vec<f64> = rows.chunks_exact(width.max(1)).map(|row| l2_norm(row).max(1e-12)).collect();
        let rows_with_norms = rows.chunks_exact(width.max(1)).zip(&norms);
        let rows =
            rows_with_norms.flat_map(|(row, norm)| row.iter().map(move |value| (f64::from(*value) / norm) as f32));
        Self { width, rows: rows.collect(), norms }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.rows[row * self.width..][..self.width]
    }

    pub fn cosine(&self, left: usize, right: usize) -> f64 {
        const LANES: usize = 16;
        let (one, other) = (self.row(left), self.row(right));
        let (chunks, remainder) = one.as_chunks::<LANES>();
        let (right_chunks, right_remainder) = other.as_chunks::<LANES>();
        let mut sums = [0f32; LANES];
        for (one, other) in chunks.iter().zip(right_chunks) {
            for lane in 0..LANES {
                sums[lane] += one[lane] * other[lane];
            }
        }
        let rest = remainder.iter().zip(right_remainder).map(|(one, other)| one * other);
        sums.into_iter().chain(rest).map(f64::from).sum()
    }
}

/// Gradient with respect to rows of a sum of functions of their cosines.
pub struct CosineGradient<'a> {
    rows: &'a NormalizedRows,
    /// Gradient with respect to the normalized rows.
    unit_gradient: Vec<f64>,
}

impl<'a> CosineGradient<'a> {
    pub fn new(units: &'a NormalizedRows) -> Self {
        Self { rows: units, unit_gradient: vec![0.0; units.rows.len()] }
    }

    /// Adds `coefficient` times the gradient of a cosine.
    pub fn add_cosine(&mut self, one: usize, other: usize, coefficient: f64) {
        for (to, from) in [(one, other), (other, one)] {
            let sums = &mut self.unit_gradient[to * self.rows.width..][..self.rows.width];
            sums.iter_mut().zip(self.rows.row(from)).for_each(|(sum, value)| *sum += coefficient * f64::from(*value));
        }
    }

    /// Gradient with respect to the original rows.
    pub fn into_row_gradient(self) -> Vec<f64> {
        let (units, mut sums) = (self.rows, self.unit_gradient);
        for ((sums, row), length) in
            sums.chunks_exact_mut(units.width.max(1)).zip(units.rows.chunks_exact(units.width.max(1))).zip(&units.norms)
        {
            let projection: f64 = sums.iter().zip(row).map(|(sum, value)| sum * f64::from(*value)).sum();
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum = (*sum - projection * f64::from(*value)) / length);
        }
        sums
    }
}
