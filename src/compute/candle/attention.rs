//! Attention over packed sequences: neighbours of equal length run as one batch, so nothing is padded or masked.

use crate::compute::kernels::{Attention, AttentionSaved, Buffer, Storage};
use candle_core::{D, Result, Tensor};

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

#[derive(Clone, Copy)]
struct Run {
    /// First row.
    start: usize,
    count: usize,
    length: usize,
}

fn runs(inputs: &Attention) -> impl Iterator<Item = Run> {
    let runs = inputs.layout.runs().into_iter();
    runs.map(|(first, count, length)| Run { start: inputs.layout.range(first).start, count, length })
}

fn scale(inputs: &Attention) -> f64 {
    1.0 / ((inputs.query.tensor().dims()[1] / inputs.heads) as f64).sqrt()
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
        let p = softmax(&(q.matmul(&k.t()?)? * scale(&inputs))?)?;
        outputs.push(join(run, &p.matmul(&v)?)?);
        probabilities.push(Buffer(Storage::Candle(p)));
    }
    Ok((Buffer(Storage::Candle(Tensor::cat(&outputs, 0)?)), AttentionSaved { probabilities }))
}

/// dV = Pᵀ·dO, dP = dO·Vᵀ, dS = P·(dP − Σ dP·P), dQ = dS·K·s, dK = dSᵀ·Q·s
pub fn backward(gradient: &Tensor, inputs: Attention, saved: &AttentionSaved) -> Result<[Buffer; 3]> {
    let mut gradients = [Vec::new(), Vec::new(), Vec::new()];
    for (run, p) in runs(&inputs).zip(&saved.probabilities) {
        let [q, k, v] = three(&inputs, run)?;
        let p = p.tensor();
        let by_output = split(gradient, run, inputs.heads)?;
        let by_value = p.t()?.matmul(&by_output)?;
        let by_p = by_output.matmul(&v.t()?)?;
        let along = (&by_p * p)?.sum_keepdim(D::Minus1)?;
        let by_score = ((p * by_p.broadcast_sub(&along)?)? * scale(&inputs))?;
        let by_query = by_score.matmul(&k)?;
        let by_key = by_score.t()?.matmul(&q)?;
        for (all, one) in gradients.iter_mut().zip([by_query, by_key, by_value]) {
            all.push(join(run, &one)?);
        }
    }
    let [query, key, value] = gradients.map(|parts| Tensor::cat(&parts, 0).map(|rows| Buffer(Storage::Candle(rows))));
    Ok([query?, key?, value?])
}

fn three(inputs: &Attention, run: Run) -> Result<[Tensor; 3]> {
    let split = |rows: &Buffer| split(rows.tensor(), run, inputs.heads);
    Ok([split(inputs.query)?, split(inputs.key)?, split(inputs.value)?])
}
