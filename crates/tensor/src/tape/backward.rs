//! Backward pass: from the gradient of the output to the gradients of the parameters.

use super::op::{AttentionOp, LoraOp, MaskArgs, Op};
use super::{ParamId, Tape, Var};
use crate::backend::{AttentionInput, Buffer, Direction};
use crate::error::Result;

/// Gradients by parameter; `None` for a parameter that no operation used.
pub type Gradients = Vec<Option<Buffer>>;

impl Tape {
    /// Returns the gradients of the parameters, given the gradient of `output`.
    pub fn backward(self, output: Var, gradient: Buffer) -> Result<Gradients> {
        Ok(self.backward_to_leaf(None, output, gradient, Vec::new())?.0)
    }

    /// Adds to the gradients of the tapes above this one (none at first), and returns the gradient of a leaf, too.
    pub fn backward_to_leaf(
        mut self,
        leaf: Option<Var>,
        output: Var,
        gradient: Buffer,
        mut parameters: Gradients,
    ) -> Result<(Gradients, Option<Buffer>)> {
        parameters.resize_with(self.parameters.len(), || None);
        let mut store = GradientStore { by_var: vec![None; self.values.len()], by_param: parameters };
        store.by_var[output.0] = Some(gradient);
        while let Some(op) = self.ops.pop() {
            if let Some(gradient) = store.by_var[op.output().0].take() {
                self.backward_op(op, gradient, &mut store)?;
            }
        }
        let leaf_gradient = leaf.and_then(|leaf| store.by_var[leaf.0].take());
        Ok((store.by_param, leaf_gradient))
    }

    fn backward_op(&self, op: Op, gradient: Buffer, store: &mut GradientStore) -> Result<()> {
        let backend = &self.backend;
        match op {
            Op::Linear { input, linear, .. } => {
                self.accumulate_var_into(store, input, |sum| backend.linear_backward(&gradient, &linear, sum))
            }
            Op::Dense { input, x, weight, bias, .. } => {
                self.backward_dense([weight, bias], &gradient, &x, store)?;
                let weight = &self.parameters[weight.0];
                self.accumulate_var(store, input, || backend.dense_backward_input(&gradient, weight))
            }
            Op::Lora(op) => self.backward_lora(op, gradient, store),
            Op::Norm { input, residual, saved, norm, .. } => {
                let inputs = [Some(input), residual];
                self.accumulate_shared(store, inputs, backend.norm_backward(&gradient, &saved, &norm)?)
            }
            Op::Identity { input, .. } => self.accumulate_var(store, input, || Ok(gradient)),
            Op::Parameter { parameter, .. } => self.accumulate_param(store, parameter, gradient),
            Op::ScaleChannels { target, factors, x, factor_rows: l, .. } => {
                self.accumulate_var(store, factors, || backend.sum_row_products(&gradient, &x))?;
                let rows = 0..gradient.rows();
                self.accumulate_var(store, target, || backend.scale_channels(gradient, rows, &l))
            }
            Op::AddChannels { target, bias, .. } => {
                self.accumulate_var(store, bias, || backend.sum_rows(&gradient))?;
                self.accumulate_var(store, target, || Ok(gradient))
            }
            Op::AddRowsScaled { target, added, scale, .. } => {
                self.accumulate_var(store, added, || backend.scale(&gradient, scale))?;
                self.accumulate_var(store, target, || Ok(gradient))
            }
            Op::PrependRows { input, prefix, layout, prefix_rows, .. } => {
                let [to_input, to_prefix] = backend.prepend_rows_backward(&gradient, &layout, prefix_rows)?;
                self.accumulate_var(store, prefix, || Ok(to_prefix))?;
                self.accumulate_var(store, input, || Ok(to_input))
            }
            Op::Attention(op) => self.backward_attention(op, &gradient, store),
            Op::Pool { input, layout, kind, .. } => {
                self.accumulate_var(store, input, || backend.pool_backward(&gradient, &layout, kind))
            }
            Op::GatherRows { input, indices, row_count, .. } => {
                self.accumulate_var(store, input, || backend.gather_rows_backward(&gradient, &indices, row_count))
            }
            Op::ApplyRotary { input, heads, rotary, positions, .. } => self.accumulate_var(store, input, || {
                backend.apply_rotary(gradient, heads, &rotary, &positions, Direction::Inverse)
            }),
            Op::SliceChannels { input, channels, width, .. } => {
                self.accumulate_var(store, input, || backend.scatter_channels(&gradient, channels, width))
            }
            Op::Glu { input, factors, .. } => {
                self.accumulate_var(store, input, || backend.glu_backward(&gradient, &factors))
            }
            Op::Mul { factors: [left, right], values: [l, r], .. } => {
                self.accumulate_var(store, left, || backend.mul(&gradient, &r))?;
                self.accumulate_var(store, right, || backend.mul(&gradient, &l))
            }
            Op::Reshape { input, width, .. } => self.accumulate_var(store, input, || backend.reshape(&gradient, width)),
            Op::MulConstant { input, factor, .. } => {
                self.accumulate_var(store, input, || backend.mul(&gradient, &factor))
            }
        }
    }

