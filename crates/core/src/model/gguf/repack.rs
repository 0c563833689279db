//! Lossless repacking of GGUF's k-quants, Q5_0 and Q5_1 into the formats that the GEMM kernels read.
//!
//! A source block has 256 weights of a row (32 in Q5_0 and Q5_1), with quantized scales. The target blocks have 32 weights: scales and
//! minima as `f32`, then codes. The source layouts are those of ggml (`ggml-common.h`).

use candle_core::quantized::GgmlDType;
use espalier_tensor::quant::QuantFormat;
use half::f16;

/// Unpacks one source block.
type UnpackBlock = fn(&[u8], &mut UnpackedKQuant);

/// Target format of a GGML type, and how to unpack its blocks. `None` for types that need no repacking or are not supported.
fn repack_plan(dtype: GgmlDType) -> Option<(QuantFormat, UnpackBlock)> {
    match dtype {
        GgmlDType::Q2K => Some((QuantFormat::AffineQ8, unpack_q2_k)),
        GgmlDType::Q3K => Some((QuantFormat::AffineQ8, unpack_q3_k)),
        GgmlDType::Q4K => Some((QuantFormat::AffineQ4, unpack_q4_k)),
        GgmlDType::Q5K => Some((QuantFormat::AffineQ8, unpack_q5_k)),
        GgmlDType::Q6K => Some((QuantFormat::AffineQ8, unpack_q6_k)),
        GgmlDType::Q5_0 => Some((QuantFormat::AffineQ8, unpack_q5_0)),
        GgmlDType::Q5_1 => Some((QuantFormat::AffineQ8, unpack_q5_1)),
        _ => None,
    }
}

/// Target format of a GGML type; `None` if [`repack_blocks`] does not repack it.
pub fn repacked_format(dtype: GgmlDType) -> Option<QuantFormat> {
    repack_plan(dtype).map(|(format, _)| format)
}

/// Repacks all blocks of a tensor, in order; `None` if [`repacked_format`] is `None`.
pub fn repack_blocks(dtype: GgmlDType, bytes: &[u8]) -> Option<Vec<u8>> {
    let (format, unpack) = repack_plan(dtype)?;
    let mut unpacked = UnpackedKQuant { codes: [0; 256], scales_and_mins: [(0.0, 0.0); 16] };
    let (block_count, bytes_per_block) =
        (bytes.len() / dtype.type_size(), dtype.block_size() / 32 * format.row_block_bytes());
    let mut out = Vec::with_capacity(block_count * bytes_per_block);
    for block in bytes.chunks_exact(dtype.type_size()) {
        unpack(block, &mut unpacked);
        let groups =
            unpacked.codes.chunks_exact(32).zip(unpacked.scales_and_mins.chunks_exact(2)).take(dtype.block_size() / 32);
        for (codes, [first_scale, second_scale]) in groups.map(|(codes, halves)| (codes, [halves[0], halves[1]])) {
            if format == QuantFormat::AffineQ4 {
                // Both halves have the same scale and minimum.
                push_f32s(&mut out, &[first_scale.0, first_scale.1]);
                out.extend((0..16).map(|at| codes[at] | codes[at + 16] << 4));
            } else {
                push_f32s(&mut out, &[first_scale.0, second_scale.0, first_scale.1, second_scale.1]);
                out.extend_from_slice(codes);
            }
        }
    }
    Some(out)
}

fn push_f32s(out: &mut Vec<u8>, values: &[f32]) {
    out.extend(values.iter().flat_map(|number| number.to_le_bytes()));
}

/// Weights of one source block: scale · code + minimum.
struct UnpackedKQuant {
    codes: [u8; 256],
    /// Scale and minimum of each group of 16 weights.
    scales_and_mins: [(f32, f32); 16],
}

fn read_f16(bytes: &[u8], offset: usize) -> f32 {
    f16::from_le_bytes([bytes[offset], bytes[offset + 1]]).to_f32()
}

