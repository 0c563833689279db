//! The softmax of rows of scores, and its backward pass. Knows nothing of where scores come from.

use super::lanes::{LANES, Lanes, exp, pieces};
use super::shade::Shade;

/// From one row of a sequence's scores to the next: whole registers.
pub fn stride(length: usize) -> usize {
    length.next_multiple_of(LANES)
}

/// The softmax of each row of `scores`, in place; 0 beyond the row's end, and where a shade lies. A row has `length` numbers
/// and is a `step` from the next.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub unsafe fn softmax<L: Lanes>(scores: &mut [f32], step: usize, length: usize, scale: f32, shade: Option<Shade>) {
    let stride = stride(length);
    for (index, numbers) in scores.chunks_mut(step).enumerate() {
        let numbers = &mut numbers[..stride];
        numbers[length..].fill(f32::NEG_INFINITY);
        if let Some(shade) = &shade {
            shade.before(index, &mut numbers[..length]);
        }
        let row = numbers.as_mut_ptr();
        // SAFETY: a row is whole registers; the caller's for the rest.
        unsafe {
            let mut largest = L::splat(f32::NEG_INFINITY);
            pieces!(stride, at, { largest = largest.max(L::load(row.wrapping_add(at))) });
            let shift = L::splat(-largest.largest() * scale);
            pieces!(stride, at, {
                let value = exp(L::load(row.wrapping_add(at)).fused(L::splat(scale), shift));
                value.store(row.wrapping_add(at));
                if length - at < LANES {
                    // what lies beyond the end is tiny, and must be nothing
                    L::splat(0.0).store(row.wrapping_add(at));
                    value.store_some(row.wrapping_add(at), length - at);
                }
            });
            // What is hidden is tiny, too, and counts for nothing.
            if let Some(shade) = &shade {
                shade.after(index, &mut numbers[..length]);
            }
            let row = numbers.as_mut_ptr();
            let mut total = L::splat(0.0);
            pieces!(stride, at, { total = total.plus(L::load(row.wrapping_add(at))) });
            let factor = L::splat(1.0 / total.sum());
            pieces!(stride, at, { L::load(row.wrapping_add(at)).times(factor).store(row.wrapping_add(at)) });
        }
    }
}

/// In place: from the gradient by the probabilities to that by the scores before they were scaled. Rows are `length` numbers,
/// and a `step` from the next, on both sides.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub unsafe fn through_softmax<L: Lanes>(
    gradients: &mut [f32],
    probabilities: &[f32],
    step: usize,
    length: usize,
    scale: f32,
) {
    let stride = stride(length);
    for (gradient, probabilities) in gradients.chunks_mut(step).zip(probabilities.chunks(step)) {
        let (gradient, probabilities) = (gradient[..stride].as_mut_ptr(), probabilities[..stride].as_ptr());
        // SAFETY: rows are whole registers, 0 beyond their end; the caller's for the rest.
        unsafe {
            let mut along = L::splat(0.0);
            pieces!(stride, at, {
                along = L::load(gradient.wrapping_add(at)).fused(L::load(probabilities.wrapping_add(at)), along);
            });
            let along = L::splat(along.sum());
            pieces!(stride, at, {
                let value = L::load(gradient.wrapping_add(at)).minus(along);
                let value = value.times(L::load(probabilities.wrapping_add(at))).times(L::splat(scale));
                value.store(gradient.wrapping_add(at));
            });
        }
    }
}
