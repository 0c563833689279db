//! Lossless repacking of the format of GGUF that the GEMM kernels do not read: Q5_0 as Q5_1.
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
        GgmlDType::Q2K => Some((QuantFormat::Q2K, None)),
        GgmlDType::Q3K => Some((QuantFormat::Q3K, None)),
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
