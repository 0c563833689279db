//! Products of rows that are rounded to bytes: of a block's 32 steps in whole numbers, which are exact, and of blocks in `f32`.
//!
//! So each element is a chain of its own here, too, and has the same bits however rows and columns are shared out.

#[cfg(test)]
mod tests;

use super::forms::{BLOCK, STRIP};
use super::output::Output;
use super::rounded::Rounded;
use super::weights::Reduced;
use super::whole::Whole;
use crate::cpu::lanes::{LANES, Lanes, Work};
use crate::cpu::product::Start;
use std::marker::PhantomData;

/// How far ahead of its use memory is asked for, in bytes.
const AHEAD: usize = 1024;
/// Bytes that come to the cache together.
const LINE: usize = 64;

/// `out[row, column] = start + Σ left[row, k] · weight[column, k]`
pub struct Bytes<'a, 'b, F> {
    pub weights: &'a Reduced,
    pub left: &'a Rounded,
    pub start: Start<'a>,
    pub output: &'a mut Output<'b>,
    pub form: PhantomData<F>,
}

impl<F: Whole> Work for Bytes<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(mut self) {
        let (rows, columns) = (self.output.rows(), self.output.columns());
        let blocks = self.weights.input().div_ceil(BLOCK);
        assert!(rows <= self.left.rows() && blocks == self.left.blocks(), "the left side holds every row");
        assert!(self.weights.form() == F::FORM && columns.end <= self.weights.output(), "a weight has these columns");
        assert!(columns.start.is_multiple_of(STRIP), "products are cut between strips");
        if let Start::Bias(bias) = self.start {
            assert!(columns.end <= bias.len(), "the bias holds every column");
        }
        let (mut strip, end) = (columns.start / STRIP, columns.end.div_ceil(STRIP));
        // As many as the registers hold.
        let most = if L::TILE_WIDTH > 1 { 6 } else { 2 };
        while strip < end {
            let mut row = 0;
            while row < rows {
                // tiles of nearly the same size
                let count = (rows - row).div_ceil((rows - row).div_ceil(most));
                macro_rules! tile {
                    ($($rows:literal $tile:ty),+) => {
                        match count {
                            // SAFETY: the strip has columns of ours, and the rows are ours; the caller is in `Level::run_bytes`.
                            $($rows if $rows <= most => unsafe { self.tile::<L, $tile>(strip, row) },)+
                            _ => {}
                        }
                    };
                }
                tile!(
                    1 One<L>, 2 Two<L>, 3 Pair<Two<L>, One<L>>, 4 Pair<Two<L>, Two<L>>,
                    5 Pair<Pair<Two<L>, Two<L>>, One<L>>, 6 Pair<Pair<Two<L>, Two<L>>, Two<L>>
                );
                row += count;
            }
            strip += 1;
        }
    }
}

impl<F: Whole> Bytes<'_, '_, F> {
    /// # Safety
    /// The strip, and the tile's rows from `row` on, are in the output.
    #[inline(always)]
    unsafe fn tile<L: Lanes, T: Tile<L>>(&mut self, strip: usize, row: usize) {
        let (column, blocks) = (strip * STRIP, self.left.blocks());
        let columns = self.output.columns().end - column;
        let (out, out_step) = (self.output.at(row, column), self.output.step());
        let (mut codes, mut heads) = (self.left.codes(row), self.left.heads(row));
        // SAFETY: all columns have a bias, all rows their codes and all strips their blocks; the rest is the caller's.
        unsafe {
            let mut tile = match self.start {
                Start::Zero => T::all((L::splat(0.0), L::splat(0.0))),
                Start::Output => T::read(out, out_step, columns),
                Start::Bias(bias) => T::all(read(bias.as_ptr().add(column), columns)),
            };
            let mut block = self.weights.bytes().as_ptr().add(strip * self.weights.strip_bytes());
            let mut index = 0;
            while index < blocks {
                let scales = (F::scales(F::head::<L>(block, 0)), F::scales(F::head::<L>(block, 1)));
                let mut ahead = block.wrapping_add(AHEAD);
                let mut head = 0;
                while head < F::HEADS {
                    L::fetch_close(ahead);
                    ahead = ahead.wrapping_add(LINE);
                    head = head.wrapping_add(1);
                }
                let mut group = 0;
                while group < BLOCK / F::STEPS {
                    L::fetch_close(ahead);
                    L::fetch_close(ahead.wrapping_add(LINE));
                    ahead = ahead.wrapping_add(2 * LINE);
                    let words = (F::words::<L>(block, 0, group), F::words::<L>(block, 1, group));
                    tile = tile.dots::<F>(codes, blocks.wrapping_mul(BLOCK), words);
                    codes = codes.wrapping_add(F::STEPS);
                    group = group.wrapping_add(1);
                }
                tile = tile.close(heads, blocks, scales);
                heads = heads.wrapping_add(1);
                block = block.wrapping_add(F::FORM.block_bytes());
                index = index.wrapping_add(1);
            }
            tile.write(out, out_step, columns);
        }
    }
}

