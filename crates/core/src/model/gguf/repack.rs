//! Lossless repacking of GGUF's formats that the GEMM kernels do not read: Q5_0 as Q5_1, Q3_K as Q6_K, and Q2_K.
//!
//! The layouts are those of ggml (`ggml-common.h`).

use candle_core::quantized::GgmlDType;
use espalier_tensor::quant::QuantFormat;
use half::f16;

/// Appends a block in its new format.
type RepackBlock = fn(&[u8], &mut Vec<u8>);

/// Format that holds a GGML type without loss, and how its blocks are repacked if the format's file layout is another. `None` for
/// types that are not supported.
fn repack_plan(dtype: GgmlDType) -> Option<(QuantFormat, Option<RepackBlock>)> {
    match dtype {
        GgmlDType::F16 => Some((QuantFormat::F16, None)),
        GgmlDType::BF16 => Some((QuantFormat::Bf16, None)),
        GgmlDType::Q8_0 => Some((QuantFormat::Q8_0, None)),
        GgmlDType::Q4_0 => Some((QuantFormat::Q4_0, None)),
        GgmlDType::Q4_1 => Some((QuantFormat::Q4_1, None)),
        GgmlDType::Q5_0 => Some((QuantFormat::Q5_1, Some(repack_q5_0))),
        GgmlDType::Q5_1 => Some((QuantFormat::Q5_1, None)),
        GgmlDType::Q2K => Some((QuantFormat::AffineQ8, Some(repack_q2_k))),
        GgmlDType::Q3K => Some((QuantFormat::Q6K, Some(repack_q3_k))),
        GgmlDType::Q4K => Some((QuantFormat::Q4K, None)),
        GgmlDType::Q5K => Some((QuantFormat::Q5K, None)),
        GgmlDType::Q6K => Some((QuantFormat::Q6K, None)),
        _ => None,
    }
}

/// Format that holds a GGML type without loss; `None` if there is none.
pub fn quant_format(dtype: GgmlDType) -> Option<QuantFormat> {
    repack_plan(dtype).map(|(format, _)| format)
}

/// Repacks all blocks of a tensor, in order, into the file layout of [`quant_format`]; `None` if they have it.
pub fn repack_blocks(dtype: GgmlDType, bytes: &[u8]) -> Option<Vec<u8>> {
    let (format, repack) = repack_plan(dtype)?;
    let repack = repack?;
    let values = bytes.len() / dtype.type_size() * dtype.block_size();
    let mut out = Vec::with_capacity(values / format.file_block_size() * format.file_block_bytes());
    bytes.chunks_exact(dtype.type_size()).for_each(|block| repack(block, &mut out));
    Some(out)
}

fn read_f16(bytes: &[u8], offset: usize) -> f32 {
    f16::from_le_bytes([bytes[offset], bytes[offset + 1]]).to_f32()
}

/// From d, fifth bits, nibbles, with codes that have an offset of 16, to d, −16·d, fifth bits, nibbles. −16·d is a half for d up to 4,094,
/// which is weights of up to 65,504.
fn repack_q5_0(block: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&block[..2]);
    out.extend(f16::from_f32(-16.0 * read_f16(block, 0)).to_le_bytes());
    out.extend_from_slice(&block[2..]);
}

/// From 32 bytes of third bits, 64 bytes of bit pairs, 12 bytes of scales of 6 bits with an offset of 32, d, with codes that have an
/// offset of 4, to Q6_K: nibbles, high bit pairs, scales, d, with codes that have an offset of 32.
fn repack_q3_k(block: &[u8], out: &mut Vec<u8>) {
    let (third_bits, bit_pairs, packed_scales) = (&block[..32], &block[32..96], &block[96..108]);
    let code = |index: usize| {
        let (half, quarter, lane) = (index / 128, index % 128 / 32, index % 32);
        let low = bit_pairs[half * 32 + lane] >> (2 * quarter) & 3;
        (low | (third_bits[lane] >> (index / 32) & 1) << 2) + (32 - 4)
    };
    let nibbles = (0..128).map(|at| {
        let first = at / 64 * 128 + at % 64;
        code(first) & 15 | code(first + 64) << 4
    });
    out.extend(nibbles);
    let high_bit_pairs = (0..64).map(|at| {
        let first = at / 32 * 128 + at % 32;
        (0..4).map(|quarter| code(first + 32 * quarter) >> 4 << (2 * quarter)).sum::<u8>()
    });
    out.extend(high_bit_pairs);
    let scale = |group: usize| {
        let low = if group < 8 { packed_scales[group] & 15 } else { packed_scales[group - 8] >> 4 };
        (low | (packed_scales[8 + group % 4] >> (2 * (group / 4)) & 3) << 4).wrapping_sub(32)
    };
    out.extend((0..16).map(scale));
    out.extend_from_slice(&block[108..110]);
}

/// From 16 bytes of a 4-bit scale and a 4-bit minimum each, 64 bytes of bit pairs, d, m, to blocks of 32 weights: two scales and two
/// minima as `f32`, then the codes as bytes.
fn repack_q2_k(block: &[u8], out: &mut Vec<u8>) {
    let (scale, minimum) = (read_f16(block, 80), read_f16(block, 82));
    let code = |index: usize| block[16 + index / 128 * 32 + index % 32] >> (2 * (index % 128 / 32)) & 3;
    for (index, pair) in block[..16].as_chunks::<2>().0.iter().enumerate() {
        let scales = pair.map(|packed| scale * f32::from(packed & 15));
        let minima = pair.map(|packed| -(minimum * f32::from(packed >> 4)));
        out.extend(scales.iter().chain(&minima).flat_map(|number| number.to_le_bytes()));
        out.extend((32 * index..32 * (index + 1)).map(code));
    }
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

    /// Weights in the file's or the repacked layout, in memory, and in products.
    #[test]
    fn weights_equal_those_that_candle_dequantizes() {
        let mut random = SeededRng::new(9, &["blocks"]);
        let (output, input) = (7, 512);
        let values: Vec<f32> = (0..output * input).map(|_| random.standard_normal()).collect();
        let tensor = Tensor::from_vec(values, (output, input), &Device::Cpu).unwrap();
        let k_quants = [GgmlDType::Q2K, GgmlDType::Q3K, GgmlDType::Q4K, GgmlDType::Q5K, GgmlDType::Q6K];
        for dtype in k_quants.into_iter().chain([GgmlDType::Q5_0, GgmlDType::Q5_1]) {
            let stored = QTensor::quantize(&tensor, dtype).unwrap();
            let expected: Vec<f32> = stored.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let bytes = stored.data().unwrap();
            let bytes = repack_blocks(dtype, &bytes).unwrap_or_else(|| bytes.to_vec());
            let blocks =
                StoredWeight::Quantized { format: quant_format(dtype).unwrap(), shape: [output, input], bytes };
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
        assert!(repack_blocks(GgmlDType::Q8_0, &[]).is_none() && quant_format(GgmlDType::Q8K).is_none());
    }
}