    /// Adds one gradient to both inputs of a sum.
    fn accumulate_shared(
        &self,
        store: &mut GradientStore,
        [input, other]: [Option<Var>; 2],
        sum: Buffer,
    ) -> Result<()> {
        for var in other.into_iter().chain(input) {
            self.accumulate_var(store, var, || Ok(sum.clone()))?;
        }
        Ok(())
    }

    /// Gradients of the weight and the bias of a trainable linear layer.
    fn backward_dense(
        &self,
        [weight, bias]: [ParamId; 2],
        gradient: &Buffer,
        x: &Buffer,
        store: &mut GradientStore,
    ) -> Result<()> {
        let gradients = self.backend.dense_backward_parameters(gradient, x)?;
        self.accumulate_param(store, weight, gradients.weight)?;
        self.accumulate_param(store, bias, gradients.bias)
    }

    fn backward_lora(&self, op: LoraOp, gradient: Buffer, store: &mut GradientStore) -> Result<()> {
        let LoraOp { target, input, x, projected, a, b, scale, .. } = op;
        let [a_rows, b_rows] = [a, b].map(|param| &self.parameters[param.0]);
        let projected_gradient = self.backend.lora_backward_projected(&gradient, b_rows, scale)?;
        let lora_gradients = self.backend.lora_backward_parameters(&gradient, &projected_gradient, &x, &projected)?;
        self.accumulate_param(store, a, lora_gradients.a)?;
        self.accumulate_param(store, b, lora_gradients.b)?;
        self.accumulate_var_into(store, input, |sum| {
            self.backend.lora_backward_input(&projected_gradient, a_rows, sum)
        })?;
        self.accumulate_var(store, target, || Ok(gradient))
    }

    fn backward_attention(&self, op: AttentionOp, gradient: &Buffer, store: &mut GradientStore) -> Result<()> {
        let ([query, key, value], [query_layout, key_layout]) = (&op.qkv, &op.layouts);
        let (heads, mask_context) = (op.heads, op.mask.as_ref().map(MaskArgs::context));
        let arguments = AttentionInput { query, key, value, query_layout, key_layout, heads, mask: mask_context };
        let gradients = self.backend.attention_backward(gradient, arguments, &op.saved)?;
        op.inputs.into_iter().zip(gradients).try_for_each(|(input, by)| self.accumulate_var(store, input, || Ok(by)))
    }

    /// Adds to the gradient of a value, if it requires one.
    fn accumulate_var(
        &self,
        store: &mut GradientStore,
        var: Var,
        gradient: impl FnOnce() -> Result<Buffer>,
    ) -> Result<()> {
        if !self.values[var.0].requires_grad {
            return Ok(());
        }
        let gradient = gradient()?;
        self.accumulate(&mut store.by_var[var.0], gradient)
    }

    /// Adds to the gradient of a value with an operation that takes an accumulator.
    fn accumulate_var_into(
        &self,
        store: &mut GradientStore,
        var: Var,
        gradient: impl FnOnce(Option<Buffer>) -> Result<Buffer>,
    ) -> Result<()> {
        if self.values[var.0].requires_grad {
            store.by_var[var.0] = Some(gradient(store.by_var[var.0].take())?);
        }
        Ok(())
    }

    fn accumulate_param(&self, store: &mut GradientStore, param: ParamId, gradient: Buffer) -> Result<()> {
        self.accumulate(&mut store.by_param[param.0], gradient)
    }

    fn accumulate(&self, sum: &mut Option<Buffer>, gradient: Buffer) -> Result<()> {
        *sum = Some(match sum.take() {
            Some(before) => self.backend.add(&before, &gradient)?,
            None => gradient,
        });
        Ok(())
    }
}

/// Gradients accumulated so far.
struct GradientStore {
    by_var: Vec<Option<Buffer>>,
    by_param: Gradients,
}
