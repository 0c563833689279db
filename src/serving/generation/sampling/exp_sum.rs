//! eˣ of many numbers at once, in plain arithmetic that the compiler turns into vectors and that gives the same bits on
//! every machine. Knows nothing of what the numbers are.

use super::top_k::LANES;
use std::f32::consts::LOG2_E;

/// From here on eˣ is as good as 0 in a sum with 1.
pub const MIN_EXPONENT: f32 = -87.0;
/// Numbers that are added up in `f32`; their sums are added in `f64`.
pub const BLOCK_SIZE: usize = 1024;
/// 1.5 · 2²³: added to a number it leaves the nearest whole one in the last bits.
const ROUNDING_BIAS: f32 = 12_582_912.0;

/// eˣ for x from −87 to 0, to about one unit in the last place; what is below, or no number, counts as −87.
///
/// 2ⁿ·eʳ with |r| ≤ ln 2 / 2 and the Taylor series of eʳ up to r⁶.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = if x > MIN_EXPONENT { x } else { MIN_EXPONENT };
    let shifted = x * LOG2_E + ROUNDING_BIAS;
    let exponent = shifted - ROUNDING_BIAS;
    // ln 2 in two parts, the first exact in few bits
    let r = x - exponent * (355.0 / 512.0) + exponent * 2.121_944_4e-4;
    let sum = 1.0 / 720.0 * r + 1.0 / 120.0;
    let sum = ((sum * r + 1.0 / 24.0) * r + 1.0 / 6.0) * r + 0.5;
    let sum = (sum * r + 1.0) * r + 1.0;
    sum * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()))
}

/// The sum of eˣ⁻ˡ over all x, l being the largest of them; what is −∞ or no number adds nothing to speak of.
pub fn sum_exp(values: &[f32], max: f32) -> f64 {
    values.chunks(BLOCK_SIZE).map(|block| sum_block(block, |value| exp(value - max))).sum()
}

/// The sum over a block, lane by lane in a fixed order.
#[inline(always)]
pub fn sum_block(block: &[f32], map: impl Fn(f32) -> f32) -> f64 {
    let mut lane_sums = [0.0; LANES];
    let (chunks, remainder) = block.as_chunks::<LANES>();
    for (sum, value) in lane_sums.iter_mut().zip(remainder) {
        *sum = map(*value);
    }
    for chunk in chunks {
        for (sum, value) in lane_sums.iter_mut().zip(chunk) {
            *sum += map(*value);
        }
    }
    lane_sums.into_iter().map(f64::from).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_to_two_ulps() {
        let relative_errors = (0..=87_000).map(|thousandths| {
            let x = -(thousandths as f32) / 1000.0;
            let expected = f64::from(x).exp();
            ((f64::from(exp(x)) - expected) / expected).abs()
        });
        let max_error = relative_errors.fold(0.0, f64::max);
        assert!(max_error < 2.0 * f64::from(f32::EPSILON), "{max_error}");
        assert_eq!((exp(0.0), exp(-1e9), exp(f32::NAN)), (1.0, exp(-87.0), exp(-87.0)));
    }

    #[test]
    fn sum_exp_is_accurate_for_any_length() {
        for count in [1, 15, 16, 1023, 1024, 1041, 5000] {
            let values: Vec<f32> = (0..count).map(|i| -((i * 7919 % 1000) as f32) / 100.0).collect();
            let expected: f64 = values.iter().map(|value| f64::from(*value).exp()).sum();
            assert!((sum_exp(&values, 0.0) / expected - 1.0).abs() < 1e-6, "{count}");
        }
    }
}
