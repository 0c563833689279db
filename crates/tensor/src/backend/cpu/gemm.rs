//! Matrix products on tiles of registers: the one kernel below linear maps, low-rank updates, attention and the
//! gradients of all of them.
//!
//! The right side lies in panels of sixteen columns. A packed weight's panels follow one another, each with its rows
//! end to end; any row-major matrix has panels too, side by side. The left side may be read along rows or columns, so
//! nothing is ever transposed for a product `Xᵀ·Y`. Every element is one chain of multiply-adds along the depth, in its
//! order, whatever the tile, the neighbours or the number of rows: alone or in a batch, a row has the same bits.

use super::matrix::Matrix;
use super::micro_tile::{
    MicroTile, PanelPair, PanelVec, Rows1, Rows2, Rows3, Rows4, Rows5, Rows6, Rows7, Rows8, Rows9, Rows10, Rows11,
    Rows12, SinglePanel,
};
use super::simd::{LANES, Simd, SimdKernel};

/// The depth that is worked on at once, for each of a tile's panels: with the rows beside them they stay in the
/// first-level cache.
const KC: usize = 384;
/// A tile of fewer rows is waiting for memory all the time: there is no moment in which to ask ahead.
const PREFETCH_MIN_ROWS: usize = 4;
/// The rows that are worked on at once: they stay in the second-level cache while the panels go by.
const MC: usize = 240;

/// Numbers at `row · row_step + depth · depth_step`.
#[derive(Clone, Copy)]
pub struct Lhs<'a> {
    pub values: &'a [f32],
    pub row_stride: usize,
    pub k_stride: usize,
}

/// Sixteen numbers at `panel · panel_step + depth · depth_step`.
#[derive(Clone, Copy)]
pub struct Rhs<'a, N = f32> {
    pub values: &'a [N],
    pub panel_stride: usize,
    pub k_stride: usize,
}

/// What the products are added to.
#[derive(Clone, Copy)]
pub enum AccumulatorInit<'a> {
    Zero,
    /// One number per column, and fifteen more to read.
    Bias(&'a [f32]),
    /// What stands in the output.
    Output,
}

/// `out[row, column] = start + Σ left[row, k] · right[k, column]`
pub struct Gemm<'a> {
    pub m: usize,
    pub k: usize,
    pub n: usize,
    pub lhs: Lhs<'a>,
    pub rhs: Rhs<'a>,
    pub init: AccumulatorInit<'a>,
    pub out: &'a mut [f32],
    /// From one row of the output to the next.
    pub out_stride: usize,
}

impl<'a> Lhs<'a> {
    pub fn from_matrix(matrix: &'a Matrix) -> Self {
        Self::row_major(matrix.as_slice(), matrix.width())
    }

    pub fn from_matrix_transposed(matrix: &'a Matrix) -> Self {
        Self::row_major_transposed(matrix.as_slice(), matrix.width())
    }

    /// The rows of a row-major matrix.
    pub fn row_major(values: &'a [f32], width: usize) -> Self {
        Self { values, row_stride: width, k_stride: 1 }
    }

    /// The columns of a row-major matrix: its transpose.
    pub fn row_major_transposed(values: &'a [f32], width: usize) -> Self {
        Self { values, row_stride: 1, k_stride: width }
    }
}

impl<'a> Rhs<'a> {
    pub fn from_matrix(matrix: &'a Matrix) -> Self {
        Self::row_major(matrix.as_padded_slice(), matrix.width())
    }

    /// A row-major matrix `(depth, columns)`; the last row's last lanes are read past its end.
    pub fn row_major(values: &'a [f32], width: usize) -> Self {
        Self { values, panel_stride: LANES, k_stride: width }
    }
}

impl<'a, N> Rhs<'a, N> {
    /// Panels end to end, each `(depth, 16)`.
    pub fn packed(values: &'a [N], k: usize) -> Self {
        Self { values, panel_stride: k * LANES, k_stride: LANES }
    }

    /// That every address lies within it.
    pub fn assert_bounds(&self, k: usize, n: usize) {
        let last_offset = |count: usize, step: usize| (count - 1) * step;
        let required_len = last_offset(n.div_ceil(LANES), self.panel_stride) + last_offset(k, self.k_stride) + LANES;
        assert!(required_len <= self.values.len(), "the right side holds every panel");
    }
}

impl Gemm<'_> {
    /// That every address lies within its slice.
    fn assert_bounds(&self) {
        let (m, k, panels) = (self.m, self.k, self.n.div_ceil(LANES));
        let last_offset = |count: usize, step: usize| (count - 1) * step;
        if m == 0 || panels == 0 {
            return;
        }
        assert!(k > 0, "a product has a depth");
        let lhs_last = last_offset(m, self.lhs.row_stride) + last_offset(k, self.lhs.k_stride);
        let out_len = last_offset(m, self.out_stride) + self.n;
        assert!(lhs_last < self.lhs.values.len(), "the left side holds every row");
        self.rhs.assert_bounds(k, self.n);
        assert!(out_len <= self.out.len(), "the output holds every row");
        if let AccumulatorInit::Bias(bias) = self.init {
            assert!(panels * LANES <= bias.len(), "the bias holds every lane");
        }
    }
}

