//! Block of 32 weights of one row: quantization from `f32`, parsing of GGUF's layout, and dequantization.
//!
//! Rounds as llama.cpp's reference does (`quantize_row_*_ref`).

use super::{BLOCK_SIZE, QuantFormat};
use half::{bf16, f16};

/// Block of one row in any format.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuantBlock {
    /// Scales of `scales` and of `minima`, which the blocks of a superblock share; 1 in formats without superblocks.
    pub superblock_scales: [f32; 2],
    /// Scale of each span of weights, as many as the format has, before the superblock's scale is applied: exactly representable
    /// as the format stores them.
    pub scales: [f32; 2],
    pub minima: [f32; 2],
    /// Codes of up to eight bits, or the bits of 16-bit values.
    pub codes: [u16; BLOCK_SIZE],
}

impl QuantBlock {
    /// Quantizes one block of at most 32 weights; missing ones are 0.
    ///
    /// # Panics
    /// If the format has superblocks: k-quants are only read from files, and [`QuantFormat::Q7Group64`] is made from whole weights.
    pub fn quantize(format: QuantFormat, input_values: &[f32]) -> Self {
        let mut values = [0.0; BLOCK_SIZE];
        values[..input_values.len()].copy_from_slice(input_values);
        match format {
            QuantFormat::F16 => Self::unscaled(values.map(|value| f16::from_f32(value).to_bits())),
            QuantFormat::Bf16 => Self::unscaled(values.map(|value| bf16::from_f32(value).to_bits())),
            QuantFormat::Q8_0 => {
                let scale = values.iter().fold(0f32, |max_abs, value| max_abs.max(value.abs())) / 127.0;
                let reciprocal = reciprocal_or_zero(scale);
                let codes = values.map(|value| (round_half_away(value * reciprocal) + 128) as u16);
                Self::with_scale(round_to_f16(scale), 0.0, codes)
            }
            QuantFormat::Q4_0 => {
                // The value of the largest magnitude becomes −8 exactly.
                let signed_max_abs = |most: f32, value: &f32| if value.abs() > most.abs() { *value } else { most };
                let scale = values.iter().fold(0.0, signed_max_abs) / -8.0;
                let code = |value: f32| ((value * reciprocal_or_zero(scale) + 8.5) as u16).min(15);
                Self::with_scale(round_to_f16(scale), 0.0, values.map(code))
            }
            QuantFormat::Q4_1 | QuantFormat::Q5_1 => {
                let max_code = (1u16 << format.code_bits()) - 1;
                let min_value = values.iter().copied().fold(f32::INFINITY, f32::min);
                let max_value = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let scale = (max_value - min_value) / f32::from(max_code);
                let code = |value| (((value - min_value) * reciprocal_or_zero(scale) + 0.5) as u16).min(max_code);
                Self::with_scale(round_to_f16(scale), round_to_f16(min_value), values.map(code))
            }
            _ => unreachable!("formats with superblocks are not made from blocks"),
        }
    }

