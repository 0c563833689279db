//! eˣ of many numbers at once, in plain arithmetic that the compiler turns into vectors and that gives the same bits on
//! every machine. Knows nothing of what the numbers are.

use super::largest::LANES;
use std::f32::consts::LOG2_E;

/// From here on eˣ is as good as 0 in a sum with 1.
pub const LEAST: f32 = -87.0;
/// Numbers that are added up in `f32`; their sums are added in `f64`.
pub const BLOCK: usize = 1024;
/// 1.5 · 2²³: added to a number it leaves the nearest whole one in the last bits.
const ROUNDER: f32 = 12_582_912.0;

/// eˣ for x from −87 to 0, to about one unit in the last place; what is below, or no number, counts as −87.
///
/// 2ⁿ·eʳ with |r| ≤ ln 2 / 2 and the Taylor series of eʳ up to r⁶.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = if x > LEAST { x } else { LEAST };
    let shifted = x * LOG2_E + ROUNDER;
    let whole = shifted - ROUNDER;
    // ln 2 in two parts, the first exact in few bits
    let r = x - whole * (355.0 / 512.0) + whole * 2.121_944_4e-4;
    let sum = 1.0 / 720.0 * r + 1.0 / 120.0;
    let sum = ((sum * r + 1.0 / 24.0) * r + 1.0 / 6.0) * r + 0.5;
    let sum = (sum * r + 1.0) * r + 1.0;
    sum * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()))
}

/// The sum of eˣ⁻ˡ over all x, l being the largest of them; what is −∞ or no number adds nothing to speak of.
pub fn total(values: &[f32], largest: f32) -> f64 {
    values.chunks(BLOCK).map(|block| sum(block, |value| exp(value - largest))).sum()
}

/// The sum over a block, lane by lane in a fixed order.
#[inline(always)]
pub fn sum(block: &[f32], of: impl Fn(f32) -> f32) -> f64 {
    let mut sums = [0.0; LANES];
    let (chunks, rest) = block.as_chunks::<LANES>();
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum = of(*value);
    }
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += of(*value);
        }
    }
    sums.into_iter().map(f64::from).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_right_to_the_last_place_or_two() {
        let worst = (0..=87_000).map(|thousandths| {
            let x = -(thousandths as f32) / 1000.0;
            let right = f64::from(x).exp();
            ((f64::from(exp(x)) - right) / right).abs()
        });
        let worst = worst.fold(0.0, f64::max);
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "{worst}");
        assert_eq!((exp(0.0), exp(-1e9), exp(f32::NAN)), (1.0, exp(-87.0), exp(-87.0)));
    }

    #[test]
    fn a_total_is_that_of_the_numbers_whatever_their_count() {
        for count in [1, 15, 16, 1023, 1024, 1041, 5000] {
            let values: Vec<f32> = (0..count).map(|i| -((i * 7919 % 1000) as f32) / 100.0).collect();
            let right: f64 = values.iter().map(|value| f64::from(*value).exp()).sum();
            assert!((total(&values, 0.0) / right - 1.0).abs() < 1e-6, "{count}");
        }
    }
}
