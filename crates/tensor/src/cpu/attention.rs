//! softmax(Q·Kᵀ/√d)·V within each sequence and head (Vaswani et al. 2017), and its backward pass.
//!
//! One sequence and one head at a time, on scratch that stays in the cache; nothing is padded or masked but the lanes
//! beyond a sequence's end. Where distances hide keys, rows are taken some at a time, each with the keys that they see.

mod places;

pub use places::Inputs;

use super::lanes::{Lanes, Level, Work};
use super::memory::{Draft, Matrix};
use super::panels;
use super::product::{Left, Product, Right, Start};
use super::shade::Shade;
use super::softmax::{softmax, stride, through_softmax};
use places::{Block, Place};
use std::ops::Range;

/// What one head of one sequence is computed with.
struct Bench<'a> {
    level: Level,
    inputs: Inputs<'a>,
    width: usize,
}

/// A head's keys, or values, sixteen rows side by side.
struct Turned(Draft);

/// A head's columns of some rows.
struct Own<'a> {
    along: Range<usize>,
    matrix: &'a Matrix,
    column: usize,
    width: usize,
}

/// Where a head's rows go.
struct To {
    rows: Range<usize>,
    column: usize,
    /// Whether they are added to what is there.
    onto: bool,
}

impl Turned {
    fn new(inputs: &Inputs) -> Self {
        Self(Draft::new(stride(inputs.longest()), inputs.head_width()))
    }

    /// Where heads share them, the first has turned them for all.
    fn turn(&mut self, matrix: &Matrix, place: &Place, width: usize) {
        if place.leads {
            let rows = place.asked.clone().map(|row| &matrix.row(row)[place.shared..place.shared + width]);
            panels::fill(&mut self.0.spacious()[..stride(place.asked.len()) * width], width, rows);
        }
    }
}

impl<'a> Bench<'a> {
    fn new(level: Level, inputs: Inputs<'a>) -> Self {
        Self { level, inputs, width: inputs.head_width() }
    }

    /// `out = left·rightᵀ` of a block's rows and keys; `out` begins with the first.
    fn scores(&self, left: &Matrix, right: &Turned, place: &Place, block: &Block, out: &mut [f32]) {
        let (width, rows) = (self.width, block.rows(&place.asking));
        self.level.run(Product {
            rows: rows.len(),
            depth: width,
            columns: stride(block.keys.len()),
            left: Left::rows(&left.spacious()[rows.start * left.width() + place.column..], left.width()),
            right: Right::panels(&right.0.all()[block.keys.start * width..], width),
            start: Start::Zero,
            out,
            out_step: stride(place.asked.len()),
        });
    }

    /// The probabilities of a block's rows, from its first key on.
    fn probabilities(&self, keys: &Turned, place: &Place, block: &Block, out: &mut [f32]) {
        self.scores(self.inputs.query, keys, place, block, out);
        let (step, length, scale) = (stride(place.asked.len()), block.keys.len(), self.inputs.scale());
        let shade = self.inputs.shade(place, block);
        self.level.run(Softmax { scores: out, step, length, scale, shade });
    }

    /// `out = left·right` of one head, or added to it.
    fn weigh(&self, left: Left, right: Own, to: To, out: &mut Draft) {
        let (hidden, step) = (right.matrix.width(), out.width());
        self.level.run(Product {
            rows: to.rows.len(),
            depth: right.along.len(),
            columns: right.width,
            left,
            right: Right::rows(&right.matrix.spacious()[right.along.start * hidden + right.column..], hidden),
            start: if to.onto { Start::Output } else { Start::Zero },
            out: &mut out.spacious()[to.rows.start * step + to.column..],
            out_step: step,
        });
    }
}

/// In place.
pub struct Softmax<'a> {
    pub scores: &'a mut [f32],
    /// From one row to the next.
    pub step: usize,
    pub length: usize,
    pub scale: f32,
    pub shade: Option<Shade<'a>>,
}

impl Work for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: the caller's.
        unsafe { softmax::<L>(self.scores, self.step, self.length, self.scale, self.shade) }
    }
}

/// From gradients by probabilities to those by scores, in place.
struct ThroughSoftmax<'a> {
    gradients: &'a mut [f32],
    probabilities: &'a [f32],
    step: usize,
    length: usize,
    scale: f32,
}

