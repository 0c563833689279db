//! Operations with vectors and rows that are learned: scales, shifts, and rows in front of sequences.
//!
//! Those that say so use their first argument up; the rows of a window change where they are.

use super::op::Op;
use super::{ParamId, Recording, Tape, Var};
use crate::backend::{Buffer, FrozenLinear, PrependedRows, weight_row_norms};
use crate::error::Result;
use crate::{RaggedLayout, Tensor};
use std::ops::Range;
use std::sync::Arc;

impl Tape {
    /// A trainable matrix as rows, or a trainable vector as one `(1, width)`.
    pub fn parameter(&mut self, parameter: ParamId) -> Result<Var> {
        let rows = self.backend.parameter_as_rows(&self.parameters[parameter.0])?;
        let count = rows.rows();
        let requires_grad = matches!(self.recording, Recording::On(_));
        let output = self.push_var(rows, Arc::new(RaggedLayout::from_lengths([count])), requires_grad);
        if requires_grad {
            self.ops.push(Op::Parameter { parameter, output });
        }
        Ok(output)
    }

    /// A constant as one row `(1, width)`.
    pub fn constant_row(&mut self, values: Vec<f32>) -> Result<Var> {
        let rows = self.backend.upload(&Tensor::new([1, values.len()], values))?;
        Ok(self.constant(rows, Arc::new(RaggedLayout::one_row_per_sequence(1))))
    }

    /// Element by element.
    pub fn mul_constant(&mut self, input: Var, constant: Var) -> Result<Var> {
        let factor = self.buffer(constant)?;
        let rows = self.backend.mul(&self.buffer(input)?, &factor)?;
        Ok(self.push_op(rows, &[input], |output| Op::MulConstant { input, output, factor }))
    }

    /// Rows of their own, to be changed where they are.
    pub fn copy(&mut self, input: Var) -> Result<Var> {
        let rows = self.backend.scale(&self.buffer(input)?, 1.0)?;
        Ok(self.push_op(rows, &[input], |output| Op::Identity { input, output }))
    }

    /// Each column times its factor `(1, width)`. Uses `onto` up.
    pub fn scale_channels(&mut self, target: Var, factors: Var) -> Result<Var> {
        let factor_rows = self.buffer(factors)?;
        let inputs = [target, factors];
        let x = self.any_requires_grad(&inputs).then(|| self.buffer(target)).transpose()?;
        self.update_in_place(
            target,
            &inputs,
            |kernels, rows, range| kernels.scale_channels(rows, range, &factor_rows),
            |output| x.map(|x| Op::ScaleChannels { target, factors, output, x, factor_rows: factor_rows.clone() }),
        )
    }

    /// Each column plus its shift `(1, width)`. Uses `onto` up.
    pub fn add_channels(&mut self, target: Var, bias: Var) -> Result<Var> {
        let bias_row = self.buffer(bias)?;
        self.update_in_place(
            target,
            &[target, bias],
            |kernels, rows, range| kernels.add_channels(rows, range, &bias_row),
            |output| Some(Op::AddChannels { target, bias, output }),
        )
    }

    /// onto + s·added. Uses `onto` up.
    pub fn add_rows_scaled(&mut self, target: Var, added: Var, scale: f64) -> Result<Var> {
        let rows = self.buffer(added)?;
        self.update_in_place(
            target,
            &[target, added],
            |kernels, onto, range| kernels.add_rows_scaled(onto, range, &rows, scale),
            |output| Some(Op::AddRowsScaled { target, added, output, scale }),
        )
    }

    /// onto + s·b with a frozen map's bias, where it has one. Uses `onto` up.
    pub fn add_bias(&mut self, target: Var, linear: &FrozenLinear, scale: f64) -> Result<Var> {
        let Some(bias) = &linear.bias else { return Ok(target) };
        let bias = self.backend.scale(bias, scale)?;
        let shifts = self.constant(bias, Arc::new(RaggedLayout::one_row_per_sequence(1)));
        self.add_channels(target, shifts)
    }

