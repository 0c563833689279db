//! Runs operations forward, remembers what the backward pass needs, and walks back.
//!
//! A value is a [`Rows`] handle. An operation is remembered only where a trainable parameter lies below it, so nothing
//! is differentiated beneath the lowest place that an adapter touches; while serving, nothing is remembered at all.
//! Knows the operations of [`Kernels`], and nothing of models or adapters.

mod backward;
mod columns;
mod dropout;
mod node;
mod past;
mod rotary;
mod windows;

use super::kernels::{Activation, Attention, FrozenLinear, FrozenNorm, FrozenTable, Keep, LowRank, Pool};
use super::past::Past;
use super::{Buffer, Kernels, Packed, Parameter, Tensor};
use crate::error::Result;
pub use backward::Gradients;
pub use dropout::Dropout;
use node::{Attended, Node, Updated, Within};
use std::ops::Range;
use std::sync::Arc;
use windows::{Gathered, Slice, Update};

/// A matrix of rows on the tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows(usize);

/// A trainable tensor: its place among the parameters that the tape was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Param(usize);

impl Param {
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

struct Value {
    /// `None` once it is released or used up, and for a window, whose rows are another's.
    buffer: Option<Buffer>,
    layout: Arc<Packed>,
    tracked: bool,
    window: Option<Window>,
}

/// Some rows of another value.
struct Window {
    of: Rows,
    rows: Range<usize>,
}

/// One forward pass, and the way back.
pub struct Tape {
    kernels: Arc<dyn Kernels>,
    parameters: Arc<[Parameter]>,
    recording: Recording,
    values: Vec<Value>,
    nodes: Vec<Node>,
    /// Of sequences that are being continued.
    pasts: Option<Vec<Past>>,
    /// What is still to be added to windows of a value.
    gathered: Gathered,
    /// Of layouts.
    slices: Vec<Slice>,
}

impl Tape {
    pub fn new(kernels: Arc<dyn Kernels>, parameters: Arc<[Parameter]>, recording: Recording) -> Self {
        let (values, nodes, slices) = (Vec::new(), Vec::new(), Vec::new());
        Self { kernels, parameters, recording, values, nodes, pasts: None, gathered: Gathered::default(), slices }
    }

    pub fn layout(&self, rows: Rows) -> Arc<Packed> {
        Arc::clone(&self.values[rows.0].layout)
    }

    /// Numbers in a row.
    pub fn width(&self, rows: Rows) -> usize {
        let (owner, _) = self.place(rows);
        self.values[owner.0].buffer.as_ref().map_or(0, Buffer::width)
    }

    /// The values, copied to the host.
    pub fn read(&self, rows: Rows) -> Result<Tensor> {
        self.kernels.download(&self.buffer(rows)?)
    }

    /// Rows computed elsewhere (cached features), not differentiated.
    pub fn constant(&mut self, rows: Buffer, layout: Arc<Packed>) -> Rows {
        self.push(rows, layout, false)
    }

    /// Rows computed on another tape, whose gradient is asked for: [`Tape::backward_to`].
    pub fn leaf(&mut self, rows: Buffer, layout: Arc<Packed>) -> Rows {
        self.push(rows, layout, true)
    }

    /// The same from the host.
    pub fn upload(&mut self, rows: &Tensor, layout: Arc<Packed>) -> Result<Rows> {
        let rows = self.kernels.upload(rows)?;
        Ok(self.constant(rows, layout))
    }

    /// Sums one row of each table per token.
    pub fn embed(&mut self, tables: &[(&FrozenTable, &[u32])], layout: Arc<Packed>) -> Result<Rows> {
        let rows = self.kernels.embed(tables, None)?;
        Ok(self.push(rows, layout, false))
    }