    /// Parses a block of 32 weights of [`QuantFormat::file_block_bytes`] bytes, at an index in its superblock. The layouts are those
    /// of ggml (`ggml-common.h`), or 32 16-bit values, little-endian. [`QuantFormat::Q7Group64`], which GGUF does not have, stores a scale
    /// and 64 codes.
    #[inline]
    pub fn parse(format: QuantFormat, bytes: &[u8], index: usize) -> Self {
        let read_u16 = |at: usize| u16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]);
        // The lower nibbles hold the first half of the block, the upper ones the second.
        let unpack_nibbles = |bytes: &[u8]| {
            std::array::from_fn(|at| match at < BLOCK_SIZE / 2 {
                true => u16::from(bytes[at] & 15),
                false => u16::from(bytes[at - BLOCK_SIZE / 2] >> 4),
            })
        };
        let read_f16 = |at: usize| read_f16(bytes, 2 * at);
        match format {
            QuantFormat::F16 | QuantFormat::Bf16 => Self::unscaled(std::array::from_fn(read_u16)),
            // Flipping the sign bit adds 128.
            QuantFormat::Q8_0 => {
                Self::with_scale(read_f16(0), 0.0, std::array::from_fn(|at| u16::from(bytes[2 + at] ^ 0x80)))
            }
            QuantFormat::Q4_0 => Self::with_scale(read_f16(0), 0.0, unpack_nibbles(&bytes[2..])),
            QuantFormat::Q4_1 => Self::with_scale(read_f16(0), read_f16(1), unpack_nibbles(&bytes[4..])),
            QuantFormat::Q5_1 => {
                let fifth_bit = |at: usize| u16::from(bytes[4 + at / 8] >> (at % 8) & 1) << 4;
                let nibbles: [u16; BLOCK_SIZE] = unpack_nibbles(&bytes[8..]);
                let codes = std::array::from_fn(|at| nibbles[at] | fifth_bit(at));
                Self::with_scale(read_f16(0), read_f16(1), codes)
            }
            QuantFormat::Q2K => Self::parse_q2_k(bytes, index),
            QuantFormat::Q3K => Self::parse_q3_k(bytes, index),
            QuantFormat::Q4K | QuantFormat::Q5K => Self::parse_affine_k_quant(format, bytes, index),
            QuantFormat::Q6K => Self::parse_q6_k(bytes, index),
            QuantFormat::Q7Group64 => {
                let codes = std::array::from_fn(|at| u16::from(bytes[2 + index * BLOCK_SIZE + at]));
                Self { superblock_scales: [read_f16(0), 1.0], ..Self::unscaled(codes) }
            }
        }
    }

    /// Layout: 16 bytes of a 4-bit scale and a 4-bit minimum each, 64 bytes of bit pairs, d, e.
    fn parse_q2_k(bytes: &[u8], index: usize) -> Self {
        let packed_scales = [bytes[2 * index], bytes[2 * index + 1]];
        Self {
            superblock_scales: [read_f16(bytes, 80), -read_f16(bytes, 82)],
            scales: packed_scales.map(|packed| f32::from(packed & 15)),
            minima: packed_scales.map(|packed| f32::from(packed >> 4)),
            codes: std::array::from_fn(|at| u16::from(bit_pair(&bytes[16..80], index, at))),
        }
    }

    /// Layout: 32 bytes of third bits, 64 bytes of bit pairs, 12 bytes of scales of 6 bits with an offset of 32, d. Bit i of each byte of
    /// third bits belongs to the i-th 32 weights.
    fn parse_q3_k(bytes: &[u8], index: usize) -> Self {
        let packed_scales = &bytes[96..108];
        let scale = |span: usize| {
            let low = if span < 8 { packed_scales[span] & 15 } else { packed_scales[span - 8] >> 4 };
            let high = packed_scales[8 + span % 4] >> (2 * (span / 4)) & 3;
            f32::from(low | high << 4) - 32.0
        };
        let code = |at: usize| bit_pair(&bytes[32..96], index, at) | (bytes[at] >> index & 1) << 2;
        Self {
            superblock_scales: [read_f16(bytes, 108), 1.0],
            scales: [scale(2 * index), scale(2 * index + 1)],
            minima: [0.0; 2],
            codes: std::array::from_fn(|at| u16::from(code(at))),
        }
    }

    /// Layout: d, e, 12 bytes of scales and minima, in Q5_K 32 bytes of fifth bits, 128 bytes of nibbles. Bit i of each byte of
    /// fifth bits belongs to the i-th 32 weights. Each 32 bytes of nibbles hold 64 weights: first the low, then the high ones.
    fn parse_affine_k_quant(format: QuantFormat, bytes: &[u8], index: usize) -> Self {
        let (packed, nibble_start) = (&bytes[4..16], format.file_block_bytes() - 128);
        let (scale, minimum) = match index {
            0..4 => (packed[index] & 63, packed[index + 4] & 63),
            _ => {
                let (low, high) = (packed[index + 4], [packed[index - 4] >> 6, packed[index] >> 6]);
                (low & 15 | high[0] << 4, low >> 4 | high[1] << 4)
            }
        };
        let code = |at: usize| {
            let byte = bytes[nibble_start + index / 2 * 32 + at];
            let nibble = if index.is_multiple_of(2) { byte & 15 } else { byte >> 4 };
            let high = if format == QuantFormat::Q5K { bytes[16 + at] >> index & 1 } else { 0 };
            u16::from(nibble | high << 4)
        };
        Self {
            superblock_scales: [read_f16(bytes, 0), -read_f16(bytes, 2)],
            ..Self::with_scale(f32::from(scale), f32::from(minimum), std::array::from_fn(code))
        }
    }

    /// Layout: 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 signed scales, d.
    fn parse_q6_k(bytes: &[u8], index: usize) -> Self {
        let (half, quarter) = (index / 4, index % 4);
        let code = |at: usize| {
            let byte = bytes[half * 64 + quarter % 2 * 32 + at];
            let nibble = if quarter < 2 { byte & 15 } else { byte >> 4 };
            u16::from(nibble | (bytes[128 + half * 32 + at] >> (2 * quarter) & 3) << 4)
        };
        let scale = |span: usize| f32::from(bytes[192 + 2 * index + span].cast_signed());
        Self {
            superblock_scales: [read_f16(bytes, 208), 1.0],
            scales: [scale(0), scale(1)],
            minima: [0.0; 2],
            codes: std::array::from_fn(code),
        }
    }

    /// Dequantizes to the values that products use, bit for bit.
    pub fn dequantize(&self, format: QuantFormat) -> [f32; BLOCK_SIZE] {
        let scales = self.scales.map(|scale| self.superblock_scales[0] * scale);
        let minima = self.minima.map(|minimum| self.superblock_scales[1] * minimum);
        let (scale, minimum) = (scales[0], minima[0]);
        match format {
            QuantFormat::F16 => self.codes.map(|bits| f16::from_bits(bits).to_f32()),
            QuantFormat::Bf16 => self.codes.map(|bits| bf16::from_bits(bits).to_f32()),
            QuantFormat::Q8_0 => self.codes.map(|code| (f32::from(code) - 128.0) * scale),
            QuantFormat::Q7Group64 => self.codes.map(|code| (f32::from(code) - 64.0) * self.superblock_scales[0]),
            QuantFormat::Q4_0 => self.codes.map(|code| (f32::from(code) - 8.0) * scale),
            QuantFormat::Q3K | QuantFormat::Q6K => {
                let zero_point = if format == QuantFormat::Q3K { 4.0 } else { 32.0 };
                std::array::from_fn(|at| {
                    (f32::from(self.codes[at]) - zero_point) * scales[at / format.values_per_scale()]
                })
            }
            // The products are exact: they have at most 24 bits. So the sum is rounded once, fused or not.
            QuantFormat::Q4_1 | QuantFormat::Q5_1 | QuantFormat::Q4K | QuantFormat::Q5K => {
                self.codes.map(|code| f32::from(code) * scale + minimum)
            }
            QuantFormat::Q2K => std::array::from_fn(|at| {
                let span = at / format.values_per_scale();
                f32::from(self.codes[at]) * scales[span] + minima[span]
            }),
        }
    }

    fn unscaled(codes: [u16; BLOCK_SIZE]) -> Self {
        Self::with_scale(0.0, 0.0, codes)
    }

    /// Block with one scale and one minimum.
    fn with_scale(scale: f32, minimum: f32, codes: [u16; BLOCK_SIZE]) -> Self {
        Self { superblock_scales: [1.0; 2], scales: [scale, 0.0], minima: [minimum, 0.0], codes }
    }
}

