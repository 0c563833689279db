//! softmax(Q·Kᵀ/√d)·V within each sequence and head (Vaswani et al. 2017), and its backward pass.
//!
//! One sequence and one head at a time, on scratch that stays in the cache; nothing is padded or masked but the lanes
//! beyond a sequence's end.

use super::lanes::{Lanes, Level, Work};
use super::memory::{Draft, Matrix};
use super::panels;
use super::product::{Left, Product, Right, Start};
use super::shade::Shade;
use super::softmax::{softmax, stride, through_softmax};
use crate::compute::Packed;
use crate::compute::distance::Near;
use std::ops::Range;

/// Longer sequences' probabilities are not kept for the backward pass, but computed once more.
const KEPT_LENGTH: usize = 256;

#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// `(rows, heads · head width)`
    pub query: &'a Matrix,
    /// Each with as many heads, or fewer: a head's queries then share keys and values with those beside it.
    pub key: &'a Matrix,
    pub value: &'a Matrix,
    /// The sequences' rows in `query`.
    pub asking: &'a Packed,
    /// Their rows in `key` and `value`.
    pub layout: &'a Packed,
    pub heads: usize,
    pub near: Option<Near<'a>>,
}

/// A sequence's rows of one head.
#[derive(Clone)]
struct Place {
    asking: Range<usize>,
    asked: Range<usize>,
    head: usize,
    /// First column of the queries, and of the keys and values.
    column: usize,
    shared: usize,
    /// Whether it is the first that reads these keys and values.
    leads: bool,
    /// Keys in front of the sequence's own, where distances count, and the place of the first row that asks.
    front: usize,
    first: usize,
    /// Where the probabilities are kept; `None` where they are not.
    kept: Option<usize>,
}

impl<'a> Inputs<'a> {
    fn head_width(&self) -> usize {
        self.query.width() / self.heads
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_width() as f32).sqrt()
    }

    /// Heads of queries that share one of keys and values (Ainslie et al. 2023).
    fn group(&self) -> usize {
        self.query.width() / self.key.width()
    }

    fn places(&self) -> impl Iterator<Item = Place> {
        let (width, group) = (self.head_width(), self.group());
        let mut end = 0;
        let heads = self.heads;
        let near = self.near;
        self.asking.ranges().zip(self.layout.ranges()).enumerate().flat_map(move |(sequence, (asking, asked))| {
            let own = near.map_or(asked.len(), |near| near.own.length(sequence));
            let front = asked.len() - own;
            let first = near.map_or(0, |near| near.distance.first_asking(asking.len(), own));
            let (start, one) = (end, kept(&asking, &asked));
            end += heads * one.unwrap_or(0);
            (0..heads).map(move |head| Place {
                asking: asking.clone(),
                asked: asked.clone(),
                head,
                column: head * width,
                shared: head / group * width,
                leads: head % group == 0,
                front,
                first,
                kept: one.map(|one| start + head * one),
            })
        })
    }

    /// How many probabilities are kept.
    pub fn kept(&self) -> usize {
        let all = self.asking.ranges().zip(self.layout.ranges());
        all.filter_map(|(asking, asked)| kept(&asking, &asked)).map(|one| self.heads * one).sum()
    }

    /// What distances do to the scores of a place.
    fn shade(&self, place: &Place) -> Option<Shade<'a>> {
        let near = self.near?;
        Some(Shade::new(near.distance, place.head, (place.front, place.first), self.scale()))
    }

    fn longest(&self) -> usize {
        self.layout.ranges().map(|rows| rows.len()).max().unwrap_or(0)
    }
}

/// How many probabilities of a sequence are kept for each head, if any.
fn kept(asking: &Range<usize>, asked: &Range<usize>) -> Option<usize> {
    (asked.len() <= KEPT_LENGTH).then(|| stride(asked.len()) * asking.len())
}

/// What one head of one sequence is computed with.
struct Bench<'a> {
    level: Level,
    inputs: Inputs<'a>,
    width: usize,
    /// For keys, sixteen rows side by side.
    panels: Draft,
}

/// A head's columns of some rows.
struct Own<'a> {
    along: &'a Range<usize>,
    matrix: &'a Matrix,
    column: usize,
    width: usize,
}

/// Where a head's rows go.
struct To<'a> {
    rows: &'a Range<usize>,
    column: usize,
    /// Whether they are added to what is there.
    onto: bool,
}

impl<'a> Bench<'a> {
    fn new(level: Level, inputs: Inputs<'a>) -> Self {
        let width = inputs.head_width();
        Self { level, inputs, width, panels: Draft::new(stride(inputs.longest()), width) }
    }