impl Work for ThroughSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: the caller's.
        unsafe { through_softmax::<L>(self.gradients, self.probabilities, self.step, self.length, self.scale) }
    }
}

/// With room for [`Inputs::kept`] probabilities, where they are to be kept.
pub fn forward(level: Level, inputs: Inputs, mut keep: Option<&mut Draft>) -> Matrix {
    let (bench, mut keys) = (Bench::new(level, inputs), Turned::new(&inputs));
    let width = bench.width;
    let mut out = Draft::new(inputs.query.rows(), inputs.query.width());
    let mut own = Draft::new(inputs.longest(), stride(inputs.longest()));
    for place in inputs.places() {
        let (rows, step) = (place.asking.len(), stride(place.asked.len()));
        let room = match (&mut keep, place.kept) {
            (Some(keep), Some(start)) => &mut keep.spacious()[start..],
            _ => own.spacious(),
        };
        let room = &mut room[..rows * step];
        keys.turn(inputs.key, &place, width);
        for block in inputs.blocks(&place) {
            let probabilities = &mut room[block.part(step)];
            bench.probabilities(&keys, &place, &block, probabilities);
            let along = block.keys(&place.asked);
            let values = Own { along, matrix: inputs.value, column: place.shared, width };
            let to = To { rows: block.rows(&place.asking), column: place.column, onto: false };
            bench.weigh(Left::rows(probabilities, step), values, to, &mut out);
        }
    }
    out.done()
}

/// dV = Pᵀ·dO, dP = dO·Vᵀ, dS = P·(dP − Σ dP·P), dQ = dS·K·s, dK = dSᵀ·Q·s: by query, key and value, given the gradient
/// `(tokens, hidden)` and what was kept.
pub fn backward(level: Level, inputs: Inputs, gradient: &Matrix, kept: &Matrix) -> [Matrix; 3] {
    let bench = Bench::new(level, inputs);
    let [mut keys, mut values] = std::array::from_fn(|_| Turned::new(&inputs));
    let (width, scale) = (bench.width, inputs.scale());
    let zeros = |like: &Matrix| Draft::zeros(like.rows(), like.width());
    let mut by_query = Draft::new(inputs.query.rows(), inputs.query.width());
    let (mut by_key, mut by_value) = (zeros(inputs.key), zeros(inputs.value));
    let longest = inputs.longest();
    let [mut own, mut by_scores] = std::array::from_fn(|_| Draft::new(longest, stride(longest)));
    for place in inputs.places() {
        let (rows, step) = (place.asking.len(), stride(place.asked.len()));
        values.turn(inputs.value, &place, width);
        if place.kept.is_none() {
            keys.turn(inputs.key, &place, width);
        }
        for block in inputs.blocks(&place) {
            let (part, length) = (block.part(step), block.keys.len());
            let probabilities = match place.kept {
                Some(start) => &kept.spacious()[start..start + rows * step][part.clone()],
                None => {
                    let own = &mut own.spacious()[part.clone()];
                    bench.probabilities(&keys, &place, &block, own);
                    own
                }
            };
            let by_scores = &mut by_scores.spacious()[part];
            bench.scores(gradient, &values, &place, &block, by_scores);
            let (asking, asked) = (|| block.rows(&place.asking), || block.keys(&place.asked));
            let of_rows = |matrix| Own { along: asking(), matrix, column: place.column, width };
            let onto_keys = || To { rows: asked(), column: place.shared, onto: true };
            bench.weigh(Left::columns(probabilities, step), of_rows(gradient), onto_keys(), &mut by_value);
            level.run(ThroughSoftmax { gradients: by_scores, probabilities, step, length, scale });
            let of_keys = Own { along: asked(), matrix: inputs.key, column: place.shared, width };
            let to_rows = To { rows: asking(), column: place.column, onto: false };
            bench.weigh(Left::rows(by_scores, step), of_keys, to_rows, &mut by_query);
            bench.weigh(Left::columns(by_scores, step), of_rows(inputs.query), onto_keys(), &mut by_key);
        }
    }
    [by_query.done(), by_key.done(), by_value.done()]
}