impl QuantFormat {
    /// Dequantizes a row from its blocks in file layout.
    pub fn dequantize_row(self, bytes: &[u8], out: &mut [f32]) {
        for (out, bytes) in out.chunks_mut(self.file_block_size()).zip(bytes.chunks_exact(self.file_block_bytes())) {
            for (index, out) in out.chunks_mut(BLOCK_SIZE).enumerate() {
                out.copy_from_slice(&QuantBlock::parse(self, bytes, index).dequantize(self)[..out.len()]);
            }
        }
    }
}

/// Rounds to the nearest IEEE half.
fn round_to_f16(value: f32) -> f32 {
    f16::from_f32(value).to_f32()
}

fn read_f16(bytes: &[u8], offset: usize) -> f32 {
    f16::from_le_bytes([bytes[offset], bytes[offset + 1]]).to_f32()
}

/// The bit pair of a weight of the `index`-th 32. Each 32 bytes hold 128 weights: the lowest pairs of all bytes first.
fn bit_pair(bytes: &[u8], index: usize, at: usize) -> u8 {
    bytes[index / 4 * 32 + at] >> (2 * (index % 4)) & 3
}

/// Rounds to the nearest integer, halves away from zero, as `f32::round`, which is a call for each value where the compiler may not assume
/// SSE 4.1. `value` must be within the range of `i32`.
#[inline]
fn round_half_away(value: f32) -> i32 {
    let truncated = value as i32;
    let rest = value - truncated as f32;
    truncated + i32::from(rest >= 0.5) - i32::from(rest <= -0.5)
}

