//! Products in whole numbers, for every form, shape and instruction set, against plain loops in `f64` on the same rounded rows.

use crate::cpu::Level;
use crate::cpu::product::Start;
use crate::cpu::reduced::{Form, Output, Reduced, Rounded};
use crate::cpu::team::Team;
use crate::random::Random;

const SHAPES: [[usize; 2]; 6] = [[1, 1], [17, 33], [64, 96], [33, 64], [192, 576], [100, 200]];

fn normal(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed, &["bytes"]);
    (0..count).map(|_| random.normal()).collect()
}

fn everything(mut check: impl FnMut(Level, &Reduced)) {
    for form in Form::ALL.into_iter().filter(|form| form.is_whole()) {
        for [output, input] in SHAPES {
            let weights = Reduced::round(form, &normal(output * input, 1), output, input);
            Level::all().into_iter().for_each(|level| check(level, &weights));
        }
    }
}

fn multiply(level: Level, weights: &Reduced, x: &[f32], start: Start) -> Vec<f32> {
    let rounded = Rounded::new(level, x, weights.input());
    let mut out = vec![0.5; rounded.rows() * weights.output()];
    weights.multiply_rounded(level, &rounded, start, &mut Output::new(&mut out, rounded.rows(), weights.output()));
    out
}

/// A row's numbers as its codes say them.
fn as_rounded(rounded: &Rounded, row: usize, input: usize) -> Vec<f64> {
    let number = |place: usize| {
        // SAFETY: a row has so many codes, and a head for each block.
        let (code, [scale, _]) = unsafe { (*rounded.codes(row).add(place), *rounded.heads(row).add(place / 32)) };
        f64::from(code) * f64::from(scale)
    };
    (0..input).map(number).collect()
}

#[test]
fn products_are_those_of_the_rounded_rows() {
    everything(|level, weights| {
        let (output, input) = (weights.output(), weights.input());
        let bias = normal(output, 3);
        let mut wide = vec![0.0; output * input];
        wide.chunks_exact_mut(input).enumerate().for_each(|(row, out)| weights.row(row, out));
        for rows in [1, 2, 3, 5, 6, 7, 13] {
            let x = normal(rows * input, 2);
            let rounded = Rounded::new(level, &x, input);
            for start in [Start::Zero, Start::Bias(&bias), Start::Output] {
                let out = multiply(level, weights, &x, start);
                for (place, value) in out.iter().enumerate() {
                    let (row, column) = (place / output, place % output);
                    let first = match start {
                        Start::Zero => 0.0,
                        Start::Bias(bias) => f64::from(bias[column]),
                        Start::Output => 0.5,
                    };
                    let left = as_rounded(&rounded, row, input);
                    let products = || left.iter().zip(&wide[column * input..]).map(|(x, w)| x * f64::from(*w));
                    let (expected, size) = (first + products().sum::<f64>(), products().map(f64::abs).sum::<f64>());
                    let bound = 1e-5 * (size + first.abs() + 1e-6);
                    assert!((f64::from(*value) - expected).abs() <= bound, "{level:?}: {value} is not {expected}");
                }
            }
        }
    });
}

#[test]
fn a_row_has_the_same_bits_in_every_batch_and_on_every_team() {
    let spawn = |_, work: Box<dyn FnOnce() + Send>| std::thread::Builder::new().spawn(work);
    let mut team = Team::new(2, spawn).unwrap();
    everything(|level, weights| {
        let (output, input) = (weights.output(), weights.input());
        let x = normal(20 * input, 2);
        let alone: Vec<f32> = x.chunks_exact(input).flat_map(|x| multiply(level, weights, x, Start::Zero)).collect();
        for (first, rows) in [(0, 20), (3, 2), (7, 4), (1, 11), (5, 13)] {
            let x = &x[first * input..(first + rows) * input];
            let expected = &alone[first * output..(first + rows) * output];
            assert_eq!(multiply(level, weights, x, Start::Zero), expected);
            let rounded = Rounded::new(level, x, input);
            let mut out = vec![f32::NAN; rows * output];
            let part = |out: &mut Output| weights.multiply_rounded(level, &rounded, Start::Zero, out);
            weights.share(&mut team, Output::new(&mut out, rows, output), part);
            assert_eq!(out, expected);
        }
    });
}

#[test]
fn instruction_sets_with_fused_arithmetic_agree() {
    let levels: Vec<Level> = Level::all().into_iter().filter(|level| !level.is_portable()).collect();
    for form in Form::ALL.into_iter().filter(|form| form.is_whole()) {
        let weights = Reduced::round(form, &normal(192 * 576, 1), 192, 576);
        let x = normal(3 * 576, 2);
        let outs: Vec<Vec<f32>> = levels.iter().map(|level| multiply(*level, &weights, &x, Start::Zero)).collect();
        assert!(outs.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

#[test]
fn rounding_costs_little() {
    let (weights, x) = (Reduced::round(Form::Q4_1, &normal(576 * 576, 1), 576, 576), normal(8 * 576, 2));
    let mut exact = vec![0.0; 8 * 576];
    weights.multiply(Level::best(), &x, Start::Zero, &mut Output::new(&mut exact, 8, 576));
    let near = multiply(Level::best(), &weights, &x, Start::Zero);
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>();
    let error =
        square(&mut exact.iter().zip(&near).map(|(exact, near)| exact - near)) / square(&mut exact.iter().copied());
    assert!(error.sqrt() < 0.01, "{}", error.sqrt());
}
