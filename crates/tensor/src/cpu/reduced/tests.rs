//! Every form, shape and instruction set against plain loops in `f64` on the widened weights.

use super::{Form, Output, Reduced};
use crate::cpu::Level;
use crate::cpu::product::Start;
use crate::cpu::team::Team;
use crate::random::Random;

const SHAPES: [[usize; 2]; 8] = [[1, 1], [17, 33], [31, 7], [64, 96], [33, 64], [192, 576], [100, 200], [40, 1536]];

fn normal(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed, &["reduced"]);
    (0..count).map(|_| random.normal()).collect()
}

fn weights(form: Form, [output, input]: [usize; 2]) -> Reduced {
    Reduced::round(form, &normal(output * input, 1), output, input)
}

fn widened(weights: &Reduced) -> Vec<f32> {
    let mut values = vec![0.0; weights.output() * weights.input()];
    values.chunks_exact_mut(weights.input()).enumerate().for_each(|(row, out)| weights.row(row, out));
    values
}

/// Every level, form and shape.
fn everything(mut check: impl FnMut(Level, &Reduced)) {
    for form in Form::ALL {
        for shape in SHAPES {
            let weights = weights(form, shape);
            Level::all().into_iter().for_each(|level| check(level, &weights));
        }
    }
}

fn multiply(level: Level, weights: &Reduced, x: &[f32], start: Start, before: f32) -> Vec<f32> {
    let rows = x.len() / weights.input();
    let mut out = vec![before; rows * weights.output()];
    weights.multiply(level, x, start, &mut Output::new(&mut out, rows, weights.output()));
    out
}

fn assert_near(value: f32, expected: f64, size: f64) {
    assert!((f64::from(value) - expected).abs() <= 1e-6 * size, "{value} is not {expected} of {size}");
}

#[test]
fn products_are_those_of_the_widened_weights() {
    everything(|level, weights| {
        let (output, input) = (weights.output(), weights.input());
        let (wide, bias) = (widened(weights), normal(output, 3));
        for rows in [1, 2, 3, 5, 12, 13, 50] {
            let x = normal(rows * input, 2);
            for start in [Start::Zero, Start::Bias(&bias), Start::Output] {
                let out = multiply(level, weights, &x, start, 0.5);
                for (place, value) in out.iter().enumerate() {
                    let (x, w) = (&x[place / output * input..][..input], &wide[place % output * input..][..input]);
                    let first = match start {
                        Start::Zero => 0.0,
                        Start::Bias(bias) => f64::from(bias[place % output]),
                        Start::Output => 0.5,
                    };
                    let products = || x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                    let size = first.abs() + products().map(f64::abs).sum::<f64>();
                    assert_near(*value, first + products().sum::<f64>(), size);
                }
            }
        }
    });
}

#[test]
fn gradients_are_those_of_the_widened_weights() {
    everything(|level, weights| {
        let (output, input) = (weights.output(), weights.input());
        let wide = widened(weights);
        for rows in [1, 7, 61] {
            let gradient = normal(rows * output, 2);
            for (start, first) in [(Start::Zero, 0.0), (Start::Output, 0.5)] {
                let mut out = vec![0.5; rows * input];
                weights.backward(level, &gradient, start, &mut out);
                for (place, value) in out.iter().enumerate() {
                    let dy = &gradient[place / input * output..][..output];
                    let w = wide[place % input..].iter().step_by(input);
                    let products = || dy.iter().zip(w.clone()).map(|(dy, w)| f64::from(*dy) * f64::from(*w));
                    let size = first + products().map(f64::abs).sum::<f64>();
                    assert_near(*value, first + products().sum::<f64>(), size);
                }
            }
        }
    });
}

#[test]
fn a_row_has_the_same_bits_in_every_batch_and_place() {
    everything(|level, weights| {
        let (output, input) = (weights.output(), weights.input());
        let (x, bias) = (normal(80 * input, 2), normal(output, 3));
        let alone: Vec<f32> =
            x.chunks_exact(input).flat_map(|x| multiply(level, weights, x, Start::Bias(&bias), 0.0)).collect();
        for (first, rows) in [(0, 80), (3, 2), (40, 3), (7, 4), (1, 11), (60, 12), (5, 13), (9, 61)] {
            let x = &x[first * input..(first + rows) * input];
            let batch = multiply(level, weights, x, Start::Bias(&bias), 0.0);
            assert_eq!(batch, alone[first * output..(first + rows) * output]);
        }
    });
}

#[test]
fn gradients_have_the_same_bits_in_every_batch() {
    everything(|level, weights| {
        let (output, input) = (weights.output(), weights.input());
        let gradient = normal(70 * output, 2);
        let mut batch = vec![0.0; 70 * input];
        weights.backward(level, &gradient, Start::Zero, &mut batch);
        for row in [0, 1, 33, 69] {
            let mut alone = vec![0.0; input];
            weights.backward(level, &gradient[row * output..(row + 1) * output], Start::Zero, &mut alone);
            assert_eq!(alone, batch[row * input..(row + 1) * input]);
        }
    });
}

