//! Matrix products on tiles of registers: the one kernel below linear maps, low-rank updates, attention and the
//! gradients of all of them.
//!
//! The right side lies in panels of sixteen columns. A packed weight's panels follow one another, each with its rows
//! end to end; any row-major matrix has panels too, side by side. The left side may be read along rows or columns, so
//! nothing is ever transposed for a product `Xᵀ·Y`. Every element is one chain of multiply-adds along the depth, in its
//! order, whatever the tile, the neighbours or the number of rows: alone or in a batch, a row has the same bits.

use super::lanes::{LANES, Lanes, Work};
use super::tile::{Panel, Panels, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10, R11, R12, Sums, Twice};

/// The depth that is worked on at once, for each of a tile's panels: with the rows beside them they stay in the
/// first-level cache.
const DEPTH: usize = 384;
/// A tile of fewer rows is waiting for memory all the time: there is no moment in which to ask ahead.
const FETCHING: usize = 4;
/// The rows that are worked on at once: they stay in the second-level cache while the panels go by.
const ROWS: usize = 240;

/// Numbers at `row · row_step + depth · depth_step`.
#[derive(Clone, Copy)]
pub struct Left<'a> {
    pub values: &'a [f32],
    pub row_step: usize,
    pub depth_step: usize,
}

/// Sixteen numbers at `panel · panel_step + depth · depth_step`.
#[derive(Clone, Copy)]
pub struct Right<'a, N = f32> {
    pub values: &'a [N],
    pub panel_step: usize,
    pub depth_step: usize,
}

/// What the products are added to.
#[derive(Clone, Copy)]
pub enum Start<'a> {
    Zero,
    /// One number per column, and fifteen more to read.
    Bias(&'a [f32]),
    /// What stands in the output.
    Output,
}

/// `out[row, column] = start + Σ left[row, k] · right[k, column]`
pub struct Product<'a> {
    pub rows: usize,
    pub depth: usize,
    pub columns: usize,
    pub left: Left<'a>,
    pub right: Right<'a>,
    pub start: Start<'a>,
    pub out: &'a mut [f32],
    /// From one row of the output to the next.
    pub out_step: usize,
}

impl<'a> Left<'a> {
    /// The rows of a row-major matrix.
    pub fn rows(values: &'a [f32], width: usize) -> Self {
        Self { values, row_step: width, depth_step: 1 }
    }

    /// The columns of a row-major matrix: its transpose.
    pub fn columns(values: &'a [f32], width: usize) -> Self {
        Self { values, row_step: 1, depth_step: width }
    }
}

impl<'a> Right<'a> {
    /// A row-major matrix `(depth, columns)`; the last row's last lanes are read past its end.
    pub fn rows(values: &'a [f32], width: usize) -> Self {
        Self { values, panel_step: LANES, depth_step: width }
    }
}

impl<'a, N> Right<'a, N> {
    /// Panels end to end, each `(depth, 16)`.
    pub fn panels(values: &'a [N], depth: usize) -> Self {
        Self { values, panel_step: depth * LANES, depth_step: LANES }
    }

    /// That every address lies within it.
    pub fn check(&self, depth: usize, columns: usize) {
        let last = |count: usize, step: usize| (count - 1) * step;
        let end = last(columns.div_ceil(LANES), self.panel_step) + last(depth, self.depth_step) + LANES;
        assert!(end <= self.values.len(), "the right side holds every panel");
    }
}

impl Product<'_> {
    /// That every address lies within its slice.
    fn check(&self) {
        let (rows, depth, panels) = (self.rows, self.depth, self.columns.div_ceil(LANES));
        let last = |count: usize, step: usize| (count - 1) * step;
        if rows == 0 || panels == 0 {
            return;
        }
        assert!(depth > 0, "a product has a depth");
        let left = last(rows, self.left.row_step) + last(depth, self.left.depth_step);
        let out = last(rows, self.out_step) + self.columns;
        assert!(left < self.left.values.len(), "the left side holds every row");
        self.right.check(depth, self.columns);
        assert!(out <= self.out.len(), "the output holds every row");
        if let Start::Bias(bias) = self.start {
            assert!(panels * LANES <= bias.len(), "the bias holds every lane");
        }
    }
}