/// Scale and minimum of a group of 32 weights, both 6-bit values in 12 packed bytes.
fn scale_min_k4(packed: &[u8], group: usize) -> (f32, f32) {
    let (scale, minimum) = match group {
        0..4 => (packed[group] & 63, packed[group + 4] & 63),
        _ => (packed[group + 4] & 15 | packed[group - 4] >> 6 << 4, packed[group + 4] >> 4 | packed[group] >> 6 << 4),
    };
    (f32::from(scale), f32::from(minimum))
}

/// Unpacks d and m as f16, then the packed scales and minima.
fn unpack_scales_k4(block: &[u8], unpacked: &mut UnpackedKQuant) {
    let (scale, minimum) = (read_f16(block, 0), read_f16(block, 2));
    for (group, scale_and_min) in unpacked.scales_and_mins.iter_mut().enumerate() {
        let (group_scale, group_min) = scale_min_k4(&block[4..16], group / 2);
        *scale_and_min = (scale * group_scale, -(minimum * group_min));
    }
}

/// Layout: d, m, 12 bytes of scales, 128 bytes of nibbles. Each 32 bytes hold 64 weights: first the low, then the high nibbles.
fn unpack_q4_k(block: &[u8], unpacked: &mut UnpackedKQuant) {
    unpack_scales_k4(block, unpacked);
    for (index, code) in unpacked.codes.iter_mut().enumerate() {
        let byte = block[16 + index / 64 * 32 + index % 32];
        *code = if index % 64 < 32 { byte & 15 } else { byte >> 4 };
    }
}

/// Layout: as Q4_K, with 32 bytes of fifth bits between scales and nibbles; bit i of each byte belongs to the i-th 32 weights.
fn unpack_q5_k(block: &[u8], unpacked: &mut UnpackedKQuant) {
    unpack_scales_k4(block, unpacked);
    for (index, code) in unpacked.codes.iter_mut().enumerate() {
        let byte = block[48 + index / 64 * 32 + index % 32];
        let low = if index % 64 < 32 { byte & 15 } else { byte >> 4 };
        *code = low | (block[16 + index % 32] >> (index / 32) & 1) << 4;
    }
}

/// Layout: 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 signed scales, d. The codes have an offset of 32.
fn unpack_q6_k(block: &[u8], unpacked: &mut UnpackedKQuant) {
    let scale = read_f16(block, 208);
    for (scale_and_min, group_scale) in unpacked.scales_and_mins.iter_mut().zip(&block[192..208]) {
        let scale = scale * f32::from(group_scale.cast_signed());
        *scale_and_min = (scale, -32.0 * scale);
    }
    for (index, code) in unpacked.codes.iter_mut().enumerate() {
        let (half, quarter, lane) = (index / 128, index % 128 / 32, index % 32);
        let byte = block[half * 64 + quarter % 2 * 32 + lane];
        let low = if quarter < 2 { byte & 15 } else { byte >> 4 };
        *code = low | (block[128 + half * 32 + lane] >> (2 * quarter) & 3) << 4;
    }
}

/// Layout: 32 bytes of third bits, 64 bytes of bit pairs, 12 bytes of 6-bit scales, d. The codes have an offset of 4.
fn unpack_q3_k(block: &[u8], unpacked: &mut UnpackedKQuant) {
    let (scale, packed) = (read_f16(block, 108), &block[96..108]);
    for (group, scale_and_min) in unpacked.scales_and_mins.iter_mut().enumerate() {
        let low = if group < 8 { packed[group] & 15 } else { packed[group - 8] >> 4 };
        let group_scale = low | (packed[8 + group % 4] >> (2 * (group / 4)) & 3) << 4;
        let scale = scale * (f32::from(group_scale) - 32.0);
        *scale_and_min = (scale, -4.0 * scale);
    }
    for (index, code) in unpacked.codes.iter_mut().enumerate() {
        let (half, quarter, lane) = (index / 128, index % 128 / 32, index % 32);
        let low = block[32 + half * 32 + lane] >> (2 * quarter) & 3;
        *code = low | (block[lane] >> (index / 32) & 1) << 2;
    }
}

