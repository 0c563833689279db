//! Runs operations forward, remembers what the backward pass needs, and walks back.
//!
//! A value is a [`Rows`] handle. An operation is remembered only where a trainable parameter lies below it, so nothing
//! is differentiated beneath the lowest place that an adapter touches; while serving, nothing is remembered at all.
//! Knows the operations of [`Kernels`], and nothing of models or adapters.

mod backward;
mod channel_ops;
mod dropout;
mod kv_cache;
mod op;
mod rotary;
mod row_views;

use crate::backend::{
    Activation, AttentionInput, FrozenEmbedding, FrozenLinear, FrozenNorm, LoraArgs, PoolingKind, SaveForBackward,
};
use crate::error::Result;
use crate::kv_cache::SequenceKvCache;
use crate::{Backend, Buffer, Parameter, RaggedLayout, Tensor};
pub use backward::Gradients;
pub use dropout::Dropout;
use op::{AttentionOp, LoraOp, MaskArgs, Op};
use row_views::{LayoutSlice, LoraUpdate, PendingLoraUpdates};
use std::ops::Range;
use std::sync::Arc;

/// A matrix of rows on the tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Var(usize);

/// A trainable tensor: its place among the parameters that the tape was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ParamId(usize);

impl ParamId {
    pub fn new(index: usize) -> Self {
        Self(index)
    }

    pub fn index(self) -> usize {
        self.0
    }
}

/// Whether the tape remembers what a backward pass needs, and what dropout is a function of.
#[derive(Debug, Clone)]
pub enum Recording {
    /// Serving and evaluation: nothing is remembered, dropout does nothing.
    Off,
    On(Dropout),
}

struct VarState {
    /// `None` once it is released or used up, and for a window, whose rows are another's.
    buffer: Option<Buffer>,
    layout: Arc<RaggedLayout>,
    requires_grad: bool,
    view: Option<RowView>,
}

/// Some rows of another value.
struct RowView {
    base: Var,
    range: Range<usize>,
}

/// One forward pass, and the way back.
pub struct Tape {
    backend: Arc<dyn Backend>,
    parameters: Arc<[Parameter]>,
    recording: Recording,
    values: Vec<VarState>,
    ops: Vec<Op>,
    /// Of sequences that are being continued.
    kv_caches: Option<Vec<SequenceKvCache>>,
    /// What is still to be added to windows of a value.
    pending_lora: PendingLoraUpdates,
    /// Of layouts.
    layout_slices: Vec<LayoutSlice>,
}

