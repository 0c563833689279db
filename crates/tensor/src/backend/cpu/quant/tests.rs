//! Products of every format, shape and instruction set against `f64` loops on the dequantized weights.

use super::{ColumnSlice, QuantFormat, QuantizedWeight};
use crate::backend::cpu::Isa;
use crate::backend::cpu::gemm::AccumulatorInit;
use crate::backend::cpu::threads::SpinThreadPool;
use crate::quant::QuantBlock;
use crate::seeded_rng::SeededRng;

const SHAPES: [[usize; 2]; 8] = [[1, 1], [17, 33], [31, 7], [64, 96], [33, 64], [192, 576], [100, 200], [40, 1536]];

fn normal(count: usize, seed: u64) -> Vec<f32> {
    let mut random = SeededRng::new(seed, &["reduced"]);
    (0..count).map(|_| random.standard_normal()).collect()
}

/// Weights of every format; those of k-quants are random bytes.
pub fn test_weights(format: QuantFormat, [output, input]: [usize; 2]) -> QuantizedWeight {
    let values = normal(output * input, 1);
    if format == QuantFormat::Q7Group64 {
        return QuantizedWeight::quantize(QuantFormat::F16, &values, output, input).int8_copy(Isa::detect());
    }
    if !format.is_k_quant() {
        return QuantizedWeight::quantize(format, &values, output, input);
    }
    let input = input.next_multiple_of(format.file_block_size());
    let bytes: Vec<u8> = (0..output).flat_map(|row| gguf_row(format, input, row)).collect();
    QuantizedWeight::from_rows(format, [output, input], &bytes)
}

fn dequantized(weights: &QuantizedWeight) -> Vec<f32> {
    let mut values = vec![0.0; weights.out_features() * weights.in_features()];
    values.chunks_exact_mut(weights.in_features()).enumerate().for_each(|(row, out)| weights.dequantize_row(row, out));
    values
}

/// Calls `check` for every instruction set, format and shape.
fn for_every_case(mut check: impl FnMut(Isa, &QuantizedWeight)) {
    for format in QuantFormat::ALL {
        for shape in SHAPES {
            let weights = test_weights(format, shape);
            Isa::available().into_iter().for_each(|isa| check(isa, &weights));
        }
    }
}

fn multiply(isa: Isa, weights: &QuantizedWeight, x: &[f32], init: AccumulatorInit, initial: f32) -> Vec<f32> {
    let rows = x.len() / weights.in_features();
    let mut out = vec![initial; rows * weights.out_features()];
    weights.multiply(isa, x, init, &mut ColumnSlice::new(&mut out, rows, weights.out_features()));
    out
}

fn assert_near(value: f32, expected: f64, size: f64) {
    assert!((f64::from(value) - expected).abs() <= 1e-6 * size, "{value} is not {expected} of {size}");
}

#[test]
fn products_match_those_of_the_dequantized_weights() {
    for_every_case(|isa, weights| {
        let (output, input) = (weights.out_features(), weights.in_features());
        let (dequantized_weights, bias) = (dequantized(weights), normal(output, 3));
        for rows in [1, 2, 3, 5, 12, 13, 50] {
            let x = normal(rows * input, 2);
            for init in [AccumulatorInit::Zero, AccumulatorInit::Bias(&bias), AccumulatorInit::Output] {
                let out = multiply(isa, weights, &x, init, 0.5);
                for (index, value) in out.iter().enumerate() {
                    let (x, w) = (
                        &x[index / output * input..][..input],
                        &dequantized_weights[index % output * input..][..input],
                    );
                    let initial = match init {
                        AccumulatorInit::Zero => 0.0,
                        AccumulatorInit::Bias(bias) => f64::from(bias[index % output]),
                        AccumulatorInit::Output => 0.5,
                    };
                    let products = || x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                    let size = initial.abs() + products().map(f64::abs).sum::<f64>();
                    assert_near(*value, initial + products().sum::<f64>(), size);
                }
            }
        }
    });
}