    /// The same, onto rows that are used up.
    pub fn embed_onto(&mut self, tables: &[(&FrozenTable, &[u32])], onto: Rows) -> Result<Rows> {
        let base = self.take(onto);
        let rows = self.kernels.embed(tables, Some(base))?;
        Ok(self.derive(rows, &[onto], |output| Node::Pass { input: onto, output }))
    }

    /// x·Wᵀ + b with frozen weights.
    pub fn linear(&mut self, input: Rows, map: &Arc<FrozenLinear>) -> Result<Rows> {
        let rows = self.kernels.linear(&self.buffer(input)?, map)?;
        let node = |output| Node::Linear { input, output, map: Arc::clone(map) };
        Ok(self.derive(rows, &[input], node))
    }

    /// x·Wᵀ + b with trainable weight `(output, input)` and bias `(output)`.
    pub fn dense(&mut self, input: Rows, weight: Param, bias: Param) -> Result<Rows> {
        let x = self.buffer(input)?;
        let rows = self.kernels.dense(&x, &self.parameters[weight.0], &self.parameters[bias.0])?;
        Ok(self.learn(rows, input, |output| Node::Dense { input, output, x, weight, bias }))
    }

    /// onto + s·B·A·x with trainable A `(rank, input)` and B `(output, rank)`. The rows of `onto` are used up; those of a
    /// window change where they are.
    pub fn add_low_rank(&mut self, onto: Rows, input: Rows, a: Param, b: Param, scale: f64) -> Result<Rows> {
        let x = self.buffer(input)?;
        let (owner, range) = self.place(onto);
        if owner != onto {
            let parameters = Arc::clone(&self.parameters);
            self.gather(owner, Update { range, input: x, parameters, params: [a, b], scale })?;
            return Ok(onto);
        }
        let base = self.take(onto);
        let update = LowRank { input: &x, a: &self.parameters[a.0], b: &self.parameters[b.0], scale };
        let (rows, projected) = self.kernels.add_low_rank(base, range, update)?;
        let node = |output| Node::LowRank(Updated { onto, input, output, x, projected, a, b, scale });
        Ok(self.learn(rows, input, node))
    }

    /// The layer norm of the input, or of its sum with a residual.
    pub fn norm(&mut self, input: Rows, residual: Option<Rows>, norm: &Arc<FrozenNorm>) -> Result<Rows> {
        let inputs = [input, residual.unwrap_or(input)];
        let added = residual.map(|residual| self.buffer(residual)).transpose()?;
        let keep = self.keep(&inputs);
        let (rows, saved) = self.kernels.norm(&self.buffer(input)?, added.as_ref(), norm, keep)?;
        let node = |saved, output| Node::Norm { input, residual, output, saved, norm: Arc::clone(norm) };
        Ok(self.derive_kept(rows, &inputs, saved, node))
    }

    pub fn activate(&mut self, activation: Activation, input: Rows) -> Result<Rows> {
        let (rows, derivative) = self.kernels.activate(activation, &self.buffer(input)?, self.keep(&[input]))?;
        let node = |factor, output| Node::Times { input, output, factor };
        Ok(self.derive_kept(rows, &[input], derivative, node))
    }

    /// The values, where they are.
    pub fn rows(&self, rows: Rows) -> Result<Buffer> {
        self.buffer(rows)
    }

    /// Attention within each sequence; the queries may be of some of its rows only.
    pub fn attention(&mut self, query: Rows, key: Rows, value: Rows, heads: usize) -> Result<Rows> {
        self.attend([query, key, value], heads, None)
    }

    fn attend(&mut self, sources: [Rows; 3], heads: usize, within: Option<Within>) -> Result<Rows> {
        let [query, key, value] = sources;
        let [q, k, v] = [self.buffer(query)?, self.buffer(key)?, self.buffer(value)?];
        let layouts = [self.layout(query), self.layout(key)];
        let [asking, layout] = &layouts;
        let near = within.as_ref().map(Within::near);
        let inputs = Attention { query: &q, key: &k, value: &v, asking, layout, heads, near };
        let (rows, saved) = self.kernels.attention(inputs, self.keep(&sources))?;
        let qkv = [q, k, v];
        let node =
            |saved, output| Node::Attention(Attended { inputs: sources, output, qkv, saved, heads, layouts, within });
        Ok(self.derive_kept(rows, &sources, saved, node))
    }