/// Layout: 16 bytes of a 4-bit scale and a 4-bit minimum each, 64 bytes of bit pairs, d, m.
fn unpack_q2_k(block: &[u8], unpacked: &mut UnpackedKQuant) {
    let (scale, minimum) = (read_f16(block, 80), read_f16(block, 82));
    for (scale_and_min, packed_scale_min) in unpacked.scales_and_mins.iter_mut().zip(&block[..16]) {
        *scale_and_min = (scale * f32::from(packed_scale_min & 15), -(minimum * f32::from(packed_scale_min >> 4)));
    }
    for (index, code) in unpacked.codes.iter_mut().enumerate() {
        *code = block[16 + index / 128 * 32 + index % 32] >> (2 * (index % 128 / 32)) & 3;
    }
}

/// Codes of 32 weights from their fifth bits and 16 bytes of nibbles: first the low, then the high nibbles.
fn unpack_5bit_codes(high_bits: &[u8], low_nibbles: &[u8], unpacked: &mut UnpackedKQuant) {
    for (index, code) in unpacked.codes[..32].iter_mut().enumerate() {
        let nibble = if index < 16 { low_nibbles[index] & 15 } else { low_nibbles[index - 16] >> 4 };
        *code = nibble | (high_bits[index / 8] >> (index % 8) & 1) << 4;
    }
}

/// Layout: d, fifth bits, nibbles. The codes have an offset of 16.
fn unpack_q5_0(block: &[u8], unpacked: &mut UnpackedKQuant) {
    let scale = read_f16(block, 0);
    unpacked.scales_and_mins[..2].fill((scale, -16.0 * scale));
    unpack_5bit_codes(&block[2..6], &block[6..22], unpacked);
}

/// Layout: d, m, fifth bits, nibbles.
fn unpack_q5_1(block: &[u8], unpacked: &mut UnpackedKQuant) {
    unpacked.scales_and_mins[..2].fill((read_f16(block, 0), read_f16(block, 2)));
    unpack_5bit_codes(&block[4..8], &block[8..24], unpacked);
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::QTensor;
    use candle_core::{Device, Tensor};
    use espalier_tensor::Backend;
    use espalier_tensor::Tensor as HostTensor;
    use espalier_tensor::backend::WeightOps;
    use espalier_tensor::backend::cpu::{CpuBackend, WeightStorage};
    use espalier_tensor::quant::StoredWeight;
    use espalier_tensor::seeded_rng::SeededRng;

    #[test]
    fn repacked_blocks_dequantize_to_candles_values() {
        let mut random = SeededRng::new(9, &["blocks"]);
        let (output, input) = (7, 512);
        let values: Vec<f32> = (0..output * input).map(|_| random.standard_normal()).collect();
        let tensor = Tensor::from_vec(values, (output, input), &Device::Cpu).unwrap();
        let k_quants = [GgmlDType::Q2K, GgmlDType::Q3K, GgmlDType::Q4K, GgmlDType::Q5K, GgmlDType::Q6K];
        for dtype in k_quants.into_iter().chain([GgmlDType::Q5_0, GgmlDType::Q5_1]) {
            let stored = QTensor::quantize(&tensor, dtype).unwrap();
            let expected: Vec<f32> = stored.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let bytes = repack_blocks(dtype, &stored.data().unwrap()).unwrap();
            let blocks =
                StoredWeight::Quantized { format: repacked_format(dtype).unwrap(), shape: [output, input], bytes };
            // The product with the identity matrix returns the weights.
            let mut identity = vec![0.0; input * input];
            identity.iter_mut().step_by(input + 1).for_each(|one| *one = 1.0);
            let cpu = CpuBackend::detect().with_weight_storage(WeightStorage::Native);
            let linear = cpu.load_linear(blocks.clone(), None).unwrap();
            assert_eq!(cpu.download(linear.buffers().next().unwrap()).unwrap().values, expected, "{dtype:?}");
            let rows = cpu.upload(&HostTensor::new([input, input], identity)).unwrap();
            let products = cpu.download(&cpu.linear(&rows, &linear).unwrap()).unwrap().values;
            let transposed_product = |at: usize| products[at % input * output + at / input];
            assert!((0..output * input).all(|at| transposed_product(at) == expected[at]), "{dtype:?}");
            assert_eq!(blocks.into_dequantized().values, expected, "{dtype:?}");
        }
        assert!(repack_blocks(GgmlDType::Q8_0, &[]).is_none());
    }
}
