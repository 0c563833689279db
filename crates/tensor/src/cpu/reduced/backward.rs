//! The gradient by a frozen map's input, dX = dY·W: no second copy of the weight, a few blocks of it are turned at a time.
//!
//! Every element is one chain along the outputs, in their order.

use super::coded::Coded;
use super::forms::{BLOCK, STRIP};
use super::many::{BLOCKS, rows_at_once};
use super::weights::Reduced;
use super::widen::{Along, WIDE, Widen};
use crate::cpu::lanes::Level;
use crate::cpu::memory::Draft;
use crate::cpu::product::{Left, Product, Right, Start};
use std::marker::PhantomData;

/// `out[row, k] = start + Σ gradient[row, column] · weight[column, k]`, with `gradient` `(rows, output)` and `out`
/// `(rows, input)`.
pub fn backward<F: Coded>(level: Level, weights: &Reduced, gradient: &[f32], start: Start, out: &mut [f32]) {
    let (output, input) = (weights.output(), weights.input());
    assert!(!matches!(start, Start::Bias(_)), "a gradient has no bias");
    let all = out.len() / input.max(1);
    assert!(all * output <= gradient.len(), "the gradient has every row");
    // The sums stay in the second-level cache, beside as many of the gradients as meet a few blocks.
    let most = rows_at_once(input + BLOCKS * STRIP).min(all);
    let mut wide = Draft::new(BLOCKS, WIDE);
    for row in (0..all).step_by(most.max(1)) {
        let rows = most.min(all - row);
        let out = &mut out[row * input..(row + rows) * input];
        for first in (0..output).step_by(BLOCKS * STRIP) {
            let depth = (BLOCKS * STRIP).min(output - first);
            let start = if first > 0 { Start::Output } else { start };
            for column in (0..input).step_by(BLOCK) {
                let at = first / STRIP * weights.strip_bytes() + column / BLOCK * F::FORM.block_bytes();
                let wide = &mut wide.values()[..depth.div_ceil(STRIP) * WIDE];
                let (step, ahead) = (weights.strip_bytes(), F::FORM.block_bytes());
                let along = Along::Depth;
                level.run(Widen::<F> { weights, start: at, step, ahead, along, out: wide, form: PhantomData });
                let left = Left::rows(&gradient[row * output + first..], output);
                let right = Right { values: wide, panel_step: BLOCK / 2, depth_step: BLOCK };
                let columns = BLOCK.min(input - column);
                let out = &mut out[column..];
                level.run(Product { rows, depth, columns, left, right, start, out, out_step: input });
            }
        }
    }
}
