//! GGUF's forms that products do not read as they are, taken apart into those that they do: every weight stays the number that
//! it is.
//!
//! A file's block has 256 weights of a row (32 in Q5_0 and Q5_1), with scales of few bits that are themselves scaled. What comes
//! out are blocks of 32: scales and minima as `f32`, then codes. The layouts are ggml's (`ggml-common.h`).

use candle_core::quantized::GgmlDType;
use espalier_tensor::raw::Form;
use half::f16;

/// Reads a block.
type Apart = fn(&[u8], &mut Weights);

/// What holds a form without loss, and how a block of it is taken apart; `None` for those that are held as they are, or not
/// known.
fn known(form: GgmlDType) -> Option<(Form, Apart)> {
    match form {
        GgmlDType::Q2K => Some((Form::Wide8, q2_k)),
        GgmlDType::Q3K => Some((Form::Wide8, q3_k)),
        GgmlDType::Q4K => Some((Form::Wide4, q4_k)),
        GgmlDType::Q5K => Some((Form::Wide8, q5_k)),
        GgmlDType::Q6K => Some((Form::Wide8, q6_k)),
        GgmlDType::Q5_0 => Some((Form::Wide8, q5_0)),
        GgmlDType::Q5_1 => Some((Form::Wide8, q5_1)),
        _ => None,
    }
}

/// What holds this form without loss, where it is another.
pub fn wide(form: GgmlDType) -> Option<Form> {
    known(form).map(|(wide, _)| wide)
}

/// All blocks of a tensor, in their order; `None` where [`wide`] has none.
pub fn taken_apart(form: GgmlDType, bytes: &[u8]) -> Option<Vec<u8>> {
    let (wide, apart) = known(form)?;
    let mut weights = Weights { codes: [0; 256], heads: [(0.0, 0.0); 16] };
    let (count, each) = (bytes.len() / form.type_size(), form.block_size() / 32 * wide.file_bytes());
    let mut out = Vec::with_capacity(count * each);
    for block in bytes.chunks_exact(form.type_size()) {
        apart(block, &mut weights);
        let spans = weights.codes.chunks_exact(32).zip(weights.heads.chunks_exact(2)).take(form.block_size() / 32);
        for (codes, [first, second]) in spans.map(|(codes, heads)| (codes, [heads[0], heads[1]])) {
            if wide == Form::Wide4 {
                // Both halves have the same.
                write(&mut out, &[first.0, first.1]);
                out.extend((0..16).map(|at| codes[at] | codes[at + 16] << 4));
            } else {
                write(&mut out, &[first.0, second.0, first.1, second.1]);
                out.extend_from_slice(codes);
            }
        }
    }
    Some(out)
}

fn write(out: &mut Vec<u8>, numbers: &[f32]) {
    out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

/// A block's weights: scale · code + minimum.
struct Weights {
    codes: [u8; 256],
    /// Scale and minimum of each sixteen.
    heads: [(f32, f32); 16],
}

fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Scales and minima of 32 weights each, both of six bits, in twelve bytes.
fn six_bits(packed: &[u8], index: usize) -> (f32, f32) {
    let (scale, minimum) = match index {
        0..4 => (packed[index] & 63, packed[index + 4] & 63),
        _ => (packed[index + 4] & 15 | packed[index - 4] >> 6 << 4, packed[index + 4] >> 4 | packed[index] >> 6 << 4),
    };
    (f32::from(scale), f32::from(minimum))
}

/// Halves d and m, then the packed scales and minima.
fn heads_of_32(block: &[u8], weights: &mut Weights) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    for (span, head) in weights.heads.iter_mut().enumerate() {
        let (own, least) = six_bits(&block[4..16], span / 2);
        *head = (scale * own, -(minimum * least));
    }
}

/// d, m, 12 bytes of scales, 128 of nibbles: of 64 weights the lower ones, then the upper ones of 32 bytes.
fn q4_k(block: &[u8], weights: &mut Weights) {
    heads_of_32(block, weights);
    for (at, code) in weights.codes.iter_mut().enumerate() {
        let byte = block[16 + at / 64 * 32 + at % 32];
        *code = if at % 64 < 32 { byte & 15 } else { byte >> 4 };
    }
}

/// The same, between scales and nibbles 32 bytes of fifth bits: one bit for each 32 weights.
fn q5_k(block: &[u8], weights: &mut Weights) {
    heads_of_32(block, weights);
    for (at, code) in weights.codes.iter_mut().enumerate() {
        let byte = block[48 + at / 64 * 32 + at % 32];
        let low = if at % 64 < 32 { byte & 15 } else { byte >> 4 };
        *code = low | (block[16 + at % 32] >> (at / 32) & 1) << 4;
    }
}

/// 128 bytes of lower nibbles, 64 of upper pairs of bits, 16 signed scales, d; weights are 32 below their codes.
fn q6_k(block: &[u8], weights: &mut Weights) {
    let scale = half(block, 208);
    for (head, own) in weights.heads.iter_mut().zip(&block[192..208]) {
        let scale = scale * f32::from(own.cast_signed());
        *head = (scale, -32.0 * scale);
    }
    for (at, code) in weights.codes.iter_mut().enumerate() {
        let (half, quarter, place) = (at / 128, at % 128 / 32, at % 32);
        let byte = block[half * 64 + quarter % 2 * 32 + place];
        let low = if quarter < 2 { byte & 15 } else { byte >> 4 };
        *code = low | (block[128 + half * 32 + place] >> (2 * quarter) & 3) << 4;
    }
}