#[test]
fn columns_have_the_same_bits_wherever_they_are_cut() {
    everything(|level, weights| {
        let (output, input) = (weights.output(), weights.input());
        for rows in [1, 2, 9, 30] {
            let x = normal(rows * input, 2);
            let whole = multiply(level, weights, &x, Start::Zero, 0.0);
            for cut in (0..=output).step_by(32) {
                let mut out = vec![f32::NAN; rows * output];
                let (mut left, mut right) = Output::new(&mut out, rows, output).split_at(cut);
                std::thread::scope(|scope| {
                    scope.spawn(|| weights.multiply(level, &x, Start::Zero, &mut left));
                    weights.multiply(level, &x, Start::Zero, &mut right);
                });
                assert_eq!(out, whole);
            }
        }
    });
}

#[test]
fn instruction_sets_with_fused_arithmetic_agree() {
    let levels: Vec<Level> = Level::all().into_iter().filter(|level| !level.is_portable()).collect();
    for form in Form::ALL {
        let weights = weights(form, [192, 576]);
        let x = normal(3 * 576, 2);
        let outs: Vec<Vec<f32>> = levels.iter().map(|level| multiply(*level, &weights, &x, Start::Zero, 0.0)).collect();
        assert!(outs.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

/// A file's bytes of a row, and what they mean.
fn file_row(form: Form, input: usize, seed: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..input / 32 * form.file_bytes()).map(|at| ((at + seed) * 7919 % 251) as u8).collect();
    for block in bytes.chunks_exact_mut(form.file_bytes()) {
        // scales and minima that are ordinary numbers, or whole 16-bit numbers
        let ends: &[usize] = match form {
            Form::F16 | Form::Bf16 => &std::array::from_fn::<usize, 32, _>(|at| 2 * at + 1),
            Form::Q8_0 | Form::Q4_0 => &[1],
            Form::Q4_1 => &[1, 3],
            Form::Wide4 => &[3, 7],
            Form::Wide8 => &[3, 7, 11, 15],
        };
        ends.iter().for_each(|end| block[*end] = (block[*end] % 8) | 0x28);
    }
    bytes
}

#[test]
fn rows_of_a_file_are_kept_as_they_are() {
    for form in Form::ALL {
        let (output, input) = (70, 160);
        let mut weights = Reduced::new(form, output, input);
        // in any order, and twice
        for row in (0..output).rev().chain([3]) {
            weights.copy_row(row, &file_row(form, input, row));
        }
        let mut out = vec![0.0; input];
        for row in 0..output {
            weights.row(row, &mut out);
            let bytes = file_row(form, input, row);
            let blocks = bytes.chunks_exact(form.file_bytes());
            let expected: Vec<f32> =
                blocks.flat_map(|bytes| super::blocks::Block::parse(form, bytes).widened(form)).collect();
            assert_eq!(out, expected);
        }
    }
}

#[test]
fn a_product_with_one_of_the_identitys_rows_is_a_lookup() {
    everything(|level, weights| {
        let (output, input) = (weights.output(), weights.input());
        let wide = widened(weights);
        for column in [0, input / 2, input - 1] {
            let mut x = vec![0.0; input];
            x[column] = 1.0;
            let out = multiply(level, weights, &x, Start::Zero, 0.0);
            let expected: Vec<f32> = wide[column..].iter().step_by(input).copied().collect();
            assert_eq!(out, expected);
            let mut gradient = vec![0.0; output];
            gradient[column % output] = 1.0;
            let mut out = vec![0.0; input];
            weights.backward(level, &gradient, Start::Zero, &mut out);
            assert_eq!(out, wide[column % output * input..][..input]);
        }
    });
}

#[test]
fn teams_of_any_size_give_the_same_bits() {
    for threads in [1, 2, 3] {
        let spawn = |_, work: Box<dyn FnOnce() + Send>| std::thread::Builder::new().spawn(work);
        let mut team = Team::new(threads, spawn).unwrap();
        everything(|level, weights| {
            let (output, input) = (weights.output(), weights.input());
            for rows in [1, 3, 40] {
                let (x, bias) = (normal(rows * input, 2), normal(output, 3));
                let mut out = vec![f32::NAN; rows * output];
                let whole = Output::new(&mut out, rows, output);
                weights.share(&mut team, whole, |out| weights.multiply(level, &x, Start::Bias(&bias), out));
                assert_eq!(out, multiply(level, weights, &x, Start::Bias(&bias), 0.0));
            }
        });
    }
}
