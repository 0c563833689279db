//! GEMM on register tiles: the kernel of linear maps, low-rank updates, attention and all their gradients.
//!
//! The right-hand side is read in panels of sixteen columns: a packed weight stores its panels one after another; in a
//! row-major matrix they are adjacent. The left-hand side may be read along rows or columns, so no operand is
//! transposed for `Xᵀ·Y`. Every element is one chain of fused multiply-adds in the order of k, whatever the tile, the
//! neighbours or the number of rows: a row has the same bits alone and in a batch.

use super::matrix::Matrix;
use super::micro_tile::{
    MicroTile, PanelPair, PanelVec, Rows1, Rows2, Rows3, Rows4, Rows5, Rows6, Rows7, Rows8, Rows9, Rows10, Rows11,
    Rows12, SinglePanel, dispatch_panels, dispatch_tile_rows,
};
use super::simd::{LANES, Simd, SimdKernel};

/// Steps of k per pass, divided by the panels of a tile: panels and rows stay in the first-level cache.
const KC: usize = 384;
/// Tiles with fewer rows do not prefetch: they are bound by memory all the time.
const PREFETCH_MIN_ROWS: usize = 4;
/// Rows per pass: they stay in the second-level cache while the panels stream by.
const MC: usize = 240;

/// Left-hand side: element `(row, k)` is at `row · row_stride + k · k_stride`.
#[derive(Clone, Copy)]
pub struct Lhs<'a> {
    pub values: &'a [f32],
    pub row_stride: usize,
    pub k_stride: usize,
}

/// Right-hand side: sixteen columns of step `k` are at `panel · panel_stride + k · k_stride`.
#[derive(Clone, Copy)]
pub struct Rhs<'a, N = f32> {
    pub values: &'a [N],
    pub panel_stride: usize,
    pub k_stride: usize,
}

/// Initial value of the accumulators.
#[derive(Clone, Copy)]
pub enum AccumulatorInit<'a> {
    Zero,
    /// One value per column, readable up to the next multiple of sixteen.
    Bias(&'a [f32]),
    /// The current output.
    Output,
}

/// `out[row, column] = init + Σ lhs[row, k] · rhs[k, column]`
pub struct Gemm<'a> {
    pub m: usize,
    pub k: usize,
    pub n: usize,
    pub lhs: Lhs<'a>,
    pub rhs: Rhs<'a>,
    pub init: AccumulatorInit<'a>,
    pub out: &'a mut [f32],
    /// Distance between rows of the output.
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

    /// The transpose of a row-major matrix.
    pub fn row_major_transposed(values: &'a [f32], width: usize) -> Self {
        Self { values, row_stride: 1, k_stride: width }
    }
}

impl<'a> Rhs<'a> {
    pub fn from_matrix(matrix: &'a Matrix) -> Self {
        Self::row_major(matrix.as_padded_slice(), matrix.width())
    }

    /// A row-major matrix `(k, n)`. The vectors of the last panel are read past the last row's end.
    pub fn row_major(values: &'a [f32], width: usize) -> Self {
        Self { values, panel_stride: LANES, k_stride: width }
    }
}

impl<'a, N> Rhs<'a, N> {
    /// Consecutive panels, each `(k, 16)`.
    pub fn packed(values: &'a [N], k: usize) -> Self {
        Self { values, panel_stride: k * LANES, k_stride: LANES }
    }

    /// Asserts that every vector of a `(k, n)` product lies within the slice.
    pub fn assert_bounds(&self, k: usize, n: usize) {
        let required_len = last_offset([(n.div_ceil(LANES), self.panel_stride), (k, self.k_stride)])
            .and_then(|offset| offset.checked_add(LANES));
        assert!(required_len.is_some_and(|len| len <= self.values.len()), "the right-hand side holds every panel");
    }
}

/// Offset of the last element over two axes with a count and a stride each; `None` on overflow or if an axis is empty.
fn last_offset(axes: [(usize, usize); 2]) -> Option<usize> {
    let [first, second] = axes.map(|(count, stride)| count.checked_sub(1)?.checked_mul(stride));
    first?.checked_add(second?)
}

impl Gemm<'_> {
    /// Asserts that every address lies within its slice.
    fn assert_bounds(&self) {
        let (m, k, panels) = (self.m, self.k, self.n.div_ceil(LANES));
        if m == 0 || panels == 0 {
            return;
        }
        assert!(k > 0, "a product has at least one step of k");
        let lhs_last = last_offset([(m, self.lhs.row_stride), (k, self.lhs.k_stride)]);
        let out_len = last_offset([(m, self.out_stride), (1, 0)]).and_then(|offset| offset.checked_add(self.n));
        assert!(lhs_last.is_some_and(|offset| offset < self.lhs.values.len()), "the left-hand side holds every row");
        self.rhs.assert_bounds(k, self.n);
        assert!(out_len.is_some_and(|len| len <= self.out.len()), "the output holds every row");
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
                    // SAFETY: `assert_bounds` has checked every row, panel and step of k against its slice, and
                    // `Isa::run` calls this only on CPUs that support `L`.
                    unsafe {
                        dispatch_panels!(panel_count, L, (self.run_row_panel)[L](row_panel));
                    }
                    panel += panel_count;
                }
            }
        }
    }
}

/// Rows of one pass, a range of k, and the first of some adjacent panels.
#[derive(Clone, Copy)]
struct RowPanel {
    first_row: usize,
    rows: usize,
    first_k: usize,
    k_len: usize,
    panel: usize,
}

/// Panels per tile, a power of two. Tiles of few rows leave registers free: more panels then hide the latency of the
/// multiply-adds.
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
    /// Computes the row panel tile by tile.
    #[inline(always)]
    unsafe fn run_row_panel<L: Simd, P: PanelVec<L>>(&mut self, row_panel: RowPanel) {
        let max_rows = (L::TILE_ROWS * L::TILE_PANELS / P::COUNT).min(L::TILE_ROWS);
        let (mut row, end) = (row_panel.first_row, row_panel.first_row + row_panel.rows);
        while row < end {
            let rows = max_rows.min(end - row);
            // SAFETY: the rows and panels lie within the output and the operands, which `run` has asserted; the CPU
            // supports `L`.
            unsafe {
                dispatch_tile_rows!(
                    rows, max_rows, (self.run_micro_tile)[L, P](row_panel, row),
                    1 => Rows1<P>, 2 => Rows2<P>, 3 => Rows3<P>, 4 => Rows4<P>, 5 => Rows5<P>, 6 => Rows6<P>,
                    7 => Rows7<P>, 8 => Rows8<P>, 9 => Rows9<P>, 10 => Rows10<P>, 11 => Rows11<P>, 12 => Rows12<P>,
                );
            }
            row += rows;
        }
    }

    #[inline(always)]
    unsafe fn run_micro_tile<L: Simd, P: PanelVec<L>, S: MicroTile<L, P>>(&mut self, row_panel: RowPanel, row: usize) {
        let column = row_panel.panel * LANES;
        let columns = self.n - column;
        // SAFETY: `run` has asserted that the rows, at least one column of each panel, and all steps of k lie within
        // the slices; partial loads and stores stop at the last column. The CPU supports `L`.
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
            // Prefetches the panels to the right, which are next. With few rows a weight comes from memory, and loading
            // it takes longer than the arithmetic.
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
