//! A trained matrix in signed bytes, for steps that wait for the memory that it comes from.
//!
//! Each of an update's ranks has one scale for A and one for B, which are multiplied into the few numbers between them: so both
//! matrices are whole numbers to their products, in whatever order these read them.

use super::lanes::{LANES, Lanes, Level, Work};
use super::memory::{Draft, Matrix};
use super::product::Right;

/// A cache line: some rows of a panel.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([i8; 64]);

/// `(depth, columns)` as whole numbers from −127 to 127, in panels of sixteen columns; 0 in the lanes that are left over.
#[derive(Debug)]
pub struct Octets {
    lines: Box<[Line]>,
    /// What the numbers of a rank are multiplied by, in whole registers.
    scales: Box<[f32]>,
    depth: usize,
    columns: usize,
}

/// Where a matrix `(depth, columns)` has its ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranks {
    /// A's, as a forward pass reads it.
    Columns,
    /// B's.
    Rows,
}

impl Octets {
    pub fn of(matrix: &Matrix, ranks: Ranks) -> Self {
        let (depth, columns) = (matrix.rows(), matrix.width());
        let rank = |place: usize, column: usize| if ranks == Ranks::Rows { place } else { column };
        let count = if ranks == Ranks::Rows { depth } else { columns };
        let mut scales = vec![0f32; count.next_multiple_of(LANES)].into_boxed_slice();
        for (place, row) in matrix.values().chunks_exact(columns).enumerate() {
            for (column, value) in row.iter().enumerate() {
                let largest = &mut scales[rank(place, column)];
                *largest = largest.max(value.abs());
            }
        }
        scales.iter_mut().for_each(|largest| *largest /= 127.0);
        let inverse: Vec<f32> = scales.iter().map(|scale| if *scale > 0.0 { 1.0 / scale } else { 0.0 }).collect();
        let bytes = columns.div_ceil(LANES) * depth * LANES;
        let mut lines = vec![Line([0; 64]); bytes.div_ceil(64)].into_boxed_slice();
        for (place, row) in matrix.values().chunks_exact(columns).enumerate() {
            for (column, value) in row.iter().enumerate() {
                let at = (column / LANES * depth + place) * LANES + column % LANES;
                let number = (value * inverse[rank(place, column)]).round();
                lines[at / 64].0[at % 64] = number.clamp(-127.0, 127.0) as i8;
            }
        }
        Self { lines, scales, depth, columns }
    }

    /// As a product's right side, without scales.
    pub fn right(&self) -> Right<'_, i8> {
        Right::panels(self.numbers(), self.depth)
    }

    /// In memory.
    pub fn bytes(&self) -> u64 {
        (size_of_val(&*self.lines) + size_of_val(&*self.scales)) as u64
    }

    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    fn numbers(&self) -> &[i8] {
        // SAFETY: lines are arrays of bytes without gaps.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * 64) }
    }

    /// The same whole numbers as `f32`, in the same panels.
    pub fn widened(&self, level: Level) -> Matrix {
        let mut draft = Draft::new(self.columns.div_ceil(LANES), self.depth * LANES);
        level.run(Widen { from: self.numbers(), to: draft.values() });
        draft.done()
    }
}

struct Widen<'a> {
    from: &'a [i8],
    to: &'a mut [f32],
}

impl Work for Widen<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        assert!(self.to.len() <= self.from.len() && self.to.len().is_multiple_of(LANES), "both have whole panels");
        let mut at = 0;
        while at < self.to.len() {
            // SAFETY: both have sixteen numbers there; the caller's for the rest.
            unsafe { L::signed_bytes(self.from.as_ptr().add(at)).store(self.to.as_mut_ptr().add(at)) };
            at += LANES;
        }
    }
}
