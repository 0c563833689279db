//! Attention over ragged sequences. Neighbouring sequences of equal lengths form one batch, so nothing is padded.

use crate::attention_mask::MaskContext;
use crate::backend::{AttentionInput, AttentionSaved, Buffer, SaveForBackward};
use candle_core::{D, DType, Result, Tensor};

/// The rows of a run as `(count, heads, length, head width)`.
fn split_heads(rows: &Tensor, run: SequenceRun, heads: usize) -> Result<Tensor> {
    let width = rows.dims()[1] / heads;
    rows.narrow(0, run.start, run.count * run.length)?
        .reshape((run.count, run.length, heads, width))?
        .transpose(1, 2)?
        .contiguous()
}

/// The inverse of [`split_heads`]: `(count · length, hidden)`.
fn merge_heads(run: SequenceRun, heads_tensor: &Tensor) -> Result<Tensor> {
    let (_, heads, _, width) = heads_tensor.dims4()?;
    heads_tensor.transpose(1, 2)?.reshape((run.count * run.length, heads * width))
}

/// Rows of neighbouring sequences of equal length.
#[derive(Clone, Copy)]
struct SequenceRun {
    /// First row.
    start: usize,
    count: usize,
    length: usize,
}

/// Query and key rows of neighbouring sequences of equal lengths.
#[derive(Clone, Copy)]
struct AttentionRun {
    query: SequenceRun,
    key: SequenceRun,
    /// Key rows of a sequence that precede its own.
    prefix_rows: usize,
    /// Position of the first query row among the sequence's own rows.
    query_offset: usize,
}

fn equal_length_runs(inputs: &AttentionInput) -> Vec<AttentionRun> {
    let mut grouped: Vec<AttentionRun> = Vec::new();
    for (sequence, (query_rows, key_rows)) in
        inputs.query_layout.row_ranges().zip(inputs.key_layout.row_ranges()).enumerate()
    {
        let own_keys = inputs.mask.map_or(key_rows.len(), |mask| mask.unprefixed_key_layout.length(sequence));
        let prefix_rows = key_rows.len() - own_keys;
        let query_offset = inputs.mask.map_or(0, |mask| mask.mask.query_offset(query_rows.len(), own_keys));
        let lengths = |pair: &AttentionRun| (pair.query.length, pair.key.length, pair.prefix_rows);
        match grouped.last_mut() {
            Some(last) if lengths(last) == (query_rows.len(), key_rows.len(), prefix_rows) => {
                last.query.count += 1;
                last.key.count += 1;
            }
            _ => {
                let run =
                    |rows: std::ops::Range<usize>| SequenceRun { start: rows.start, count: 1, length: rows.len() };
                grouped.push(AttentionRun { query: run(query_rows), key: run(key_rows), prefix_rows, query_offset });
            }
        }
    }
    grouped
}

fn softmax_scale(inputs: &AttentionInput) -> f64 {
    1.0 / ((inputs.query.as_tensor().dims()[1] / inputs.heads) as f64).sqrt()
}

/// Becomes 0 after the softmax.
const MASKED_SCORE: f64 = -1e30;

/// Mask and relative position bias of a run, to add to its scores: `(1, heads or 1, query rows, key rows)`.
fn mask_and_bias(mask: &MaskContext, run: AttentionRun, like: &Tensor) -> Result<Tensor> {
    let device = like.device();
    let indices = |count: usize| Tensor::arange(0u32, count as u32, device)?.to_dtype(DType::F32);
    let key_positions = (indices(run.key.length)? - run.prefix_rows as f64)?.unsqueeze(0)?;
    let query_positions = (indices(run.query.length)? + run.query_offset as f64)?;
    let distance = key_positions.broadcast_sub(&query_positions.unsqueeze(1)?)?;
    let mut all = distance.zeros_like()?.unsqueeze(0)?;
    let beyond_left = mask.mask.left_window.map(|behind| distance.lt(-(behind as f64)));
    let beyond_right = mask.mask.right_window.map(|ahead| distance.gt(ahead as f64));
    for is_outside_window in [beyond_left, beyond_right].into_iter().flatten() {
        let is_not_prefix = key_positions.ge(0.0)?.to_dtype(DType::F32)?;
        let hidden = (is_outside_window?.to_dtype(DType::F32)?.broadcast_mul(&is_not_prefix)? * MASKED_SCORE)?;
        all = all.broadcast_add(&hidden.unsqueeze(0)?)?;
    }
    if let Some(bias) = &mask.mask.relative_position_bias {
        let (heads, columns) = bias.as_tensor().dims2()?;
        let max_distance = (columns / 2) as f64;
        let column =
            (distance.clamp(-max_distance, max_distance)? + max_distance)?.to_dtype(DType::U32)?.flatten_all()?;
        let bias = bias.as_tensor().index_select(&column, 1)?;
        all = all.broadcast_add(&bias.reshape((heads, run.query.length, run.key.length))?)?;
    }
    all.unsqueeze(0)
}