impl SimdKernel for Gemm<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Simd>(mut self) {
        self.assert_bounds();
        let panels = self.n.div_ceil(LANES);
        for first_row in (0..self.m).step_by(MC) {
            let block_rows = MC.min(self.m - first_row);
            let max_panels = panels_per_tile::<L>(block_rows);
            let max_k = KC / L::TILE_PANELS;
            for first_k in (0..self.k).step_by(max_k) {
                let k_len = max_k.min(self.k - first_k);
                let mut panel = 0;
                while panel < panels {
                    let panel_count = floor_power_of_two(max_panels.min(panels - panel));
                    let row_panel = RowPanel { first_row, rows: block_rows, first_k, k_len, panel };
                    // SAFETY: `check` has shown that every row, panel and depth lies within its slice, and the caller
                    // is inside `Level::run`.
                    unsafe {
                        match panel_count {
                            8 => self.run_row_panel::<L, PanelPair<PanelPair<PanelPair<SinglePanel<L>>>>>(row_panel),
                            4 => self.run_row_panel::<L, PanelPair<PanelPair<SinglePanel<L>>>>(row_panel),
                            2 => self.run_row_panel::<L, PanelPair<SinglePanel<L>>>(row_panel),
                            _ => self.run_row_panel::<L, SinglePanel<L>>(row_panel),
                        }
                    }
                    panel += panel_count;
                }
            }
        }
    }
}

/// The rows of a block, along a piece of the depth, by some neighbouring panels.
#[derive(Clone, Copy)]
struct RowPanel {
    first_row: usize,
    rows: usize,
    first_k: usize,
    k_len: usize,
    panel: usize,
}

/// Panels at once, a power of two. Few rows leave registers free: then more panels keep the arithmetic busy.
#[inline(always)]
fn panels_per_tile<L: Simd>(rows: usize) -> usize {
    let registers = L::TILE_ROWS * L::TILE_PANELS;
    match rows {
        1 => floor_power_of_two(registers).min(8),
        2 | 3 => floor_power_of_two(registers / rows).min(4),
        _ => L::TILE_PANELS,
    }
}

#[inline(always)]
pub fn floor_power_of_two(number: usize) -> usize {
    1 << number.max(1).ilog2()
}

impl Gemm<'_> {
    /// Tile after tile down the rows.
    #[inline(always)]
    unsafe fn run_row_panel<L: Simd, P: PanelVec<L>>(&mut self, strip: RowPanel) {
        let max_rows = (L::TILE_ROWS * L::TILE_PANELS / P::COUNT).min(L::TILE_ROWS);
        let (mut row, end) = (strip.first_row, strip.first_row + strip.rows);
        while row < end {
            let rows = max_rows.min(end - row);
            // A tile that has more registers than the machine is never asked for, nor compiled.
            macro_rules! dispatch_rows {
                ($($count:literal $sums:ident)+) => {
                    match rows {
                        // SAFETY: the caller's.
                        $($count if $count <= max_rows => unsafe { self.run_micro_tile::<L, P, $sums<P>>(strip, row) },)+
                        _ => {}
                    }
                };
            }
            dispatch_rows!(1 Rows1 2 Rows2 3 Rows3 4 Rows4 5 Rows5 6 Rows6 7 Rows7 8 Rows8 9 Rows9 10 Rows10 11 Rows11 12 Rows12);
            row += rows;
        }
    }

    #[inline(always)]
    unsafe fn run_micro_tile<L: Simd, P: PanelVec<L>, S: MicroTile<L, P>>(&mut self, row_panel: RowPanel, row: usize) {
        let column = row_panel.panel * LANES;
        let columns = self.n - column;
        // SAFETY: the caller's: the rows, and at least one column of each panel, are in the output.
        unsafe {
            let out = self.out.as_mut_ptr().add(row * self.out_stride + column);
            let mut sums = match self.init {
                _ if row_panel.first_k > 0 => S::load_partial(out, self.out_stride, columns),
                AccumulatorInit::Zero => S::splat_row(P::zero()),
                AccumulatorInit::Output => S::load_partial(out, self.out_stride, columns),
                AccumulatorInit::Bias(bias) => S::splat_row(P::load(bias.as_ptr().add(column), LANES)),
            };
            let lhs = self.lhs.values.as_ptr().add(row * self.lhs.row_stride + row_panel.first_k * self.lhs.k_stride);
            let rhs = self.rhs.values.as_ptr();
            let rhs = rhs.add(row_panel.panel * self.rhs.panel_stride + row_panel.first_k * self.rhs.k_stride);
            let (row_stride, panel_stride) = (self.lhs.row_stride, self.rhs.panel_stride);
            let (lhs_k_stride, rhs_k_stride) = (self.lhs.k_stride, self.rhs.k_stride);
            let (mut lhs, mut rhs, mut remaining_k) = (lhs, rhs, row_panel.k_len);
            // The panels to the right come next. With few rows a weight comes from memory, not from a cache, and is awaited
            // longer than it is used.
            let prefetch_offset = P::COUNT.wrapping_mul(panel_stride);
            while remaining_k > 0 {
                sums = sums.mul_acc(lhs, row_stride, P::load(rhs, panel_stride));
                if S::ROWS >= PREFETCH_MIN_ROWS {
                    P::prefetch(rhs.wrapping_add(prefetch_offset), panel_stride);
                }
                lhs = lhs.wrapping_add(lhs_k_stride);
                rhs = rhs.wrapping_add(rhs_k_stride);
                remaining_k = remaining_k.wrapping_sub(1);
            }
            sums.store_partial(out, self.out_stride, columns);
        }
    }
}