/// The sums of some rows and a strip's two panels, in registers, as a type for the reason that [`crate::cpu::tile`] gives.
///
/// # Safety
/// As [`Whole`]; steps are from one row to the next.
trait Tile<L: Lanes>: Copy {
    const ROWS: usize;

    unsafe fn all(sums: (L, L)) -> Self;
    unsafe fn read(from: *const f32, step: usize, count: usize) -> Self;
    /// The block's own sums grow.
    unsafe fn dots<F: Whole>(self, left: *const i8, step: usize, words: (F::Words<L>, F::Words<L>)) -> Self;
    /// The block's own sums are added to those of all blocks, and begin anew.
    unsafe fn close(self, heads: *const [f32; 2], step: usize, scales: ((L, L), (L, L))) -> Self;
    unsafe fn write(self, to: *mut f32, step: usize, count: usize);
}

#[derive(Clone, Copy)]
struct One<L: Lanes> {
    sums: (L, L),
    block: (L::Words, L::Words),
}

impl<L: Lanes> Tile<L> for One<L> {
    const ROWS: usize = 1;

    #[inline(always)]
    unsafe fn all(sums: (L, L)) -> Self {
        // SAFETY: the caller's.
        Self { sums, block: unsafe { (L::whole(0), L::whole(0)) } }
    }

    #[inline(always)]
    unsafe fn read(from: *const f32, _: usize, count: usize) -> Self {
        // SAFETY: the caller's.
        unsafe { Self::all(read(from, count)) }
    }

    #[inline(always)]
    unsafe fn dots<F: Whole>(self, left: *const i8, _: usize, words: (F::Words<L>, F::Words<L>)) -> Self {
        // SAFETY: the caller's.
        let block = unsafe { (F::dots::<L>(self.block.0, words.0, left), F::dots::<L>(self.block.1, words.1, left)) };
        Self { block, ..self }
    }

    #[inline(always)]
    unsafe fn close(self, heads: *const [f32; 2], _: usize, scales: ((L, L), (L, L))) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let (scale, sum) = (L::splat_from(heads.cast()), L::splat_from(heads.cast::<f32>().add(1)));
            let first = L::numbers(self.block.0).fused(scales.0.0.times(scale), self.sums.0);
            let second = L::numbers(self.block.1).fused(scales.1.0.times(scale), self.sums.1);
            Self::all((scales.0.1.fused(sum, first), scales.1.1.fused(sum, second)))
        }
    }

    #[inline(always)]
    unsafe fn write(self, to: *mut f32, _: usize, count: usize) {
        // SAFETY: the caller's.
        unsafe {
            self.sums.0.store_some(to, count);
            self.sums.1.store_some(to.wrapping_add(LANES), count.saturating_sub(LANES));
        }
    }
}

/// A strip's numbers of one row; 0 beyond `count`.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn read<L: Lanes>(from: *const f32, count: usize) -> (L, L) {
    // SAFETY: the caller's.
    unsafe { (L::load_some(from, count), L::load_some(from.wrapping_add(LANES), count.saturating_sub(LANES))) }
}

/// One tile above another.
#[derive(Clone, Copy)]
struct Pair<A, B>(A, B);

type Two<L> = Pair<One<L>, One<L>>;

impl<L: Lanes, A: Tile<L>, B: Tile<L>> Tile<L> for Pair<A, B> {
    const ROWS: usize = A::ROWS + B::ROWS;

    #[inline(always)]
    unsafe fn all(sums: (L, L)) -> Self {
        // SAFETY: the caller's.
        unsafe { Self(A::all(sums), B::all(sums)) }
    }

    #[inline(always)]
    unsafe fn read(from: *const f32, step: usize, count: usize) -> Self {
        let below = from.wrapping_add(A::ROWS.wrapping_mul(step));
        // SAFETY: the caller's.
        unsafe { Self(A::read(from, step, count), B::read(below, step, count)) }
    }

    #[inline(always)]
    unsafe fn dots<F: Whole>(self, left: *const i8, step: usize, words: (F::Words<L>, F::Words<L>)) -> Self {
        let below = left.wrapping_add(A::ROWS.wrapping_mul(step));
        // SAFETY: the caller's.
        unsafe { Self(self.0.dots::<F>(left, step, words), self.1.dots::<F>(below, step, words)) }
    }

    #[inline(always)]
    unsafe fn close(self, heads: *const [f32; 2], step: usize, scales: ((L, L), (L, L))) -> Self {
        let below = heads.wrapping_add(A::ROWS.wrapping_mul(step));
        // SAFETY: the caller's.
        unsafe { Self(self.0.close(heads, step, scales), self.1.close(below, step, scales)) }
    }

    #[inline(always)]
    unsafe fn write(self, to: *mut f32, step: usize, count: usize) {
        let below = to.wrapping_add(A::ROWS.wrapping_mul(step));
        // SAFETY: the caller's.
        unsafe {
            self.0.write(to, step, count);
            self.1.write(below, step, count);
        }
    }
}