    /// Virtual tokens in front of some sequences: each front's rows before every one of its sequences.
    pub fn prepend_rows(&mut self, input: Var, prefixes: &[PrependedRows<Var>]) -> Result<Var> {
        let layout = self.layout(input);
        let inputs: Vec<Var> = std::iter::once(input).chain(prefixes.iter().map(|front| front.rows)).collect();
        let buffers: Vec<Buffer> = prefixes.iter().map(|front| self.buffer(front.rows)).collect::<Result<_>>()?;
        let mut prefix_lengths = vec![0; layout.num_sequences()];
        let mut prefix_buffers = Vec::new();
        for (front, rows) in prefixes.iter().zip(&buffers) {
            prefix_lengths[front.sequences.clone()].fill(rows.rows());
            prefix_buffers.push(PrependedRows { sequences: front.sequences.clone(), rows });
        }
        let rows = self.backend.prepend_rows(&self.buffer(input)?, &layout, &prefix_buffers)?;
        let requires_grad = self.any_requires_grad(&inputs);
        let prefixed_layout = Arc::new(layout.with_prefix(prefix_lengths));
        let output = self.push_var(rows, prefixed_layout, requires_grad);
        if requires_grad {
            let [only] = prefixes else { unreachable!("one adapter is trained at a time") };
            let count = buffers[0].rows();
            self.ops.push(Op::PrependRows { input, prefix: only.rows, output, layout, prefix_rows: count });
        }
        Ok(output)
    }

    /// Single rows: `which` of each sequence, counted from its first real one.
    pub fn gather_rows<'a>(&mut self, input: Var, indices: impl IntoIterator<Item = &'a [u32]>) -> Result<Var> {
        let layout = self.layout(input);
        let (mut rows, mut lengths) = (Vec::new(), Vec::new());
        for (sequence, which) in indices.into_iter().enumerate() {
            let real_rows = layout.real_rows(sequence);
            rows.extend(which.iter().map(|row| real_rows.start as u32 + row));
            lengths.push(which.len());
        }
        assert_eq!(lengths.len(), layout.num_sequences(), "every sequence says its rows, if only none");
        let all = self.buffer(input)?;
        let picked = self.backend.gather_rows(&all, &rows)?;
        let requires_grad = self.any_requires_grad(&[input]);
        let output = self.push_var(picked, Arc::new(RaggedLayout::from_lengths(lengths)), requires_grad);
        if requires_grad {
            self.ops.push(Op::GatherRows { input, output, indices: rows.into(), row_count: all.rows() });
        }
        Ok(output)
    }

    /// What DoRA multiplies by: one over the lengths of the rows of W + s·B·A `(1, output)`, not differentiated.
    pub fn inverse_row_norms(&mut self, linear: &FrozenLinear, a: ParamId, b: ParamId, scale: f64) -> Result<Var> {
        let [a, b] = [a, b].map(|parameter| &self.parameters[parameter.0]);
        let lengths = weight_row_norms(self.backend.as_ref(), linear, a, b, scale)?.values;
        self.constant_row(lengths.into_iter().map(|length| 1.0 / length.max(f32::MIN_POSITIVE)).collect())
    }

    /// Changes rows that are used up: in place for a window.
    fn update_in_place(
        &mut self,
        target: Var,
        inputs: &[Var],
        compute: impl FnOnce(&dyn crate::Backend, Buffer, Range<usize>) -> Result<Buffer>,
        make_op: impl FnOnce(Var) -> Option<Op>,
    ) -> Result<Var> {
        let (base_var, range) = self.resolve_view(target);
        if self.pending_lora.base == Some(base_var) {
            self.flush_lora()?;
        }
        let base = self.consume(base_var);
        let rows = compute(self.backend.as_ref(), base, range)?;
        if base_var != target {
            self.values[base_var.0].buffer = Some(rows);
            return Ok(target);
        }
        let requires_grad = self.any_requires_grad(inputs);
        let output = self.push_var(rows, self.layout(target), requires_grad);
        if requires_grad {
            self.ops.extend(make_op(output));
        }
        Ok(output)
    }
}
