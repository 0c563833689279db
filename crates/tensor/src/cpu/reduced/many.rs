//! Products with many rows: weights are widened piece by piece into the first-level cache, where all rows meet them.
//!
//! The products themselves are [`Product`]'s, whose chains go on from one piece of the depth to the next.

use super::coded::Coded;
use super::forms::{BLOCK, STRIP};
use super::output::Output;
use super::weights::Reduced;
use super::widen::{Along, WIDE, Widen};
use crate::cpu::lanes::Level;
use crate::cpu::memory::Draft;
use crate::cpu::product::{Left, Product, Right, Start};
use std::marker::PhantomData;

/// Blocks that are widened at once: 24 KiB, which leave the first-level cache room for the rows.
pub const BLOCKS: usize = 6;
/// Of the rows that are worked on at once, in numbers: they stay in the second-level cache while the weights go by.
const LEFT: usize = 128 << 10;

/// Rows that are worked on at once, of so many numbers: whole tiles, and enough to be worth the widening.
pub fn rows_at_once(width: usize) -> usize {
    (LEFT / width.max(1)).clamp(48, 240).next_multiple_of(12)
}

/// `out[row, column] = start + Σ left[row, k] · weight[column, k]`
pub fn multiply<F: Coded>(level: Level, weights: &Reduced, left: &[f32], start: Start, output: &mut Output) {
    let (all, columns, input) = (output.rows(), output.columns(), weights.input());
    assert!(columns.start.is_multiple_of(STRIP), "products are cut between strips");
    let most = rows_at_once(input).min(all);
    let (mut wide, mut sums) = (Draft::new(BLOCKS, WIDE), Draft::new(most, STRIP));
    for row in (0..all).step_by(most.max(1)) {
        let rows = most.min(all - row);
        for column in columns.clone().step_by(STRIP) {
            let count = STRIP.min(columns.end - column);
            let mut bias = [0.0; STRIP];
            let mut start = match start {
                Start::Zero => Start::Zero,
                Start::Bias(all) => {
                    bias[..count].copy_from_slice(&all[column..column + count]);
                    Start::Bias(&bias)
                }
                Start::Output => {
                    read(output, row, column, &mut sums.values()[..rows * STRIP]);
                    Start::Output
                }
            };
            for first in (0..input).step_by(BLOCKS * BLOCK) {
                let depth = (BLOCKS * BLOCK).min(input - first);
                let at = column / STRIP * weights.strip_bytes() + first / BLOCK * F::FORM.block_bytes();
                let wide = &mut wide.values()[..depth.div_ceil(BLOCK) * WIDE];
                let (step, ahead) = (F::FORM.block_bytes(), BLOCKS * F::FORM.block_bytes());
                let along = Along::Columns;
                level.run(Widen::<F> { weights, start: at, step, ahead, along, out: wide, form: PhantomData });
                let left = Left::rows(&left[row * input + first..], input);
                let right = Right { values: wide, panel_step: STRIP / 2, depth_step: STRIP };
                let out = &mut sums.values()[..rows * STRIP];
                level.run(Product { rows, depth, columns: STRIP, left, right, start, out, out_step: STRIP });
                start = Start::Output;
            }
            write(&sums.values()[..rows * STRIP], output, row, column);
        }
    }
}

/// Columns of ours, from rows of 32.
fn write(sums: &[f32], output: &mut Output, row: usize, column: usize) {
    let count = STRIP.min(output.columns().end - column);
    for (index, sums) in sums.chunks_exact(STRIP).enumerate() {
        let out = output.at(row + index, column);
        // SAFETY: so many columns are ours from there on, and nobody else's.
        unsafe { std::ptr::copy_nonoverlapping(sums.as_ptr(), out, count) };
    }
}

/// Columns of ours, into rows of 32.
fn read(output: &mut Output, row: usize, column: usize, sums: &mut [f32]) {
    let count = STRIP.min(output.columns().end - column);
    for (index, sums) in sums.chunks_exact_mut(STRIP).enumerate() {
        let out = output.at(row + index, column);
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(out, sums.as_mut_ptr(), count) };
    }
}
