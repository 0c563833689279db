//! Tape of reverse-mode automatic differentiation.
//!
//! A value is a [`Var`]. An operation is recorded only if one of its inputs requires a gradient, so nothing below the
//! first trainable layer is differentiated; while serving, nothing is recorded.

mod backward;
mod channel_ops;
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
use op::{AttentionOp, LoraOp, MaskArgs, Op};
use row_views::{LayoutSlice, LoraUpdate, PendingLoraUpdates};
use std::ops::Range;
use std::sync::Arc;

pub use backward::Gradients;
pub use channel_ops::Dropout;

/// Handle of a matrix of rows on the tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Var(usize);

/// Index of a trainable tensor among the tape's parameters.
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

/// Whether the tape records for a backward pass, and the parameters of dropout.
#[derive(Debug, Clone)]
pub enum Recording {
    /// Serving and evaluation: records nothing, dropout is the identity.
    Off,
    On(Dropout),
}

struct VarState {
    /// `None` once the value is released or consumed, and for a view.
    buffer: Option<Buffer>,
    layout: Arc<RaggedLayout>,
    requires_grad: bool,
    view: Option<RowView>,
}

/// Rows of another value.
struct RowView {
    base: Var,
    range: Range<usize>,
}

/// One forward pass and its backward pass.
pub struct Tape {
    backend: Arc<dyn Backend>,
    parameters: Arc<[Parameter]>,
    recording: Recording,
    values: Vec<VarState>,
    ops: Vec<Op>,
    /// One KV cache per sequence, if sequences are continued.
    kv_caches: Option<Vec<SequenceKvCache>>,
    /// Deferred LoRA updates of views.
    pending_lora: PendingLoraUpdates,
    /// Cached layouts of sequence ranges.
    layout_slices: Vec<LayoutSlice>,
}

impl Tape {
    pub fn new(backend: Arc<dyn Backend>, parameters: Arc<[Parameter]>, recording: Recording) -> Self {
        Self {
            backend,
            parameters,
            recording,
            values: Vec::new(),
            ops: Vec::new(),
            kv_caches: None,
            pending_lora: PendingLoraUpdates::default(),
            layout_slices: Vec::new(),
        }
    }

    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    pub fn layout(&self, var: Var) -> Arc<RaggedLayout> {
        Arc::clone(&self.values[var.0].layout)
    }

    /// Width of a row.
    pub fn width(&self, var: Var) -> usize {
        let (base_var, _) = self.resolve_view(var);
        self.values[base_var.0].buffer.as_ref().map_or(0, Buffer::width)
    }

    /// Copies the values to the host.
    pub fn to_host(&self, var: Var) -> Result<Tensor> {
        self.backend.download(&self.buffer(var)?)
    }

    /// Value computed elsewhere (cached features), not differentiated.
    pub fn constant(&mut self, rows: Buffer, layout: Arc<RaggedLayout>) -> Var {
        self.push_var(rows, layout, false)
    }

    /// Value computed on another tape, whose gradient [`Tape::backward_to_leaf`] returns.
    pub fn leaf_requires_grad(&mut self, rows: Buffer, layout: Arc<RaggedLayout>) -> Var {
        self.push_var(rows, layout, true)
    }

    /// Uploads a constant.
    pub fn constant_from_host(&mut self, rows: &Tensor, layout: Arc<RaggedLayout>) -> Result<Var> {
        let rows = self.backend.upload(rows)?;
        Ok(self.constant(rows, layout))
    }

    /// Sum of one row of each table per token.
    pub fn embed(&mut self, embeddings: &[(&FrozenEmbedding, &[u32])], layout: Arc<RaggedLayout>) -> Result<Var> {
        let rows = self.backend.embed(embeddings, None)?;
        Ok(self.push_var(rows, layout, false))
    }

    /// Adds one row of each table per token. Consumes the target.
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

    /// target + s·B·A·x with trainable A `(rank, input)` and B `(output, rank)`. Consumes the target; the rows of a
    /// view change in its base value.
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

    /// Norm of the input, or of its sum with a residual.
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

    /// The value's buffer on the device.
    pub fn device_buffer(&self, var: Var) -> Result<Buffer> {
        self.buffer(var)
    }

    /// Attention within each sequence. The queries may be fewer than the keys.
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

    /// Pools every sequence to one row.
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

    /// Releases the buffers of all values made since `position` except one. Recorded operations keep what their
    /// backward pass needs.
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

    /// The buffer of a value, or the rows of a view.
    fn buffer(&self, var: Var) -> Result<Buffer> {
        let (base_var, range) = self.resolve_view(var);
        assert!(self.pending_lora.base != Some(base_var), "deferred updates are applied before a value is read");
        let all = self.values[base_var.0].buffer.as_ref().expect("a released value is not used again");
        match base_var == var {
            true => Ok(all.clone()),
            false => self.backend.slice_rows(all, range),
        }
    }

    /// Takes the buffer of a value that is not used again.
    fn consume(&mut self, var: Var) -> Buffer {
        assert!(self.pending_lora.base != Some(var), "deferred updates are applied before a value is consumed");
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

    /// Pushes the output of an operation, recorded if one of its inputs requires a gradient.
    fn push_op(&mut self, rows: Buffer, inputs: &[Var], make_op: impl FnOnce(Var) -> Op) -> Var {
        let tracked = self.any_requires_grad(inputs);
        let output = self.push_var(rows, self.layout(inputs[0]), tracked);
        if tracked {
            self.ops.push(make_op(output));
        }
        output
    }

    /// Pushes the output of an operation that saved something, which it does only if it is to be differentiated.
    fn push_saved_op<K>(
        &mut self,
        rows: Buffer,
        inputs: &[Var],
        saved: Option<K>,
        make_op: impl FnOnce(K, Var) -> Op,
    ) -> Var {
        match saved {
            Some(saved) => self.push_op(rows, inputs, |output| make_op(saved, output)),
            None => self.push_var(rows, self.layout(inputs[0]), false),
        }
    }

    /// Pushes the output of an operation with parameters: recorded whenever the tape records.
    fn push_param_op(&mut self, rows: Buffer, input: Var, make_op: impl FnOnce(Var) -> Op) -> Var {
        let tracked = matches!(self.recording, Recording::On(_));
        let output = self.push_var(rows, self.layout(input), tracked);
        if tracked {
            self.ops.push(make_op(output));
        }
        output
    }
}

/// Position on a tape, for [`Tape::release_since`].
#[derive(Debug, Clone, Copy)]
pub struct TapePosition(usize);
