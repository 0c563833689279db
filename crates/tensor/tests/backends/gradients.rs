//! The backward pass of each operation agrees with finite differences, on every backend.
//!
//! A trainable dense layer computes the operation's input, and the loss is a fixed random projection of its output, so
//! the layer's gradients are right only if the operation's are.
mod rotary;

use espalier_tensor::backend::candle::CandleBackend;
use espalier_tensor::backend::cpu::{CpuBackend, Isa};
use espalier_tensor::backend::{Activation, FrozenLinear, FrozenNorm, NormKind, PoolingKind, PrependedRows};
use espalier_tensor::error::Result;
use espalier_tensor::seeded_rng::SeededRng;
use espalier_tensor::{Backend, Dropout, ParamId, RaggedLayout, Recording, Tape, Tensor, Var, backend};
use std::sync::Arc;

const WIDTH: usize = 8;
/// Uncertainty of differences of `f32` losses (the gradient of a key's bias is zero by nature).
const ROUNDING: f32 = 3e-4;
/// One long sequence, two of one token, and neighbouring sequences of equal length.
const LENGTHS: [usize; 6] = [5, 1, 1, 3, 3, 7];

struct GradientCheck {
    backend: Arc<dyn Backend>,
    layout: Arc<RaggedLayout>,
    input: Tensor,
    random: SeededRng,
}

/// Dense layers: query, key and value, or whatever an operation takes.
const LAYERS: usize = 3;

impl GradientCheck {
    fn new(name: &str, backend: Arc<dyn Backend>) -> Self {
        let layout = Arc::new(RaggedLayout::from_lengths(LENGTHS));
        let mut random = SeededRng::new(3, &[name]);
        let input = tensor(&mut random, [layout.num_rows(), WIDTH], 1.0);
        Self { backend, layout, input, random }
    }

    fn parameters(&mut self) -> Vec<Tensor> {
        let layer = |random: &mut SeededRng| [tensor(random, [WIDTH, WIDTH], 0.5), tensor(random, [WIDTH], 0.5)];
        let mut parameters: Vec<Tensor> = (0..LAYERS).flat_map(|_| layer(&mut self.random)).collect();
        parameters.push(tensor(&mut self.random, [2, WIDTH], 0.5));
        parameters.push(tensor(&mut self.random, [WIDTH, 2], 0.5));
        parameters
    }

    fn tape(&self, parameters: &[Tensor]) -> Tape {
        let uploaded = self.backend.upload_parameters(parameters).unwrap();
        let examples = (0..LENGTHS.len() as u64).collect();
        Tape::new(
            Arc::clone(&self.backend),
            uploaded,
            Recording::On(Dropout { seed: 1, step: 2, example_ids: examples }),
        )
    }

    fn run(&self, tape: &mut Tape, operation: &Operation) -> Var {
        let input = self.backend.upload(&self.input).unwrap();
        let input = tape.constant(input, Arc::clone(&self.layout));
        let dense = |layer: usize, tape: &mut Tape| {
            tape.dense(input, ParamId::new(2 * layer), ParamId::new(2 * layer + 1)).unwrap()
        };
        let inputs = [dense(0, tape), dense(1, tape), dense(2, tape)];
        operation(tape, inputs).unwrap()
    }

    fn loss(&self, parameters: &[Tensor], operation: &Operation, projection: &[f32]) -> f64 {
        let mut tape = self.tape(parameters);
        let output = self.run(&mut tape, operation);
        let output = tape.to_host(output).unwrap();
        output.values.iter().zip(projection).map(|(value, weight)| f64::from(*value) * f64::from(*weight)).sum()
    }
}

type Operation = dyn Fn(&mut Tape, [Var; 3]) -> Result<Var>;

/// The candle backend, and the CPU backend with every instruction set of this machine.
fn backends() -> Vec<Arc<dyn Backend>> {
    let cpu = Isa::available().into_iter().map(|level| Arc::new(CpuBackend::with_isa(level)) as Arc<dyn Backend>);
    std::iter::once(Arc::new(CandleBackend::cpu()) as Arc<dyn Backend>).chain(cpu).collect()
}

