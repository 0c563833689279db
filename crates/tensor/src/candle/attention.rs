//! Attention over packed sequences: neighbours of equal length run as one batch, so nothing is padded or masked.

use crate::distance::Near;
use crate::kernels::{Attention, AttentionSaved, Buffer, Storage};
use candle_core::{D, DType, Result, Tensor};

/// `(count, heads, length, head width)` from the packed rows of one run of sequences.
fn split(rows: &Tensor, run: Run, heads: usize) -> Result<Tensor> {
    let width = rows.dims()[1] / heads;
    rows.narrow(0, run.start, run.count * run.length)?
        .reshape((run.count, run.length, heads, width))?
        .transpose(1, 2)?
        .contiguous()
}

/// The inverse of [`split`]: `(count · length, hidden)`.
fn join(run: Run, parts: &Tensor) -> Result<Tensor> {
    let (_, heads, _, width) = parts.dims4()?;
    parts.transpose(1, 2)?.reshape((run.count * run.length, heads * width))
}

/// Rows of neighbouring sequences of equal length.
#[derive(Clone, Copy)]
struct Run {
    /// First row.
    start: usize,
    count: usize,
    length: usize,
}

/// The rows that ask, and those that are asked.
#[derive(Clone, Copy)]
struct Pair {
    asking: Run,
    asked: Run,
    /// Of those that are asked, the ones in front of a sequence's own.
    front: usize,
    /// Of the first that asks, among the sequence's own.
    first: usize,
}

fn runs(inputs: &Attention) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = Vec::new();
    for (sequence, (asking, asked)) in inputs.asking.ranges().zip(inputs.layout.ranges()).enumerate() {
        let own = inputs.near.map_or(asked.len(), |near| near.own.length(sequence));
        let front = asked.len() - own;
        let first = inputs.near.map_or(0, |near| near.distance.first_asking(asking.len(), own));
        let lengths = |pair: &Pair| (pair.asking.length, pair.asked.length, pair.front);
        match pairs.last_mut() {
            Some(last) if lengths(last) == (asking.len(), asked.len(), front) => {
                last.asking.count += 1;
                last.asked.count += 1;
            }
            _ => {
                let run = |rows: std::ops::Range<usize>| Run { start: rows.start, count: 1, length: rows.len() };
                pairs.push(Pair { asking: run(asking), asked: run(asked), front, first });
            }
        }
    }
    pairs
}

fn scale(inputs: &Attention) -> f64 {
    1.0 / ((inputs.query.tensor().dims()[1] / inputs.heads) as f64).sqrt()
}

/// As good as nothing after the softmax.
const HIDDEN: f64 = -1e30;

/// What distances add to the scores of a run: `(1, heads or 1, asking, asked)`.
fn added(near: &Near, run: Pair, like: &Tensor) -> Result<Tensor> {
    let device = like.device();
    let places = |count: usize| Tensor::arange(0u32, count as u32, device)?.to_dtype(DType::F32);
    let key = (places(run.asked.length)? - run.front as f64)?.unsqueeze(0)?;
    let asking = (places(run.asking.length)? + run.first as f64)?;
    let distance = key.broadcast_sub(&asking.unsqueeze(1)?)?;
    let mut all = distance.zeros_like()?.unsqueeze(0)?;
    let behind = near.distance.behind.map(|behind| distance.lt(-(behind as f64)));
    let ahead = near.distance.ahead.map(|ahead| distance.gt(ahead as f64));
    for is_far in [behind, ahead].into_iter().flatten() {
        let is_own = key.ge(0.0)?.to_dtype(DType::F32)?;
        let hidden = (is_far?.to_dtype(DType::F32)?.broadcast_mul(&is_own)? * HIDDEN)?;
        all = all.broadcast_add(&hidden.unsqueeze(0)?)?;
    }
    if let Some(bias) = &near.distance.bias {
        let (heads, columns) = bias.tensor().dims2()?;
        let reach = (columns / 2) as f64;
        let column = (distance.clamp(-reach, reach)? + reach)?.to_dtype(DType::U32)?.flatten_all()?;
        let bias = bias.tensor().index_select(&column, 1)?;
        all = all.broadcast_add(&bias.reshape((heads, run.asking.length, run.asked.length))?)?;
    }
    all.unsqueeze(0)
}