impl Work for Product<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(mut self) {
        self.check();
        let panels = self.columns.div_ceil(LANES);
        for first_row in (0..self.rows).step_by(ROWS) {
            let rows = ROWS.min(self.rows - first_row);
            let widest = tile_width::<L>(rows);
            let most = DEPTH / L::TILE_WIDTH;
            for first in (0..self.depth).step_by(most) {
                let depth = most.min(self.depth - first);
                let mut panel = 0;
                while panel < panels {
                    let width = floor_power_of_two(widest.min(panels - panel));
                    let strip = Strip { first_row, rows, first, depth, panel };
                    // SAFETY: `check` has shown that every row, panel and depth lies within its slice, and the caller
                    // is inside `Level::run`.
                    unsafe {
                        match width {
                            8 => self.strip::<L, Twice<Twice<Twice<Panel<L>>>>>(strip),
                            4 => self.strip::<L, Twice<Twice<Panel<L>>>>(strip),
                            2 => self.strip::<L, Twice<Panel<L>>>(strip),
                            _ => self.strip::<L, Panel<L>>(strip),
                        }
                    }
                    panel += width;
                }
            }
        }
    }
}

/// The rows of a block, along a piece of the depth, by some neighbouring panels.
#[derive(Clone, Copy)]
struct Strip {
    first_row: usize,
    rows: usize,
    first: usize,
    depth: usize,
    panel: usize,
}

/// Panels at once, a power of two. Few rows leave registers free: then more panels keep the arithmetic busy.
#[inline(always)]
fn tile_width<L: Lanes>(rows: usize) -> usize {
    let registers = L::TILE_ROWS * L::TILE_WIDTH;
    match rows {
        1 => floor_power_of_two(registers).min(8),
        2 | 3 => floor_power_of_two(registers / rows).min(4),
        _ => L::TILE_WIDTH,
    }
}

#[inline(always)]
pub fn floor_power_of_two(number: usize) -> usize {
    1 << number.max(1).ilog2()
}

impl Product<'_> {
    /// Tile after tile down the rows.
    #[inline(always)]
    unsafe fn strip<L: Lanes, P: Panels<L>>(&mut self, strip: Strip) {
        let most = (L::TILE_ROWS * L::TILE_WIDTH / P::COUNT).min(L::TILE_ROWS);
        let (mut row, end) = (strip.first_row, strip.first_row + strip.rows);
        while row < end {
            let rows = most.min(end - row);
            // A tile that has more registers than the machine is never asked for, nor compiled.
            macro_rules! tile {
                ($($count:literal $sums:ident)+) => {
                    match rows {
                        // SAFETY: the caller's.
                        $($count if $count <= most => unsafe { self.tile::<L, P, $sums<P>>(strip, row) },)+
                        _ => {}
                    }
                };
            }
            tile!(1 R1 2 R2 3 R3 4 R4 5 R5 6 R6 7 R7 8 R8 9 R9 10 R10 11 R11 12 R12);
            row += rows;
        }
    }

    #[inline(always)]
    unsafe fn tile<L: Lanes, P: Panels<L>, S: Sums<L, P>>(&mut self, strip: Strip, row: usize) {
        let column = strip.panel * LANES;
        let columns = self.columns - column;
        // SAFETY: the caller's: the rows, and at least one column of each panel, are in the output.
        unsafe {
            let out = self.out.as_mut_ptr().add(row * self.out_step + column);
            let mut sums = match self.start {
                _ if strip.first > 0 => S::read(out, self.out_step, columns),
                Start::Zero => S::all(P::zero()),
                Start::Output => S::read(out, self.out_step, columns),
                Start::Bias(bias) => S::all(P::load(bias.as_ptr().add(column), LANES)),
            };
            let left = self.left.values.as_ptr().add(row * self.left.row_step + strip.first * self.left.depth_step);
            let right = self.right.values.as_ptr();
            let right = right.add(strip.panel * self.right.panel_step + strip.first * self.right.depth_step);
            let (row_step, panel_step) = (self.left.row_step, self.right.panel_step);
            let (left_step, right_step) = (self.left.depth_step, self.right.depth_step);
            let (mut left, mut right, mut depth) = (left, right, strip.depth);
            // The panels to the right come next. With few rows a weight comes from memory, not from a cache, and is awaited
            // longer than it is used.
            let ahead = P::COUNT.wrapping_mul(panel_step);
            while depth > 0 {
                sums = sums.plus(left, row_step, P::load(right, panel_step));
                if S::ROWS >= FETCHING {
                    P::fetch(right.wrapping_add(ahead), panel_step);
                }
                left = left.wrapping_add(left_step);
                right = right.wrapping_add(right_step);
                depth = depth.wrapping_sub(1);
            }
            sums.write(out, self.out_step, columns);
        }
    }
}