fn tensor(random: &mut SeededRng, shape: impl Into<Vec<usize>>, deviation: f32) -> Tensor {
    let shape = shape.into();
    let values = (0..shape.iter().product()).map(|_| random.standard_normal() * deviation).collect();
    Tensor::new(shape, values)
}

fn check(name: &str, operation: impl Fn(&mut Tape, [Var; 3]) -> Result<Var> + Copy + 'static) {
    check_with(name, |_| Box::new(operation));
}

/// For operations with frozen weights, which belong to the backend that uploaded them.
fn check_with(name: &str, operation: impl Fn(&dyn Backend) -> Box<Operation>) {
    for backend in backends() {
        let operation = operation(backend.as_ref());
        check_on(name, backend, operation.as_ref());
    }
}

fn check_on(name: &str, backend: Arc<dyn Backend>, operation: &Operation) {
    let mut check = GradientCheck::new(name, backend);
    let parameters = check.parameters();
    let mut tape = check.tape(&parameters);
    let output = check.run(&mut tape, operation);
    let shape = tape.to_host(output).unwrap().shape;
    let projection = tensor(&mut check.random, shape, 1.0);
    let gradients = tape.backward(output, check.backend.upload(&projection).unwrap()).unwrap();
    let mut compared = 0;
    for (index, gradient) in gradients.iter().enumerate() {
        let Some(gradient) = gradient else { continue };
        let gradient = check.backend.download(gradient).unwrap();
        let largest = gradient.values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        for element in [0, 3, gradient.values.len() - 1] {
            let step = 3e-3f32;
            let mut moved = parameters.clone();
            moved[index].values[element] += step;
            let above = check.loss(&moved, operation, &projection.values);
            moved[index].values[element] -= 2.0 * step;
            let below = check.loss(&moved, operation, &projection.values);
            let expected = ((above - below) / (2.0 * f64::from(step))) as f32;
            let found = gradient.values[element];
            assert!(
                (found - expected).abs() <= 0.01 * largest + ROUNDING,
                "{name}, parameter {index}: {found} is not {expected}"
            );
            compared += 1;
        }
    }
    assert!(compared >= 6, "{name}: at least a weight and a bias were compared");
}

const ACTIVATIONS: [(&str, Activation); 5] = [
    ("gelu", Activation::Gelu),
    ("gelu by tanh", Activation::GeluTanh),
    ("tanh", Activation::Tanh),
    ("relu", Activation::Relu),
    ("silu", Activation::Silu),
];

fn linear(backend: &dyn Backend) -> Arc<FrozenLinear> {
    let mut random = SeededRng::new(9, &["linear"]);
    let weight = tensor(&mut random, [WIDTH, WIDTH], 0.5);
    let bias = tensor(&mut random, [WIDTH], 0.5);
    Arc::new(backend.freeze_linear(weight, Some(bias)).unwrap())
}

fn norm(backend: &dyn Backend, form: NormKind) -> Arc<FrozenNorm> {
    let mut random = SeededRng::new(9, &["norm"]);
    let (gain, shift) = (tensor(&mut random, [WIDTH], 1.0), tensor(&mut random, [WIDTH], 1.0));
    Arc::new(backend.freeze_norm(form, gain, shift, 1e-12).unwrap())
}

#[test]
fn a_frozen_linear_map() {
    check_with("linear", |backend| {
        let map = linear(backend);
        Box::new(move |tape, [x, ..]| tape.linear(x, &map))
    });
}

#[test]
fn a_low_rank_map() {
    let [a, b] = [2 * LAYERS, 2 * LAYERS + 1].map(ParamId::new);
    check("low rank", move |tape, [x, y, _]| tape.lora_add(y, x, a, b, 1.5));
}