/// 32 bytes of third bits, 64 of pairs of bits, 12 of scales in six bits, d; weights are 4 below their codes.
fn q3_k(block: &[u8], weights: &mut Weights) {
    let (scale, packed) = (half(block, 108), &block[96..108]);
    for (index, head) in weights.heads.iter_mut().enumerate() {
        let low = if index < 8 { packed[index] & 15 } else { packed[index - 8] >> 4 };
        let own = low | (packed[8 + index % 4] >> (2 * (index / 4)) & 3) << 4;
        let scale = scale * (f32::from(own) - 32.0);
        *head = (scale, -4.0 * scale);
    }
    for (at, code) in weights.codes.iter_mut().enumerate() {
        let (half, quarter, place) = (at / 128, at % 128 / 32, at % 32);
        let low = block[32 + half * 32 + place] >> (2 * quarter) & 3;
        *code = low | (block[place] >> (at / 32) & 1) << 2;
    }
}

/// 16 bytes of a scale and a minimum in four bits each, 64 of pairs of bits, d, m.
fn q2_k(block: &[u8], weights: &mut Weights) {
    let (scale, minimum) = (half(block, 80), half(block, 82));
    for (head, own) in weights.heads.iter_mut().zip(&block[..16]) {
        *head = (scale * f32::from(own & 15), -(minimum * f32::from(own >> 4)));
    }
    for (at, code) in weights.codes.iter_mut().enumerate() {
        *code = block[16 + at / 128 * 32 + at % 32] >> (2 * (at % 128 / 32)) & 3;
    }
}

/// The fifth bits of 32 weights, 16 bytes of nibbles: first the lower ones, then the upper.
fn five_bits(high: &[u8], low: &[u8], weights: &mut Weights) {
    for (at, code) in weights.codes[..32].iter_mut().enumerate() {
        let nibble = if at < 16 { low[at] & 15 } else { low[at - 16] >> 4 };
        *code = nibble | (high[at / 8] >> (at % 8) & 1) << 4;
    }
}

/// d; weights are 16 below their codes.
fn q5_0(block: &[u8], weights: &mut Weights) {
    let scale = half(block, 0);
    weights.heads[..2].fill((scale, -16.0 * scale));
    five_bits(&block[2..6], &block[6..22], weights);
}

/// d, m.
fn q5_1(block: &[u8], weights: &mut Weights) {
    weights.heads[..2].fill((half(block, 0), half(block, 2)));
    five_bits(&block[4..8], &block[8..24], weights);
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::QTensor;
    use candle_core::{Device, Tensor};
    use espalier_tensor::Kernels;
    use espalier_tensor::Tensor as Numbers;
    use espalier_tensor::cpu::{Cpu, Held};
    use espalier_tensor::held::Hold;
    use espalier_tensor::random::Random;
    use espalier_tensor::raw::Raw;

    #[test]
    fn every_weight_is_the_number_that_candle_makes_of_it() {
        let mut random = Random::new(9, &["blocks"]);
        let (output, input) = (7, 512);
        let numbers: Vec<f32> = (0..output * input).map(|_| random.normal()).collect();
        let tensor = Tensor::from_vec(numbers, (output, input), &Device::Cpu).unwrap();
        let forms = [GgmlDType::Q2K, GgmlDType::Q3K, GgmlDType::Q4K, GgmlDType::Q5K, GgmlDType::Q6K];
        for dtype in forms.into_iter().chain([GgmlDType::Q5_0, GgmlDType::Q5_1]) {
            let stored = QTensor::quantize(&tensor, dtype).unwrap();
            let expected: Vec<f32> = stored.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let bytes = taken_apart(dtype, &stored.data().unwrap()).unwrap();
            let blocks = Raw::Blocks { form: wide(dtype).unwrap(), shape: [output, input], bytes };
            assert_eq!(espalier_tensor::raw::numbers(&blocks.reduced().unwrap()).values, expected, "{dtype:?}");
            // In a product, too: with the rows of the identity.
            let mut identity = vec![0.0; input * input];
            identity.iter_mut().step_by(input + 1).for_each(|one| *one = 1.0);
            let cpu = Cpu::best().holding(Held::AsIs);
            let map = cpu.hold_linear(blocks.clone(), None).unwrap();
            let rows = cpu.upload(&Numbers::new([input, input], identity)).unwrap();
            let products = cpu.download(&cpu.linear(&rows, &map).unwrap()).unwrap().values;
            let turned = |at: usize| products[at % input * output + at / input];
            assert!((0..output * input).all(|at| turned(at) == expected[at]), "{dtype:?}");
            assert_eq!(blocks.tensor().values, expected, "{dtype:?}");
        }
        assert!(taken_apart(GgmlDType::Q8_0, &[]).is_none());
    }
}