/// Returns 1 / scale, or 0 for a block of zeros.
fn reciprocal_or_zero(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test_values(seed: usize) -> Vec<f32> {
        (0..BLOCK_SIZE).map(|at| ((at * 7919 + seed * 104_729) % 2001) as f32 / 1000.0 - 1.0).collect()
    }

    #[test]
    fn blocks_are_parsed_in_gguf_layout() {
        let half = |number: f32| f16::from_f32(number).to_le_bytes().to_vec();
        let codes: Vec<u8> = (0..BLOCK_SIZE).map(|at| (at * 37 % 256) as u8).collect();
        let q8 = [half(0.25), codes.clone()].concat();
        let expected: Vec<f32> = codes.iter().map(|code| f32::from(*code as i8) * 0.25).collect();
        assert_eq!(QuantBlock::parse(QuantFormat::Q8_0, &q8, 0).dequantize(QuantFormat::Q8_0).to_vec(), expected);

        let low = codes[..16].iter().map(|code| f32::from(code & 15));
        let nibbles: Vec<f32> = low.chain(codes[..16].iter().map(|code| f32::from(code >> 4))).collect();
        let q4_0 = [half(-0.5), codes[..16].to_vec()].concat();
        let expected: Vec<f32> = nibbles.iter().map(|code| (code - 8.0) * -0.5).collect();
        assert_eq!(QuantBlock::parse(QuantFormat::Q4_0, &q4_0, 0).dequantize(QuantFormat::Q4_0).to_vec(), expected);

        let q4_1 = [half(0.5), half(-3.0), codes[..16].to_vec()].concat();
        let expected: Vec<f32> = nibbles.iter().map(|code| code * 0.5 - 3.0).collect();
        assert_eq!(QuantBlock::parse(QuantFormat::Q4_1, &q4_1, 0).dequantize(QuantFormat::Q4_1).to_vec(), expected);
        assert_eq!(
            [q8.len(), q4_0.len(), q4_1.len()],
            [QuantFormat::Q8_0, QuantFormat::Q4_0, QuantFormat::Q4_1].map(QuantFormat::file_block_bytes)
        );
    }

    #[test]
    fn quantization_error_is_within_the_format_bound() {
        // Largest error relative to the largest value: half a step, a whole one where Q4_0 has no +8, plus the rounding
        // of scales and minima to halves.
        let bounds = [
            (QuantFormat::F16, 0.0005),
            (QuantFormat::Bf16, 0.004),
            (QuantFormat::Q8_0, 0.0045),
            (QuantFormat::Q4_0, 0.126),
        ];
        let with_minima = [(QuantFormat::Q4_1, 0.068), (QuantFormat::Q5_1, 0.034)];
        for (format, bound) in bounds.into_iter().chain(with_minima) {
            for seed in 0..50 {
                let values = test_values(seed);
                let max_abs = values.iter().fold(0f32, |most, number| most.max(number.abs()));
                let dequantized = QuantBlock::quantize(format, &values).dequantize(format);
                let errors = values.iter().zip(dequantized).map(|(number, dequantized)| (number - dequantized).abs());
                let error = errors.fold(0f32, f32::max);
                assert!(error <= bound * max_abs, "{format:?}: {error} of {max_abs}");
            }
        }
    }

    #[test]
    fn round_half_away_equals_f32_round() {
        let halves = (-600..=600).map(|number| number as f32 / 4.0);
        for value in halves.flat_map(|value| [value, value.next_up(), value.next_down()]) {
            assert_eq!(round_half_away(value) as f32, value.round(), "{value}");
        }
        assert_eq!(round_half_away(f32::NAN), 0);
    }

    #[test]
    fn blocks_of_one_value_and_of_zeros_are_exact() {
        let made_from_values = QuantFormat::ALL.into_iter().filter(|format| format.blocks_per_superblock() == 1);
        for format in made_from_values {
            assert_eq!(QuantBlock::quantize(format, &[]).dequantize(format), [0.0; BLOCK_SIZE]);
            assert_eq!(QuantBlock::quantize(format, &[0.0; BLOCK_SIZE]).dequantize(format), [0.0; BLOCK_SIZE]);
            let mut expected = [0.0; BLOCK_SIZE];
            expected[0] = -2.0;
            let dequantized = QuantBlock::quantize(format, &[-2.0]).dequantize(format);
            assert!(
                dequantized.iter().zip(expected).all(|(dequantized, number)| (dequantized - number).abs() < 1e-3),
                "{dequantized:?}"
            );
        }
    }
}