    /// `out = left·rightᵀ` of one head: `right`'s rows become panels first, sixteen rows side by side.
    fn scores(&mut self, left: &Matrix, right: &Matrix, place: &Place, out: &mut [f32]) {
        let (length, width) = (place.asked.len(), self.width);
        let rows = place.asked.clone().map(|row| &right.row(row)[place.shared..place.shared + width]);
        let panels = self.panels.spacious();
        panels::fill(&mut panels[..stride(length) * width], width, rows);
        self.level.run(Product {
            rows: place.asking.len(),
            depth: width,
            columns: stride(length),
            left: Left::rows(&left.spacious()[place.asking.start * left.width() + place.column..], left.width()),
            right: Right::panels(panels, width),
            start: Start::Zero,
            out,
            out_step: stride(length),
        });
    }

    /// The probabilities of a head's rows.
    fn probabilities(&mut self, place: &Place, out: &mut [f32]) {
        self.scores(self.inputs.query, self.inputs.key, place, out);
        let (length, scale) = (place.asked.len(), self.inputs.scale());
        self.level.run(Softmax { scores: out, length, scale, shade: self.inputs.shade(place) });
    }

    /// `out = left·right` of one head, or added to it.
    fn weigh(&self, left: Left, right: &Own, to: &To, out: &mut Draft) {
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
    pub length: usize,
    pub scale: f32,
    pub shade: Option<Shade<'a>>,
}

impl Work for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: the caller's.
        unsafe { softmax::<L>(self.scores, self.length, self.scale, self.shade) }
    }
}

/// From gradients by probabilities to those by scores, in place.
struct ThroughSoftmax<'a> {
    gradients: &'a mut [f32],
    probabilities: &'a [f32],
    step: usize,
    scale: f32,
}

impl Work for ThroughSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: the caller's.
        unsafe { through_softmax::<L>(self.gradients, self.probabilities, self.step, self.scale) }
    }
}

/// With room for [`Inputs::kept`] probabilities, where they are to be kept.
pub fn forward(level: Level, inputs: Inputs, mut keep: Option<&mut Draft>) -> Matrix {
    let mut bench = Bench::new(level, inputs);
    let mut out = Draft::new(inputs.query.rows(), inputs.query.width());
    let mut own = Draft::new(inputs.longest(), stride(inputs.longest()));
    for place in inputs.places() {
        let (rows, step) = (place.asking.len(), stride(place.asked.len()));
        let room = match (&mut keep, place.kept) {
            (Some(keep), Some(start)) => &mut keep.spacious()[start..],
            _ => own.spacious(),
        };
        let probabilities = &mut room[..rows * step];
        bench.probabilities(&place, probabilities);
        let values = Own { along: &place.asked, matrix: inputs.value, column: place.shared, width: bench.width };
        let to = To { rows: &place.asking, column: place.column, onto: false };
        bench.weigh(Left::rows(probabilities, step), &values, &to, &mut out);
    }
    out.done()
}

/// dV = Pᵀ·dO, dP = dO·Vᵀ, dS = P·(dP − Σ dP·P), dQ = dS·K·s, dK = dSᵀ·Q·s: by query, key and value, given the gradient
/// `(tokens, hidden)` and what was kept.
pub fn backward(level: Level, inputs: Inputs, gradient: &Matrix, kept: &Matrix) -> [Matrix; 3] {
    let mut bench = Bench::new(level, inputs);
    let (width, scale) = (bench.width, inputs.scale());
    let draft = |like: &Matrix| Draft::new(like.rows(), like.width());
    let (mut by_query, mut by_key, mut by_value) = (draft(inputs.query), draft(inputs.key), draft(inputs.value));
    let longest = inputs.longest();
    let [mut own, mut by_scores] = std::array::from_fn(|_| Draft::new(longest, stride(longest)));
    for place in inputs.places() {
        let (rows, step) = (place.asking.len(), stride(place.asked.len()));
        let by_scores = &mut by_scores.spacious()[..rows * step];
        let probabilities = match place.kept {
            Some(start) => &kept.spacious()[start..start + rows * step],
            None => {
                let own = &mut own.spacious()[..rows * step];
                bench.probabilities(&place, own);
                own
            }
        };
        bench.scores(gradient, inputs.value, &place, by_scores);
        let asking = |matrix| Own { along: &place.asking, matrix, column: place.column, width };
        let shared = To { rows: &place.asked, column: place.shared, onto: !place.leads };
        bench.weigh(Left::columns(probabilities, step), &asking(gradient), &shared, &mut by_value);
        level.run(ThroughSoftmax { gradients: by_scores, probabilities, step, scale });
        let keys = Own { along: &place.asked, matrix: inputs.key, column: place.shared, width };
        let own = To { rows: &place.asking, column: place.column, onto: false };
        bench.weigh(Left::rows(by_scores, step), &keys, &own, &mut by_query);
        bench.weigh(Left::columns(by_scores, step), &asking(inputs.query), &shared, &mut by_key);
    }
    [by_query.done(), by_key.done(), by_value.done()]
}