impl Tape {
    pub fn new(backend: Arc<dyn Backend>, parameters: Arc<[Parameter]>, recording: Recording) -> Self {
        let (values, nodes, slices) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            backend,
            parameters,
            recording,
            values,
            ops: nodes,
            kv_caches: None,
            pending_lora: PendingLoraUpdates::default(),
            layout_slices: slices,
        }
    }

    pub fn layout(&self, var: Var) -> Arc<RaggedLayout> {
        Arc::clone(&self.values[var.0].layout)
    }

    /// Numbers in a row.
    pub fn width(&self, var: Var) -> usize {
        let (base_var, _) = self.resolve_view(var);
        self.values[base_var.0].buffer.as_ref().map_or(0, Buffer::width)
    }

    /// The values, copied to the host.
    pub fn to_host(&self, var: Var) -> Result<Tensor> {
        self.backend.download(&self.buffer(var)?)
    }

    /// Rows computed elsewhere (cached features), not differentiated.
    pub fn constant(&mut self, rows: Buffer, layout: Arc<RaggedLayout>) -> Var {
        self.push_var(rows, layout, false)
    }

    /// Rows computed on another tape, whose gradient is asked for: [`Tape::backward_to`].
    pub fn leaf_requires_grad(&mut self, rows: Buffer, layout: Arc<RaggedLayout>) -> Var {
        self.push_var(rows, layout, true)
    }

    /// The same from the host.
    pub fn constant_from_host(&mut self, rows: &Tensor, layout: Arc<RaggedLayout>) -> Result<Var> {
        let rows = self.backend.upload(rows)?;
        Ok(self.constant(rows, layout))
    }

    /// Sums one row of each table per token.
    pub fn embed(&mut self, embeddings: &[(&FrozenEmbedding, &[u32])], layout: Arc<RaggedLayout>) -> Result<Var> {
        let rows = self.backend.embed(embeddings, None)?;
        Ok(self.push_var(rows, layout, false))
    }

    /// The same, onto rows that are used up.
    pub fn add_embeddings(&mut self, embeddings: &[(&FrozenEmbedding, &[u32])], target: Var) -> Result<Var> {
        let base = self.consume(target);
        let rows = self.backend.embed(embeddings, Some(base))?;
        Ok(self.push_op(rows, &[target], |output| Op::Identity { input: target, output }))
    }

    /// x·Wᵀ + b with frozen weights.
    pub fn linear(&mut self, input: Var, linear: &Arc<FrozenLinear>) -> Result<Var> {
        let rows = self.backend.linear(&self.buffer(input)?, linear)?;
        let op = |output| Op::Linear { input, output, linear: Arc::clone(linear) };
        Ok(self.push_op(rows, &[input], op))
    }

    /// x·Wᵀ + b with trainable weight `(output, input)` and bias `(output)`.
    pub fn dense(&mut self, input: Var, weight: ParamId, bias: ParamId) -> Result<Var> {
        let x = self.buffer(input)?;
        let rows = self.backend.dense(&x, &self.parameters[weight.0], &self.parameters[bias.0])?;
        Ok(self.push_param_op(rows, input, |output| Op::Dense { input, output, x, weight, bias }))
    }

    /// onto + s·B·A·x with trainable A `(rank, input)` and B `(output, rank)`. The rows of `onto` are used up; those of a
    /// window change where they are.
    pub fn lora_add(&mut self, target: Var, input: Var, a: ParamId, b: ParamId, scale: f64) -> Result<Var> {
        let x = self.buffer(input)?;
        let (base_var, range) = self.resolve_view(target);
        if base_var != target {
            let parameters = Arc::clone(&self.parameters);
            self.defer_lora(base_var, LoraUpdate { range, input: x, parameters, lora_params: [a, b], scale })?;
            return Ok(target);
        }
        let base = self.consume(target);
        let update = LoraArgs { input: &x, a: &self.parameters[a.0], b: &self.parameters[b.0], scale };
        let (rows, projected) = self.backend.lora_add(base, range, update)?;
        let op = |output| Op::Lora(LoraOp { target, input, output, x, projected, a, b, scale });
        Ok(self.push_param_op(rows, input, op))
    }

    /// The layer norm of the input, or of its sum with a residual.
    pub fn norm(&mut self, input: Var, residual: Option<Var>, norm: &Arc<FrozenNorm>) -> Result<Var> {
        let inputs = [input, residual.unwrap_or(input)];
        let residual_rows = residual.map(|residual| self.buffer(residual)).transpose()?;
        let keep = self.save_mode(&inputs);
        let (rows, saved) = self.backend.norm(&self.buffer(input)?, residual_rows.as_ref(), norm, keep)?;
        let op = |saved, output| Op::Norm { input, residual, output, saved, norm: Arc::clone(norm) };
        Ok(self.push_saved_op(rows, &inputs, saved, op))
    }

    pub fn activate(&mut self, activation: Activation, input: Var) -> Result<Var> {
        let (rows, derivative) = self.backend.activate(activation, &self.buffer(input)?, self.save_mode(&[input]))?;
        let op = |factor, output| Op::MulConstant { input, output, factor };
        Ok(self.push_saved_op(rows, &[input], derivative, op))
    }

    /// The values, where they are.
    pub fn device_buffer(&self, var: Var) -> Result<Buffer> {
        self.buffer(var)
    }

    /// Attention within each sequence; the queries may be of some of its rows only.
    pub fn attention(&mut self, query: Var, key: Var, value: Var, heads: usize) -> Result<Var> {
        self.push_attention([query, key, value], heads, None)
    }

    fn push_attention(&mut self, qkv_vars: [Var; 3], heads: usize, mask: Option<MaskArgs>) -> Result<Var> {
        let [query, key, value] = qkv_vars;
        let [q, k, v] = [self.buffer(query)?, self.buffer(key)?, self.buffer(value)?];
        let layouts = [self.layout(query), self.layout(key)];
        let [query_layout, key_layout] = &layouts;
        let mask_context = mask.as_ref().map(MaskArgs::context);
        let attention_input =
            AttentionInput { query: &q, key: &k, value: &v, query_layout, key_layout, heads, mask: mask_context };
        let (rows, saved) = self.backend.attention(attention_input, self.save_mode(&qkv_vars))?;
        let qkv = [q, k, v];
        let op =
            |saved, output| Op::Attention(AttentionOp { inputs: qkv_vars, output, qkv, saved, heads, layouts, mask });
        Ok(self.push_saved_op(rows, &qkv_vars, saved, op))
    }

    /// One row per sequence.
    pub fn pool(&mut self, input: Var, kind: PoolingKind) -> Result<Var> {
        let layout = self.layout(input);
        let rows = self.backend.pool(&self.buffer(input)?, &layout, kind)?;
        let pooled_layout = Arc::new(RaggedLayout::one_row_per_sequence(layout.num_sequences()));
        let requires_grad = self.any_requires_grad(&[input]);
        let output = self.push_var(rows, pooled_layout, requires_grad);
        if requires_grad {
            self.ops.push(Op::Pool { input, output, layout, kind });
        }
        Ok(output)
    }

    /// Forgets every value made since `mark` but `keep`: what a backward pass needs is held by the nodes.
    pub fn release_since(&mut self, position: TapePosition, except: Var) {
        for (index, value) in self.values.iter_mut().enumerate().skip(position.0) {
            if index != except.0 {
                value.buffer = None;
            }
        }
    }

    pub fn position(&self) -> TapePosition {
        TapePosition(self.values.len())
    }

    /// A window's rows are read where they lie.
    fn buffer(&self, var: Var) -> Result<Buffer> {
        let (base_var, range) = self.resolve_view(var);
        assert!(self.pending_lora.base != Some(base_var), "what was put off is computed before a value is read");
        let all = self.values[base_var.0].buffer.as_ref().expect("a released value is not used again");
        match base_var == var {
            true => Ok(all.clone()),
            false => self.backend.slice_rows(all, range),
        }
    }

    /// For a value that nothing will use again.
    fn consume(&mut self, var: Var) -> Buffer {
        assert!(self.pending_lora.base != Some(var), "what was put off is computed before a value is used up");
        self.values[var.0].buffer.take().expect("a released value is not used again")
    }

    fn save_mode(&self, inputs: &[Var]) -> SaveForBackward {
        if self.any_requires_grad(inputs) { SaveForBackward::Yes } else { SaveForBackward::No }
    }

    fn any_requires_grad(&self, inputs: &[Var]) -> bool {
        inputs.iter().any(|input| self.values[input.0].requires_grad)
    }

    fn push_var(&mut self, buffer: Buffer, layout: Arc<RaggedLayout>, requires_grad: bool) -> Var {
        self.values.push(VarState { buffer: Some(buffer), layout, requires_grad, view: None });
        Var(self.values.len() - 1)
    }

    /// A value to be differentiated only where one of its inputs is.
    fn push_op(&mut self, rows: Buffer, inputs: &[Var], make_op: impl FnOnce(Var) -> Op) -> Var {
        let tracked = self.any_requires_grad(inputs);
        let output = self.push_var(rows, self.layout(inputs[0]), tracked);
        if tracked {
            self.ops.push(make_op(output));
        }
        output
    }

    /// The same for an operation that keeps something, which it does where it is differentiated.
    fn push_saved_op<K>(
        &mut self,
        rows: Buffer,
        inputs: &[Var],
        saved: Option<K>,
        make_op: impl FnOnce(K, Var) -> Op,
    ) -> Var {
        match saved {
            Some(kept) => self.push_op(rows, inputs, |output| make_op(kept, output)),
            None => self.push_var(rows, self.layout(inputs[0]), false),
        }
    }

    /// The output of an operation with parameters: differentiated whenever the tape records.
    fn push_param_op(&mut self, rows: Buffer, input: Var, make_op: impl FnOnce(Var) -> Op) -> Var {
        let tracked = matches!(self.recording, Recording::On(_));
        let output = self.push_var(rows, self.layout(input), tracked);
        if tracked {
            self.ops.push(make_op(output));
        }
        output
    }
}

/// A point in a tape's life.
#[derive(Debug, Clone, Copy)]
pub struct TapePosition(usize);