#[test]
fn a_value_used_by_several() {
    let [a, b] = [2 * LAYERS, 2 * LAYERS + 1].map(ParamId::new);
    check_with("several", |backend| {
        let (map, norm) = (linear(backend), norm(backend, NormKind::LayerNorm));
        Box::new(move |tape, [x, y, _]| {
            let mapped = tape.linear(x, &map)?;
            let adapted = tape.lora_add(mapped, x, a, b, 0.5)?;
            let normed = tape.norm(adapted, Some(x), &norm)?;
            tape.norm(normed, Some(y), &norm)
        })
    });
}

#[test]
fn norms() {
    for form in [NormKind::LayerNorm, NormKind::RmsNorm] {
        check_with("norm", |backend| {
            let norm = norm(backend, form);
            Box::new(move |tape, [x, ..]| tape.norm(x, None, &norm))
        });
        check_with("norm of a sum", |backend| {
            let norm = norm(backend, form);
            Box::new(move |tape, [x, y, _]| tape.norm(x, Some(y), &norm))
        });
    }
}

#[test]
fn activations() {
    for (name, activation) in ACTIVATIONS {
        check(name, move |tape, [x, ..]| tape.activate(activation, x));
    }
}

#[test]
fn attention_over_ragged_sequences() {
    check("attention", move |tape, [q, k, v]| tape.attention(q, k, v, 2));
}

/// Parameters that operations read as rows: a bias, and the matrix (2, WIDTH).
const VECTOR: usize = 1;
const MATRIX: usize = 2 * LAYERS;

#[test]
fn per_channel_scale_and_shift() {
    check("scale columns", move |tape, [x, ..]| {
        let factors = tape.parameter(ParamId::new(VECTOR))?;
        tape.scale_channels(x, factors)
    });
    check("add columns", move |tape, [x, ..]| {
        let shifts = tape.parameter(ParamId::new(VECTOR))?;
        tape.add_channels(x, shifts)
    });
    check("add rows", move |tape, [x, y, _]| {
        let copy = tape.copy(x)?;
        let sum = tape.add_rows_scaled(copy, y, 0.7)?;
        tape.add_rows_scaled(sum, x, 1.0)
    });
}

#[test]
fn prepended_rows() {
    check("prepend", move |tape, [x, y, _]| {
        let rows = tape.parameter(ParamId::new(MATRIX))?;
        let sequences = 0..LENGTHS.len();
        let key = tape.prepend_rows(x, &[PrependedRows { sequences, rows }])?;
        tape.attention(y, key, key, 2)
    });
    check("the mean of real tokens", move |tape, [x, ..]| {
        let rows = tape.parameter(ParamId::new(MATRIX))?;
        let all = tape.prepend_rows(x, &[PrependedRows { sequences: 0..LENGTHS.len(), rows }])?;
        let attended = tape.attention(all, all, all, 2)?;
        tape.pool(attended, PoolingKind::Mean)
    });
}

#[test]
fn dora_weight_norms() {
    for backend in backends() {
        let mut random = SeededRng::new(9, &["lengths"]);
        let [weight, bias, a, b] =
            [vec![20, 24], vec![20], vec![3, 24], vec![20, 3]].map(|shape| tensor(&mut random, shape, 0.5));
        let map = backend.freeze_linear(weight.clone(), Some(bias)).unwrap();
        let parameters = backend.upload_parameters(&[a.clone(), b.clone()]).unwrap();
        let found = backend::weight_row_norms(backend.as_ref(), &map, &parameters[0], &parameters[1], 0.7).unwrap();
        for (row, found) in found.values.iter().enumerate() {
            let update = |column: usize| (0..3).map(|r| b.values[row * 3 + r] * a.values[r * 24 + column]).sum::<f32>();
            let square: f32 =
                (0..24).map(|column| (weight.values[row * 24 + column] + 0.7 * update(column)).powi(2)).sum();
            assert!((found - square.sqrt()).abs() < 1e-5, "{}: {found}, not {}", backend.name(), square.sqrt());
        }
    }
}