#[test]
fn gradients_match_those_of_the_dequantized_weights() {
    for_every_case(|isa, weights| {
        let (output, input) = (weights.out_features(), weights.in_features());
        let dequantized_weights = dequantized(weights);
        for rows in [1, 7, 61] {
            let gradient = normal(rows * output, 2);
            for (init, initial) in [(AccumulatorInit::Zero, 0.0), (AccumulatorInit::Output, 0.5)] {
                let mut out = vec![0.5; rows * input];
                weights.backward_input(isa, &gradient, init, &mut out);
                for (index, value) in out.iter().enumerate() {
                    let dy = &gradient[index / input * output..][..output];
                    let w = dequantized_weights[index % input..].iter().step_by(input);
                    let products = || dy.iter().zip(w.clone()).map(|(dy, w)| f64::from(*dy) * f64::from(*w));
                    let size = initial + products().map(f64::abs).sum::<f64>();
                    assert_near(*value, initial + products().sum::<f64>(), size);
                }
            }
        }
    });
}

#[test]
fn a_row_has_the_same_bits_in_every_batch_and_position() {
    for_every_case(|isa, weights| {
        let (output, input) = (weights.out_features(), weights.in_features());
        let (x, bias) = (normal(80 * input, 2), normal(output, 3));
        let alone: Vec<f32> =
            x.chunks_exact(input).flat_map(|x| multiply(isa, weights, x, AccumulatorInit::Bias(&bias), 0.0)).collect();
        for (first_row, rows) in [(0, 80), (3, 2), (40, 3), (7, 4), (1, 11), (60, 12), (5, 13), (9, 61)] {
            let x = &x[first_row * input..(first_row + rows) * input];
            let batch = multiply(isa, weights, x, AccumulatorInit::Bias(&bias), 0.0);
            assert_eq!(batch, alone[first_row * output..(first_row + rows) * output]);
        }
    });
}

#[test]
fn gradients_have_the_same_bits_in_every_batch() {
    for_every_case(|isa, weights| {
        let (output, input) = (weights.out_features(), weights.in_features());
        let gradient = normal(70 * output, 2);
        let mut batch = vec![0.0; 70 * input];
        weights.backward_input(isa, &gradient, AccumulatorInit::Zero, &mut batch);
        for row in [0, 1, 33, 69] {
            let mut alone = vec![0.0; input];
            weights.backward_input(isa, &gradient[row * output..(row + 1) * output], AccumulatorInit::Zero, &mut alone);
            assert_eq!(alone, batch[row * input..(row + 1) * input]);
        }
    });
}

#[test]
fn columns_have_the_same_bits_for_every_split() {
    for_every_case(|isa, weights| {
        let (output, input) = (weights.out_features(), weights.in_features());
        for rows in [1, 2, 9, 30] {
            let x = normal(rows * input, 2);
            let full_product = multiply(isa, weights, &x, AccumulatorInit::Zero, 0.0);
            for split_column in (0..=output).step_by(32) {
                let mut out = vec![f32::NAN; rows * output];
                let (mut left, mut right) = ColumnSlice::new(&mut out, rows, output).split_at(split_column);
                std::thread::scope(|scope| {
                    scope.spawn(|| weights.multiply(isa, &x, AccumulatorInit::Zero, &mut left));
                    weights.multiply(isa, &x, AccumulatorInit::Zero, &mut right);
                });
                assert_eq!(out, full_product);
            }
        }
    });
}

