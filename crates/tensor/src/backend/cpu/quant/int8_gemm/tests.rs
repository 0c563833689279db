//! Int8 products of every format, shape and instruction set against `f64` loops on the same quantized rows.

use crate::backend::cpu::Isa;
use crate::backend::cpu::gemm::AccumulatorInit;
use crate::backend::cpu::quant::tests::test_weights;
use crate::backend::cpu::quant::{ColumnSlice, QuantFormat, QuantizedActivations, QuantizedWeight};
use crate::backend::cpu::threads::SpinThreadPool;
use crate::seeded_rng::SeededRng;

const SHAPES: [[usize; 2]; 6] = [[1, 1], [17, 33], [64, 96], [33, 64], [192, 576], [100, 200]];

fn normal(count: usize, seed: u64) -> Vec<f32> {
    let mut random = SeededRng::new(seed, &["bytes"]);
    (0..count).map(|_| random.standard_normal()).collect()
}

fn for_every_case(mut check: impl FnMut(Isa, &QuantizedWeight)) {
    for format in QuantFormat::ALL.into_iter().filter(|format| format.supports_integer_dot()) {
        for shape in SHAPES {
            let weights = test_weights(format, shape);
            Isa::available().into_iter().for_each(|isa| check(isa, &weights));
        }
    }
}

fn multiply(isa: Isa, weights: &QuantizedWeight, x: &[f32], init: AccumulatorInit) -> Vec<f32> {
    let quantized = QuantizedActivations::new(isa, x, weights.in_features(), weights.format());
    let mut out = vec![0.5; quantized.rows() * weights.out_features()];
    weights.multiply_int8(
        isa,
        &quantized,
        init,
        &mut ColumnSlice::new(&mut out, quantized.rows(), weights.out_features()),
    );
    out
}

/// Dequantizes a row of activations.
fn dequantized_row(quantized: &QuantizedActivations, row: usize, [input, block_size]: [usize; 2]) -> Vec<f64> {
    let dequantized_value = |k: usize| {
        // SAFETY: `k` is below the row's padded length, so its code and its block's scale lie within the row.
        let (code, block) =
            unsafe { (*quantized.codes_ptr(row).add(k), *quantized.blocks_ptr(row).add(k / block_size)) };
        f64::from(code) * f64::from(block.scale)
    };
    (0..input).map(dequantized_value).collect()
}

#[test]
fn products_match_those_of_the_quantized_rows() {
    for_every_case(|isa, weights| {
        let (output, input) = (weights.out_features(), weights.in_features());
        let bias = normal(output, 3);
        let mut dequantized_weights = vec![0.0; output * input];
        dequantized_weights.chunks_exact_mut(input).enumerate().for_each(|(row, out)| weights.dequantize_row(row, out));
        for rows in [1, 2, 3, 5, 6, 7, 11, 12, 13, 33] {
            let x = normal(rows * input, 2);
            let quantized = QuantizedActivations::new(isa, &x, input, weights.format());
            for init in [AccumulatorInit::Zero, AccumulatorInit::Bias(&bias), AccumulatorInit::Output] {
                let out = multiply(isa, weights, &x, init);
                for (index, value) in out.iter().enumerate() {
                    let (row, column) = (index / output, index % output);
                    let initial = match init {
                        AccumulatorInit::Zero => 0.0,
                        AccumulatorInit::Bias(bias) => f64::from(bias[column]),
                        AccumulatorInit::Output => 0.5,
                    };
                    let lhs = dequantized_row(&quantized, row, [input, weights.format().values_per_scale()]);
                    let products =
                        || lhs.iter().zip(&dequantized_weights[column * input..]).map(|(x, w)| x * f64::from(*w));
                    let (expected, size) = (initial + products().sum::<f64>(), products().map(f64::abs).sum::<f64>());
                    let bound = 1e-5 * (size + initial.abs() + 1e-6);
                    assert!((f64::from(*value) - expected).abs() <= bound, "{isa:?}: {value} is not {expected}");
                }
            }
        }
    });
}

