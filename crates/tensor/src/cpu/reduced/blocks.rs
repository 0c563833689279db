//! Thirty-two neighbouring weights of a row as they are stored: rounded from `f32`, read as GGUF writes them, and taken
//! back to `f32`.
//!
//! The roundings are those of llama.cpp's reference (`quantize_row_*_ref`). Knows nothing of where a block lies.

use super::forms::{BLOCK, Form};
use half::{bf16, f16};

/// One row's block, whatever its form.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Block {
    /// Of each span of weights, as many as the form has; exact as IEEE halves where it has these.
    pub scales: [f32; 2],
    pub minima: [f32; 2],
    /// Bytes, nibbles or the bits of 16-bit numbers.
    pub codes: [u16; BLOCK],
}

impl Block {
    /// Rounded, from at most 32 numbers; what is missing is 0. To the wide forms only tests round: they hold what is rounded already.
    pub fn round(form: Form, numbers: &[f32]) -> Self {
        let mut values = [0.0; BLOCK];
        values[..numbers.len()].copy_from_slice(numbers);
        match form {
            Form::F16 => Self::plain(values.map(|value| f16::from_f32(value).to_bits())),
            Form::Bf16 => Self::plain(values.map(|value| bf16::from_f32(value).to_bits())),
            Form::Q8_0 => {
                let scale = values.iter().fold(0f32, |most, value| most.max(value.abs())) / 127.0;
                let code = |value: f32| ((value * inverse(scale)).round() + 128.0) as u16;
                Self::of(half(scale), 0.0, values.map(code))
            }
            Form::Q4_0 => {
                // the number furthest from 0 becomes −8 exactly
                let furthest = |most: f32, value: &f32| if value.abs() > most.abs() { *value } else { most };
                let scale = values.iter().fold(0.0, furthest) / -8.0;
                let code = |value: f32| ((value * inverse(scale) + 8.5) as u16).min(15);
                Self::of(half(scale), 0.0, values.map(code))
            }
            Form::Q4_1 | Form::Wide4 | Form::Wide8 => {
                let (span, most) = (form.span(), if form == Form::Wide8 { 255 } else { 15 });
                let mut block = Self::of(0.0, 0.0, [0; BLOCK]);
                for (index, values) in values.chunks_exact(span).enumerate() {
                    let least = values.iter().copied().fold(f32::INFINITY, f32::min);
                    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let scale = (largest - least) / f32::from(most);
                    let code = |value: &f32| (((value - least) * inverse(scale) + 0.5) as u16).min(most);
                    let codes = &mut block.codes[index * span..][..span];
                    codes.iter_mut().zip(values).for_each(|(to, value)| *to = code(value));
                    let shortened = |number| if form == Form::Q4_1 { half(number) } else { short(number) };
                    (block.scales[index], block.minima[index]) = (shortened(scale), shortened(least));
                }
                block
            }
        }
    }

    /// From [`Form::file_bytes`] bytes: GGUF's blocks, or 32 numbers of 16 bits, all little-endian; of the forms that GGUF does not
    /// have the scales, the minima and the codes.
    pub fn parse(form: Form, bytes: &[u8]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]);
        // The first half of a block is in the lower four bits, the second in the upper.
        let nibbles = |bytes: &[u8]| {
            std::array::from_fn(|at| match at < BLOCK / 2 {
                true => u16::from(bytes[at] & 15),
                false => u16::from(bytes[at - BLOCK / 2] >> 4),
            })
        };
        let half = |at: usize| f16::from_bits(word(at)).to_f32();
        let number = |at: usize| f32::from_le_bytes(std::array::from_fn(|byte| bytes[4 * at + byte]));
        match form {
            Form::F16 | Form::Bf16 => Self::plain(std::array::from_fn(word)),
            // the sign's bit turned around adds 128
            Form::Q8_0 => Self::of(half(0), 0.0, std::array::from_fn(|at| u16::from(bytes[2 + at] ^ 0x80))),
            Form::Q4_0 => Self::of(half(0), 0.0, nibbles(&bytes[2..])),
            Form::Q4_1 => Self::of(half(0), half(1), nibbles(&bytes[4..])),
            Form::Wide4 => Self::of(number(0), number(1), nibbles(&bytes[8..])),
            Form::Wide8 => {
                let codes = std::array::from_fn(|at| u16::from(bytes[16 + at]));
                Self { scales: [number(0), number(1)], minima: [number(2), number(3)], codes }
            }
        }
    }

    /// The weights, with the same bits that a product sees.
    pub fn widened(&self, form: Form) -> [f32; BLOCK] {
        let (scale, minimum) = (self.scales[0], self.minima[0]);
        match form {
            Form::F16 => self.codes.map(|bits| f16::from_bits(bits).to_f32()),
            Form::Bf16 => self.codes.map(|bits| bf16::from_bits(bits).to_f32()),
            Form::Q8_0 => self.codes.map(|code| (f32::from(code) - 128.0) * scale),
            Form::Q4_0 => self.codes.map(|code| (f32::from(code) - 8.0) * scale),
            // The product has 24 bits at most and is exact (a scale of GGUF's has 18 with codes of six bits, and fewer with
            // fewer): fused or not, the sum is rounded once.
            Form::Q4_1 | Form::Wide4 => self.codes.map(|code| f32::from(code) * scale + minimum),
            Form::Wide8 => std::array::from_fn(|at| {
                let span = at / form.span();
                f32::from(self.codes[at]) * self.scales[span] + self.minima[span]
            }),
        }
    }

    fn plain(codes: [u16; BLOCK]) -> Self {
        Self::of(0.0, 0.0, codes)
    }

    /// With one scale and one minimum.
    fn of(scale: f32, minimum: f32, codes: [u16; BLOCK]) -> Self {
        Self { scales: [scale, 0.0], minima: [minimum, 0.0], codes }
    }
}