#[test]
fn instruction_sets_with_fma_agree() {
    let isas: Vec<Isa> = Isa::available().into_iter().filter(|isa| !isa.is_portable()).collect();
    for format in QuantFormat::ALL {
        let weights = test_weights(format, [192, 576]);
        let x = normal(3 * weights.in_features(), 2);
        let outs: Vec<Vec<f32>> =
            isas.iter().map(|isa| multiply(*isa, &weights, &x, AccumulatorInit::Zero, 0.0)).collect();
        assert!(outs.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

/// Bytes of a row in file layout.
fn gguf_row(format: QuantFormat, input: usize, seed: usize) -> Vec<u8> {
    let block_bytes = format.file_block_bytes();
    let mut random = SeededRng::new(seed as u64, &["file"]);
    let byte_count = input / format.file_block_size() * block_bytes;
    let mut bytes: Vec<u8> = (0..byte_count).map(|_| random.next_u64() as u8).collect();
    for block in bytes.chunks_exact_mut(block_bytes) {
        // Scales and minima, or 16-bit values, are kept finite and of ordinary size.
        let scale_end_offsets: &[usize] = match format {
            QuantFormat::F16 | QuantFormat::Bf16 => &std::array::from_fn::<usize, 32, _>(|at| 2 * at + 1),
            QuantFormat::Q8_0 | QuantFormat::Q4_0 | QuantFormat::Q7Group64 => &[1],
            QuantFormat::Q4_1 | QuantFormat::Q5_1 | QuantFormat::Q4K | QuantFormat::Q5K => &[1, 3],
            QuantFormat::Q2K => &[81, 83],
            QuantFormat::Q3K => &[109],
            QuantFormat::Q6K => &[209],
        };
        scale_end_offsets.iter().for_each(|end| block[*end] = (block[*end] % 8) | 0x28);
    }
    bytes
}

#[test]
fn gguf_rows_are_stored_without_loss() {
    for format in QuantFormat::ALL {
        let (output, input) = (70, 768);
        let bytes: Vec<u8> = (0..output).flat_map(|row| gguf_row(format, input, row)).collect();
        let weights = QuantizedWeight::from_rows(format, [output, input], &bytes);
        let (mut out, mut expected) = (vec![0.0; input], vec![0.0; input]);
        for row in 0..output {
            weights.dequantize_row(row, &mut out);
            format.dequantize_row(&gguf_row(format, input, row), &mut expected);
            assert_eq!(out, expected);
            for index in 0..input / 32 {
                let file_block =
                    &gguf_row(format, input, row)[index / format.blocks_per_superblock() * format.file_block_bytes()..];
                let block = QuantBlock::parse(format, file_block, index % format.blocks_per_superblock());
                assert_eq!(weights.read_block(row, index), block);
            }
        }
    }
}

#[test]
fn a_product_with_a_one_hot_row_is_a_lookup() {
    for_every_case(|isa, weights| {
        let (output, input) = (weights.out_features(), weights.in_features());
        let dequantized_weights = dequantized(weights);
        for column in [0, input / 2, input - 1] {
            let mut x = vec![0.0; input];
            x[column] = 1.0;
            let out = multiply(isa, weights, &x, AccumulatorInit::Zero, 0.0);
            let expected: Vec<f32> = dequantized_weights[column..].iter().step_by(input).copied().collect();
            assert_eq!(out, expected);
            let mut gradient = vec![0.0; output];
            gradient[column % output] = 1.0;
            let mut out = vec![0.0; input];
            weights.backward_input(isa, &gradient, AccumulatorInit::Zero, &mut out);
            assert_eq!(out, dequantized_weights[column % output * input..][..input]);
        }
    });
}

#[test]
fn thread_pools_of_any_size_give_the_same_bits() {
    for threads in [1, 2, 3] {
        let spawn_thread = |_, work: Box<dyn FnOnce() + Send>| std::thread::Builder::new().spawn(work);
        let mut pool = SpinThreadPool::new(threads, spawn_thread).unwrap();
        for_every_case(|isa, weights| {
            let (output, input) = (weights.out_features(), weights.in_features());
            for rows in [1, 3, 40] {
                let (x, bias) = (normal(rows * input, 2), normal(output, 3));
                let mut out = vec![f32::NAN; rows * output];
                let whole = ColumnSlice::new(&mut out, rows, output);
                weights.parallel_columns(&mut pool, whole, |out| {
                    weights.multiply(isa, &x, AccumulatorInit::Bias(&bias), out);
                });
                assert_eq!(out, multiply(isa, weights, &x, AccumulatorInit::Bias(&bias), 0.0));
            }
        });
    }
}
