//! Per-channel scale and shift, dropout, row insertion and row selection.
//!
//! Operations that consume their target change it in place; the rows of a view change in the base value.

use super::op::Op;
use super::{ParamId, Recording, Tape, Var};
use crate::backend::{Buffer, FrozenLinear, PrependedRows, weight_row_norms};
use crate::error::Result;
use crate::seeded_rng::mix64;
use crate::{RaggedLayout, Tensor};
use std::ops::Range;
use std::sync::Arc;

impl Tape {
    /// A trainable matrix as rows, or a trainable vector as one row `(1, width)`.
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

    /// Elementwise product with a constant.
    pub fn mul_constant(&mut self, input: Var, constant: Var) -> Result<Var> {
        let factor = self.buffer(constant)?;
        let rows = self.backend.mul(&self.buffer(input)?, &factor)?;
        Ok(self.push_op(rows, &[input], |output| Op::MulConstant { input, output, factor }))
    }

    /// Copy that can be changed in place.
    pub fn copy(&mut self, input: Var) -> Result<Var> {
        let rows = self.backend.scale(&self.buffer(input)?, 1.0)?;
        Ok(self.push_op(rows, &[input], |output| Op::Identity { input, output }))
    }

    /// Multiplies each channel by its factor `(1, width)`. Consumes the target.
    pub fn scale_channels(&mut self, target: Var, factors: Var) -> Result<Var> {
        let factor_rows = self.buffer(factors)?;
        let inputs = [target, factors];
        let x = self.any_requires_grad(&inputs).then(|| self.buffer(target)).transpose()?;
        self.update_in_place(
            target,
            &inputs,
            |backend, rows, range| backend.scale_channels(rows, range, &factor_rows),
            |output| x.map(|x| Op::ScaleChannels { target, factors, output, x, factor_rows: factor_rows.clone() }),
        )
    }

    /// Adds the bias `(1, width)` to each row. Consumes the target.
    pub fn add_channels(&mut self, target: Var, bias: Var) -> Result<Var> {
        let bias_row = self.buffer(bias)?;
        self.update_in_place(
            target,
            &[target, bias],
            |backend, rows, range| backend.add_channels(rows, range, &bias_row),
            |output| Some(Op::AddChannels { target, bias, output }),
        )
    }

    /// target + s·added. Consumes the target.
    pub fn add_rows_scaled(&mut self, target: Var, added: Var, scale: f64) -> Result<Var> {
        let rows = self.buffer(added)?;
        self.update_in_place(
            target,
            &[target, added],
            |backend, target, range| backend.add_rows_scaled(target, range, &rows, scale),
            |output| Some(Op::AddRowsScaled { target, added, output, scale }),
        )
    }

    /// target + s·b with the bias of a frozen linear map, if it has one. Consumes the target.
    pub fn add_bias(&mut self, target: Var, linear: &FrozenLinear, scale: f64) -> Result<Var> {
        let Some(bias) = &linear.bias else { return Ok(target) };
        let bias = self.backend.scale(bias, scale)?;
        let bias = self.constant(bias, Arc::new(RaggedLayout::one_row_per_sequence(1)));
        self.add_channels(target, bias)
    }