#[test]
fn row_gather() {
    check("pick", move |tape, [x, ..]| {
        // The last row of each sequence, and its first twice.
        let which = LENGTHS.map(|length| [length as u32 - 1, 0, 0]);
        tape.gather_rows(x, which.iter().map(<[u32; 3]>::as_slice))
    });
}

#[test]
fn pooling() {
    check("mean", move |tape, [x, ..]| tape.pool(x, PoolingKind::Mean));
    check("first", move |tape, [x, ..]| tape.pool(x, PoolingKind::First));
}

#[test]
fn dropout_with_its_mask_fixed() {
    check("dropout", move |tape, [x, ..]| tape.dropout(x, 0.3, 7));
}

#[test]
fn cross_entropy_and_its_gradient() {
    let mut random = SeededRng::new(4, &["logits"]);
    let backend = CandleBackend::cpu();
    let logits = tensor(&mut random, [6, 5], 2.0);
    let labels = [0, 4, 2, 2, 1, 3];
    let loss = |logits: &Tensor| backend.cross_entropy(&backend.upload(logits).unwrap(), &labels).unwrap();
    let gradient = backend.download(&loss(&logits).gradient).unwrap();
    for element in 0..logits.values.len() {
        let mut moved = logits.clone();
        moved.values[element] += 1e-2;
        let above: f64 = loss(&moved).losses.iter().sum();
        moved.values[element] -= 2e-2;
        let below: f64 = loss(&moved).losses.iter().sum();
        let expected = (above - below) / 2e-2;
        assert!((f64::from(gradient.values[element]) - expected).abs() < 2e-3);
    }
}

#[test]
fn dropout_mask_depends_only_on_the_example() {
    let backend: Arc<dyn Backend> = Arc::new(CandleBackend::cpu());
    let masked = |examples: Vec<u64>, lengths: &[usize]| {
        let layout = Arc::new(RaggedLayout::from_lengths(lengths.iter().copied()));
        let ones = Tensor::new([layout.num_rows(), WIDTH], vec![1.0; layout.num_rows() * WIDTH]);
        let dropout = Dropout { seed: 1, step: 2, example_ids: examples };
        let mut tape = Tape::new(Arc::clone(&backend), Arc::from([]), Recording::On(dropout));
        let rows = tape.constant(backend.upload(&ones).unwrap(), layout);
        let rows = tape.dropout(rows, 0.5, 3).unwrap();
        tape.to_host(rows).unwrap().values
    };
    let together = masked(vec![10, 20], &[3, 4]);
    assert_eq!(together[3 * WIDTH..], masked(vec![20], &[4]));
    let kept = together.iter().filter(|value| **value > 0.0).count();
    assert!((14..=42).contains(&kept), "about half of 56 are kept: {kept}");
}

#[test]
fn row_depends_only_on_its_own_sequence() {
    let backend: Arc<dyn Backend> = Arc::new(CandleBackend::cpu());
    let mut random = SeededRng::new(5, &["rows"]);
    let layout = Arc::new(RaggedLayout::from_lengths([2, 4, 4, 1]));
    let all = tensor(&mut random, [layout.num_rows(), WIDTH], 1.0);
    let attended = |rows: Tensor, layout: Arc<RaggedLayout>| {
        let mut tape = Tape::new(Arc::clone(&backend), Arc::from([]), Recording::Off);
        let rows = tape.constant(backend.upload(&rows).unwrap(), layout);
        let rows = tape.attention(rows, rows, rows, 2).unwrap();
        tape.to_host(rows).unwrap().values
    };
    let together = attended(all.clone(), Arc::clone(&layout));
    for (sequence, range) in layout.row_ranges().enumerate() {
        let own = range.start * WIDTH..range.end * WIDTH;
        let rows = Tensor::new([range.len(), WIDTH], all.values[own.clone()].to_vec());
        let alone = attended(rows, Arc::new(RaggedLayout::from_lengths([range.len()])));
        let difference = alone.iter().zip(&together[own]).map(|(alone, mixed)| (alone - mixed).abs());
        assert!(difference.fold(0.0, f32::max) < 1e-5, "sequence {sequence}");
    }
}