    /// One row per sequence.
    pub fn pool(&mut self, input: Rows, pool: Pool) -> Result<Rows> {
        let layout = self.layout(input);
        let rows = self.kernels.pool(&self.buffer(input)?, &layout, pool)?;
        let pooled = Arc::new(Packed::single_rows(layout.sequences()));
        let tracked = self.is_tracked(&[input]);
        let output = self.push(rows, pooled, tracked);
        if tracked {
            self.nodes.push(Node::Pool { input, output, layout, pool });
        }
        Ok(output)
    }

    /// Forgets every value made since `mark` but `keep`: what a backward pass needs is held by the nodes.
    pub fn release(&mut self, mark: Mark, keep: Rows) {
        for (index, value) in self.values.iter_mut().enumerate().skip(mark.0) {
            if index != keep.0 {
                value.buffer = None;
            }
        }
    }

    pub fn mark(&self) -> Mark {
        Mark(self.values.len())
    }

    /// A window's rows are read where they lie.
    fn buffer(&self, rows: Rows) -> Result<Buffer> {
        let (owner, range) = self.place(rows);
        assert!(self.gathered.of != Some(owner), "what was put off is computed before a value is read");
        let all = self.values[owner.0].buffer.as_ref().expect("a released value is not used again");
        match owner == rows {
            true => Ok(all.clone()),
            false => self.kernels.narrow(all, range),
        }
    }

    /// For a value that nothing will use again.
    fn take(&mut self, rows: Rows) -> Buffer {
        assert!(self.gathered.of != Some(rows), "what was put off is computed before a value is used up");
        self.values[rows.0].buffer.take().expect("a released value is not used again")
    }

    fn keep(&self, inputs: &[Rows]) -> Keep {
        if self.is_tracked(inputs) { Keep::ForBackward } else { Keep::Nothing }
    }

    fn is_tracked(&self, inputs: &[Rows]) -> bool {
        inputs.iter().any(|input| self.values[input.0].tracked)
    }

    fn push(&mut self, buffer: Buffer, layout: Arc<Packed>, tracked: bool) -> Rows {
        self.values.push(Value { buffer: Some(buffer), layout, tracked, window: None });
        Rows(self.values.len() - 1)
    }

    /// A value to be differentiated only where one of its inputs is.
    fn derive(&mut self, rows: Buffer, inputs: &[Rows], node: impl FnOnce(Rows) -> Node) -> Rows {
        let tracked = self.is_tracked(inputs);
        let output = self.push(rows, self.layout(inputs[0]), tracked);
        if tracked {
            self.nodes.push(node(output));
        }
        output
    }

    /// The same for an operation that keeps something, which it does where it is differentiated.
    fn derive_kept<K>(
        &mut self,
        rows: Buffer,
        inputs: &[Rows],
        kept: Option<K>,
        node: impl FnOnce(K, Rows) -> Node,
    ) -> Rows {
        match kept {
            Some(kept) => self.derive(rows, inputs, |output| node(kept, output)),
            None => self.push(rows, self.layout(inputs[0]), false),
        }
    }

    /// The output of an operation with parameters: differentiated whenever the tape records.
    fn learn(&mut self, rows: Buffer, input: Rows, node: impl FnOnce(Rows) -> Node) -> Rows {
        let tracked = matches!(self.recording, Recording::On(_));
        let output = self.push(rows, self.layout(input), tracked);
        if tracked {
            self.nodes.push(node(output));
        }
        output
    }
}

/// A point in a tape's life.
#[derive(Debug, Clone, Copy)]
pub struct Mark(usize);