    /// Inserts each prefix's rows before every one of its sequences.
    pub fn prepend_rows(&mut self, input: Var, prefixes: &[PrependedRows<Var>]) -> Result<Var> {
        let layout = self.layout(input);
        let inputs: Vec<Var> = std::iter::once(input).chain(prefixes.iter().map(|prefix| prefix.rows)).collect();
        let buffers: Vec<Buffer> = prefixes.iter().map(|prefix| self.buffer(prefix.rows)).collect::<Result<_>>()?;
        let mut prefix_lengths = vec![0; layout.num_sequences()];
        let mut prefix_buffers = Vec::new();
        for (prefix, rows) in prefixes.iter().zip(&buffers) {
            prefix_lengths[prefix.sequences.clone()].fill(rows.rows());
            prefix_buffers.push(PrependedRows { sequences: prefix.sequences.clone(), rows });
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

    /// Selects rows: `indices` of each sequence, counted from its first real row.
    pub fn gather_rows<'a>(&mut self, input: Var, indices: impl IntoIterator<Item = &'a [u32]>) -> Result<Var> {
        let layout = self.layout(input);
        let (mut rows, mut lengths) = (Vec::new(), Vec::new());
        for (sequence, selected) in indices.into_iter().enumerate() {
            let real_rows = layout.real_rows(sequence);
            rows.extend(selected.iter().map(|row| real_rows.start as u32 + row));
            lengths.push(selected.len());
        }
        assert_eq!(lengths.len(), layout.num_sequences(), "there is one list of rows for every sequence");
        let all = self.buffer(input)?;
        let gathered = self.backend.gather_rows(&all, &rows)?;
        let requires_grad = self.any_requires_grad(&[input]);
        let output = self.push_var(gathered, Arc::new(RaggedLayout::from_lengths(lengths)), requires_grad);
        if requires_grad {
            self.ops.push(Op::GatherRows { input, output, indices: rows.into(), row_count: all.rows() });
        }
        Ok(output)
    }

    /// DoRA's inverse row norms of W + s·B·A `(1, output)`, not differentiated.
    pub fn inverse_row_norms(&mut self, linear: &FrozenLinear, a: ParamId, b: ParamId, scale: f64) -> Result<Var> {
        let [a, b] = [a, b].map(|parameter| &self.parameters[parameter.0]);
        let norms = weight_row_norms(self.backend.as_ref(), linear, a, b, scale)?.values;
        self.constant_row(norms.into_iter().map(|norm| 1.0 / norm.max(f32::MIN_POSITIVE)).collect())
    }

    /// Consumes and updates the target, in place for a view.
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

/// Parameters of the dropout masks. A mask is a function of seed, step, example, site, row and column, never of the
/// split into micro-batches.
#[derive(Debug, Clone)]
pub struct Dropout {
    pub seed: u64,
    pub step: u64,
    /// Index of each sequence's example in the dataset.
    pub example_ids: Vec<u64>,
}

impl Dropout {
    /// Mask `(rows, width)` of 0 and `1/(1 − rate)`.
    pub fn mask(&self, layout: &RaggedLayout, width: usize, rate: f64, site_id: u64) -> Tensor {
        let keep_scale = (1.0 / (1.0 - rate)) as f32;
        let threshold = (rate * (1u64 << 32) as f64) as u64;
        let mut values = Vec::with_capacity(layout.num_rows() * width);
        for (sequence, example) in self.example_ids.iter().enumerate() {
            let key = mix64(mix64(mix64(self.seed) ^ self.step) ^ mix64(site_id) ^ example.rotate_left(17));
            for element in 0..(layout.length(sequence) * width) as u64 {
                let dropped = mix64(key ^ element) >> 32 < threshold;
                values.push(if dropped { 0.0 } else { keep_scale });
            }
        }
        Tensor::new([layout.num_rows(), width], values)
    }
}

impl Tape {
    /// Inverted dropout (Srivastava et al. 2014); every site has its own `site_id`. Does nothing while the tape does
    /// not record.
    pub fn dropout(&mut self, input: Var, rate: f64, site_id: u64) -> Result<Var> {
        let Recording::On(dropout) = &self.recording else { return Ok(input) };
        if rate == 0.0 {
            return Ok(input);
        }
        let x = self.buffer(input)?;
        let mask = dropout.mask(&self.layout(input), x.width(), rate, site_id);
        let mask = self.backend.upload(&mask)?;
        let rows = self.backend.mul(&x, &mask)?;
        Ok(self.push_op(rows, &[input], |output| Op::MulConstant { input, output, factor: mask }))
    }
}