#[test]
fn a_row_has_the_same_bits_in_every_batch_and_thread_pool() {
    let spawn = |_, work: Box<dyn FnOnce() + Send>| std::thread::Builder::new().spawn(work);
    let mut pool = SpinThreadPool::new(2, spawn).unwrap();
    for_every_case(|isa, weights| {
        let (output, input) = (weights.out_features(), weights.in_features());
        let x = normal(20 * input, 2);
        let alone: Vec<f32> =
            x.chunks_exact(input).flat_map(|x| multiply(isa, weights, x, AccumulatorInit::Zero)).collect();
        for (first_row, rows) in [(0, 20), (3, 2), (7, 4), (1, 11), (5, 13)] {
            let x = &x[first_row * input..(first_row + rows) * input];
            let expected = &alone[first_row * output..(first_row + rows) * output];
            assert_eq!(multiply(isa, weights, x, AccumulatorInit::Zero), expected);
            let quantized = QuantizedActivations::new(isa, x, input, weights.format());
            let mut out = vec![f32::NAN; rows * output];
            let multiply_columns =
                |out: &mut ColumnSlice| weights.multiply_int8(isa, &quantized, AccumulatorInit::Zero, out);
            weights.parallel_columns(&mut pool, ColumnSlice::new(&mut out, rows, output), multiply_columns);
            assert_eq!(out, expected);
        }
    });
}

#[test]
fn instruction_sets_with_fma_agree() {
    let isas: Vec<Isa> = Isa::available().into_iter().filter(|isa| !isa.is_portable()).collect();
    for format in QuantFormat::ALL.into_iter().filter(|format| format.supports_integer_dot()) {
        let weights = test_weights(format, [192, 576]);
        let x = normal(3 * weights.in_features(), 2);
        let outs: Vec<Vec<f32>> = isas.iter().map(|isa| multiply(*isa, &weights, &x, AccumulatorInit::Zero)).collect();
        assert!(outs.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

/// Codes of the largest magnitude on both sides: no sum of AVX2 saturates.
#[test]
fn the_largest_codes_are_multiplied_exactly() {
    let block = |code: u8| [half::f16::ONE.to_le_bytes().to_vec(), vec![code; 64]].concat();
    // Q8_0 stores signed codes.
    let q8_0_block = |code: i8| block(code.cast_unsigned())[..34].to_vec();
    let q8_0 = QuantizedWeight::from_rows(QuantFormat::Q8_0, [2, 32], &[q8_0_block(-128), q8_0_block(127)].concat());
    let q7_group64 = QuantizedWeight::from_rows(QuantFormat::Q7Group64, [2, 64], &[block(0), block(128)].concat());
    // Codes of six bits in 192 bytes, sixteen scales of 1, and the scale of the superblock.
    let q6_k_block = |bits: u8| [vec![bits; 192], vec![1; 16], half::f16::ONE.to_le_bytes().to_vec()].concat();
    let q6_k = QuantizedWeight::from_rows(QuantFormat::Q6K, [2, 256], &[q6_k_block(0), q6_k_block(0xff)].concat());
    for (weights, codes, lhs_code) in
        [(q8_0, [-128.0, 127.0], 63.0), (q7_group64, [-64.0, 64.0], 127.0), (q6_k, [-32.0, 31.0], 127.0)]
    {
        for isa in Isa::available() {
            let x = [lhs_code, -lhs_code].map(|code| vec![code; weights.in_features()]).concat();
            let largest = codes.map(|code| code * lhs_code * weights.in_features() as f32);
            let expected = [largest[0], largest[1], -largest[0], -largest[1]];
            assert_eq!(multiply(isa, &weights, &x, AccumulatorInit::Zero), expected, "{isa:?}");
        }
    }
}

#[test]
fn int8_activations_lose_little_accuracy() {
    let (weights, x) =
        (QuantizedWeight::quantize(QuantFormat::Q4_1, &normal(576 * 576, 1), 576, 576), normal(8 * 576, 2));
    let mut exact = vec![0.0; 8 * 576];
    weights.multiply(Isa::detect(), &x, AccumulatorInit::Zero, &mut ColumnSlice::new(&mut exact, 8, 576));
    let approximate = multiply(Isa::detect(), &weights, &x, AccumulatorInit::Zero);
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>();
    let error = square(&mut exact.iter().zip(&approximate).map(|(exact, approximate)| exact - approximate))
        / square(&mut exact.iter().copied());
    assert!(error.sqrt() < 0.01, "{}", error.sqrt());
}