pub fn forward(inputs: AttentionInput, save: SaveForBackward) -> Result<(Buffer, Option<AttentionSaved>)> {
    let mut outputs = Vec::new();
    let mut probabilities = Vec::new();
    for run in equal_length_runs(&inputs) {
        let [q, k, v] = split_qkv(&inputs, run)?;
        let scores = (q.matmul(&k.t()?)? * softmax_scale(&inputs))?;
        let scores = match &inputs.mask {
            None => scores,
            Some(mask) => scores.broadcast_add(&mask_and_bias(mask, run, &scores)?)?,
        };
        let p = candle_nn::ops::softmax_last_dim(&scores)?;
        outputs.push(merge_heads(run.query, &p.matmul(&v)?)?);
        probabilities.push(Buffer::new(p));
    }
    let saved = (save == SaveForBackward::Yes).then_some(AttentionSaved { probabilities });
    Ok((Buffer::new(Tensor::cat(&outputs, 0)?), saved))
}

/// dV = Pᵀ·dO, dP = dO·Vᵀ, dS = P·(dP − Σ dP·P), dQ = dS·K·s, dK = dSᵀ·Q·s
pub fn backward(gradient: &Tensor, inputs: AttentionInput, saved: &AttentionSaved) -> Result<[Buffer; 3]> {
    let mut gradients = [Vec::new(), Vec::new(), Vec::new()];
    for (run, p) in equal_length_runs(&inputs).into_iter().zip(&saved.probabilities) {
        let [q, k, v] = split_qkv(&inputs, run)?;
        let (p, group) = (p.as_tensor(), query_heads_per_kv_head(&inputs));
        let output_gradient = split_heads(gradient, run.query, inputs.heads)?;
        let value_gradient = p.t()?.matmul(&output_gradient)?;
        let probability_gradient = output_gradient.matmul(&v.t()?)?;
        let row_dot = (&probability_gradient * p)?.sum_keepdim(D::Minus1)?;
        let score_gradient = ((p * probability_gradient.broadcast_sub(&row_dot)?)? * softmax_scale(&inputs))?;
        let query_gradient = score_gradient.matmul(&k)?;
        let key_gradient = sum_kv_groups(&score_gradient.t()?.matmul(&q)?, group)?;
        let by_value = sum_kv_groups(&value_gradient, group)?;
        let parts = [(run.query, query_gradient), (run.key, key_gradient), (run.key, by_value)];
        for (all, (rows, part)) in gradients.iter_mut().zip(parts) {
            all.push(merge_heads(rows, &part)?);
        }
    }
    let [query, key, value] = gradients.map(|parts| Tensor::cat(&parts, 0).map(Buffer::new));
    Ok([query?, key?, value?])
}

fn split_qkv(inputs: &AttentionInput, run: AttentionRun) -> Result<[Tensor; 3]> {
    let group = query_heads_per_kv_head(inputs);
    let key_value_heads =
        |rows: &Buffer| repeat_kv(&split_heads(rows.as_tensor(), run.key, inputs.heads / group)?, group);
    Ok([
        split_heads(inputs.query.as_tensor(), run.query, inputs.heads)?,
        key_value_heads(inputs.key)?,
        key_value_heads(inputs.value)?,
    ])
}

/// Number of query heads that share one key head.
fn query_heads_per_kv_head(inputs: &AttentionInput) -> usize {
    inputs.query.width() / inputs.key.width()
}

/// Repeats every head `group` times: `(count, heads · group, length, head width)`.
fn repeat_kv(parts: &Tensor, group: usize) -> Result<Tensor> {
    let (count, heads, length, width) = parts.dims4()?;
    let expanded = parts.unsqueeze(2)?.expand((count, heads, group, length, width))?;
    expanded.contiguous()?.reshape((count, heads * group, length, width))
}

/// The backward pass of [`repeat_kv`]: sums the gradients of each group.
fn sum_kv_groups(parts: &Tensor, group: usize) -> Result<Tensor> {
    let (count, heads, length, width) = parts.dims4()?;
    parts.contiguous()?.reshape((count, heads / group, group, length, width))?.sum(2)
}