fn softmax(scores: &Tensor) -> Result<Tensor> {
    let exponentials = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    exponentials.broadcast_div(&exponentials.sum_keepdim(D::Minus1)?)
}

pub fn forward(inputs: Attention) -> Result<(Buffer, AttentionSaved)> {
    let mut outputs = Vec::new();
    let mut probabilities = Vec::new();
    for run in runs(&inputs) {
        let [q, k, v] = three(&inputs, run)?;
        let scores = (q.matmul(&k.t()?)? * scale(&inputs))?;
        let p = match &inputs.near {
            None => softmax(&scores)?,
            Some(near) => softmax(&scores.broadcast_add(&added(near, run, &scores)?)?)?,
        };
        outputs.push(join(run.asking, &p.matmul(&v)?)?);
        probabilities.push(Buffer(Storage::Candle(p)));
    }
    Ok((Buffer(Storage::Candle(Tensor::cat(&outputs, 0)?)), AttentionSaved { probabilities }))
}

/// dV = Pᵀ·dO, dP = dO·Vᵀ, dS = P·(dP − Σ dP·P), dQ = dS·K·s, dK = dSᵀ·Q·s
pub fn backward(gradient: &Tensor, inputs: Attention, saved: &AttentionSaved) -> Result<[Buffer; 3]> {
    let mut gradients = [Vec::new(), Vec::new(), Vec::new()];
    for (run, p) in runs(&inputs).into_iter().zip(&saved.probabilities) {
        let [q, k, v] = three(&inputs, run)?;
        let (p, group) = (p.tensor(), group(&inputs));
        let by_output = split(gradient, run.asking, inputs.heads)?;
        let by_value = p.t()?.matmul(&by_output)?;
        let by_p = by_output.matmul(&v.t()?)?;
        let along = (&by_p * p)?.sum_keepdim(D::Minus1)?;
        let by_score = ((p * by_p.broadcast_sub(&along)?)? * scale(&inputs))?;
        let by_query = by_score.matmul(&k)?;
        let by_key = gathered(&by_score.t()?.matmul(&q)?, group)?;
        let by_value = gathered(&by_value, group)?;
        let parts = [(run.asking, by_query), (run.asked, by_key), (run.asked, by_value)];
        for (all, (rows, part)) in gradients.iter_mut().zip(parts) {
            all.push(join(rows, &part)?);
        }
    }
    let [query, key, value] = gradients.map(|parts| Tensor::cat(&parts, 0).map(|rows| Buffer(Storage::Candle(rows))));
    Ok([query?, key?, value?])
}

fn three(inputs: &Attention, run: Pair) -> Result<[Tensor; 3]> {
    let group = group(inputs);
    let shared = |rows: &Buffer| repeated(&split(rows.tensor(), run.asked, inputs.heads / group)?, group);
    Ok([split(inputs.query.tensor(), run.asking, inputs.heads)?, shared(inputs.key)?, shared(inputs.value)?])
}

/// Heads of queries that share one of keys and values.
fn group(inputs: &Attention) -> usize {
    inputs.query.width() / inputs.key.width()
}

/// `(count, heads, length, head width)` with every head as often as it is shared.
fn repeated(parts: &Tensor, group: usize) -> Result<Tensor> {
    let (count, heads, length, width) = parts.dims4()?;
    let each = parts.unsqueeze(2)?.expand((count, heads, group, length, width))?;
    each.contiguous()?.reshape((count, heads * group, length, width))
}

/// The inverse of [`repeated`] for gradients: their sum.
fn gathered(parts: &Tensor, group: usize) -> Result<Tensor> {
    let (count, heads, length, width) = parts.dims4()?;
    parts.contiguous()?.reshape((count, heads / group, group, length, width))?.sum(2)
}