/// The nearest IEEE half.
fn half(number: f32) -> f32 {
    f16::from_f32(number).to_f32()
}

/// Cut to sixteen bits, so that its product with a code of eight is exact.
fn short(number: f32) -> f32 {
    f32::from_bits(number.to_bits() & !0xff)
}

/// 0 of 0, for a block of nothing but zeros.
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(seed: usize) -> Vec<f32> {
        (0..BLOCK).map(|at| ((at * 7919 + seed * 104_729) % 2001) as f32 / 1000.0 - 1.0).collect()
    }

    #[test]
    fn bytes_of_a_file_are_read_as_gguf_lays_them_out() {
        let half = |number: f32| f16::from_f32(number).to_le_bytes().to_vec();
        let codes: Vec<u8> = (0..BLOCK).map(|at| (at * 37 % 256) as u8).collect();
        let q8 = [half(0.25), codes.clone()].concat();
        let expected: Vec<f32> = codes.iter().map(|code| f32::from(*code as i8) * 0.25).collect();
        assert_eq!(Block::parse(Form::Q8_0, &q8).widened(Form::Q8_0).to_vec(), expected);

        let low = codes[..16].iter().map(|code| f32::from(code & 15));
        let nibbles: Vec<f32> = low.chain(codes[..16].iter().map(|code| f32::from(code >> 4))).collect();
        let q4_0 = [half(-0.5), codes[..16].to_vec()].concat();
        let expected: Vec<f32> = nibbles.iter().map(|code| (code - 8.0) * -0.5).collect();
        assert_eq!(Block::parse(Form::Q4_0, &q4_0).widened(Form::Q4_0).to_vec(), expected);

        let q4_1 = [half(0.5), half(-3.0), codes[..16].to_vec()].concat();
        let expected: Vec<f32> = nibbles.iter().map(|code| code * 0.5 - 3.0).collect();
        assert_eq!(Block::parse(Form::Q4_1, &q4_1).widened(Form::Q4_1).to_vec(), expected);
        assert_eq!([q8.len(), q4_0.len(), q4_1.len()], [Form::Q8_0, Form::Q4_0, Form::Q4_1].map(Form::file_bytes));
    }

    #[test]
    fn rounding_is_as_near_as_the_form_allows() {
        // the largest error in units of the largest number: half a step, a whole one where Q4_0 has no +8, and what scales and
        // minima lose as halves
        let bounds = [(Form::F16, 0.0005), (Form::Bf16, 0.004), (Form::Q8_0, 0.0045), (Form::Q4_0, 0.126)];
        let with_minima = [(Form::Q4_1, 0.068), (Form::Wide4, 0.068), (Form::Wide8, 0.0045)];
        for (form, bound) in bounds.into_iter().chain(with_minima) {
            for seed in 0..50 {
                let numbers = numbers(seed);
                let most = numbers.iter().fold(0f32, |most, number| most.max(number.abs()));
                let widened = Block::round(form, &numbers).widened(form);
                let errors = numbers.iter().zip(widened).map(|(number, wide)| (number - wide).abs());
                let error = errors.fold(0f32, f32::max);
                assert!(error <= bound * most, "{form:?}: {error} of {most}");
            }
        }
    }

    #[test]
    fn blocks_of_one_number_and_of_zeros_are_exact() {
        for form in Form::ALL {
            assert_eq!(Block::round(form, &[]).widened(form), [0.0; BLOCK]);
            assert_eq!(Block::round(form, &[0.0; BLOCK]).widened(form), [0.0; BLOCK]);
            let mut expected = [0.0; BLOCK];
            expected[0] = -2.0;
            let near = Block::round(form, &[-2.0]).widened(form);
            assert!(near.iter().zip(expected).all(|(near, number)| (near - number).abs() < 1e-3), "{near:?}");
        }
    }
}
