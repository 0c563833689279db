//! Products with few rows: weights are widened in registers, on their way from memory to the multiply-adds.
//!
//! Bound by memory with one row and by arithmetic with many, for every tile of rows widens all weights anew.

use super::coded::Coded;
use super::forms::{BLOCK, STRIP};
use super::output::Output;
use super::reading::{Double, Reading, Strip};
use super::weights::Reduced;
use crate::cpu::lanes::{Lanes, Work};
use crate::cpu::product::Start;
use crate::cpu::tile::{Panels, R1, R2, R3, R4, R5, R6, R7, R8, Sums};
use std::marker::PhantomData;

/// How far ahead of its use memory is asked for, in bytes. For weights of 16 bits the processor does it as well by itself.
const AHEAD: usize = 1024;
/// Rows of a tile at most: more would win little, and cost much to compile.
const TALLEST: usize = 8;
/// Bytes that come to the cache together.
const LINE: usize = 64;

/// `out[row, column] = start + Σ left[row, k] · weight[column, k]`
pub struct Few<'a, 'b, F> {
    pub weights: &'a Reduced,
    /// `(rows, input)`
    pub left: &'a [f32],
    pub start: Start<'a>,
    pub output: &'a mut Output<'b>,
    pub form: PhantomData<F>,
}

impl<F: Coded> Work for Few<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(mut self) {
        let rows = self.output.rows();
        let columns = self.output.columns();
        assert!(rows * self.weights.input() <= self.left.len(), "the left side holds every row");
        assert!(self.weights.form() == F::FORM && columns.end <= self.weights.output(), "a weight has these columns");
        assert!(columns.start.is_multiple_of(STRIP), "products are cut between strips");
        if let Start::Bias(bias) = self.start {
            assert!(columns.end <= bias.len(), "the bias holds every column");
        }
        let (mut strip, end) = (columns.start / STRIP, columns.end.div_ceil(STRIP));
        let most = (L::TILE_ROWS * L::TILE_WIDTH / 2).min(TALLEST);
        while strip < end {
            // One row's chains are too few to keep the arithmetic busy, with the panels of one strip.
            let double = L::TILE_WIDTH > 1 && rows <= 2 && strip + 2 <= end;
            let mut row = 0;
            while row < rows {
                // tiles of nearly the same size
                let count = (rows - row).div_ceil((rows - row).div_ceil(most));
                // A tile that has more registers than the machine is never asked for, nor compiled.
                macro_rules! tile {
                    ($($rows:literal $sums:ident)+) => {
                        match count {
                            // SAFETY: the strip has columns of ours, and the rows are ours; the caller is in `Level::run`.
                            1 if double => unsafe { self.tile::<L, Double<Strip>, R1<_>>(strip, row) },
                            // SAFETY: as above.
                            2 if double => unsafe { self.tile::<L, Double<Strip>, R2<_>>(strip, row) },
                            // SAFETY: as above.
                            $($rows if $rows <= most => unsafe { self.tile::<L, Strip, $sums<_>>(strip, row) },)+
                            _ => {}
                        }
                    };
                }
                tile!(1 R1 2 R2 3 R3 4 R4 5 R5 6 R6 7 R7 8 R8);
                row += count;
            }
            strip += if double { 2 } else { 1 };
        }
    }
}

impl<F: Coded> Few<'_, '_, F> {
    /// # Safety
    /// The reading's strips from `strip` on, and the tile's rows from `row` on, are in the output.
    #[inline(always)]
    unsafe fn tile<L: Lanes, R: Reading<L, F>, S: Sums<L, R::Panels>>(&mut self, strip: usize, row: usize) {
        let (column, input, step) = (strip * STRIP, self.weights.input(), self.weights.strip_bytes());
        let columns = self.output.columns().end - column;
        let (out, out_step) = (self.output.at(row, column), self.output.step());
        // SAFETY: all columns have a bias, all rows a left side and all strips their blocks; the rest is the caller's.
        unsafe {
            let mut sums = match self.start {
                Start::Zero => S::all(R::Panels::zero()),
                Start::Output => S::read(out, out_step, columns),
                Start::Bias(bias) => S::all(R::Panels::read(bias.as_ptr().add(column), columns)),
            };
            let mut left = self.left.as_ptr().add(row * input);
            let mut block = self.weights.bytes().as_ptr().add(strip * step);
            let mut depth = input;
            while depth >= BLOCK {
                let heads = R::heads(block, step);
                let mut ahead = block.wrapping_add(AHEAD);
                let mut head = 0;
                while head < F::HEADS {
                    R::fetch(ahead, step);
                    ahead = ahead.wrapping_add(LINE);
                    head = head.wrapping_add(1);
                }
                let mut group = 0;
                while group < BLOCK / F::STEPS {
                    // One after the other: more at once than the cache can wait for would hold everything up.
                    if F::HEADS > 0 {
                        R::fetch(ahead, step);
                        R::fetch(ahead.wrapping_add(LINE), step);
                        ahead = ahead.wrapping_add(2 * LINE);
                    }
                    sums = words::<L, F, R, S>(sums, left, input, R::words(block, step, group), heads, F::STEPS);
                    left = left.wrapping_add(F::STEPS);
                    group = group.wrapping_add(1);
                }
                block = block.wrapping_add(F::FORM.block_bytes());
                depth = depth.wrapping_sub(BLOCK);
            }
            let mut group = 0;
            while depth > 0 {
                let steps = F::STEPS.min(depth);
                let heads = R::heads(block, step);
                sums = words::<L, F, R, S>(sums, left, input, R::words(block, step, group), heads, steps);
                left = left.wrapping_add(steps);
                group = group.wrapping_add(1);
                depth = depth.wrapping_sub(steps);
            }
            sums.write(out, out_step, columns);
        }
    }
}

/// The sums plus the first `steps` steps of some words.
///
/// # Safety
/// As [`Sums`]: all rows have so many numbers.
#[inline(always)]
unsafe fn words<L: Lanes, F: Coded, R: Reading<L, F>, S: Sums<L, R::Panels>>(
    mut sums: S,
    left: *const f32,
    row_step: usize,
    words: R::Words,
    heads: R::Heads,
    steps: usize,
) -> S {
    macro_rules! step {
        ($($step:literal)+) => {
            $(if $step < F::STEPS && $step < steps {
                // SAFETY: the caller's.
                sums = unsafe { sums.plus(left.wrapping_add($step), row_step, R::weights::<$step>(words, heads)) };
            })+
        };
    }
    step!(0 1 2 3 4 5 6 7);
    sums
}
