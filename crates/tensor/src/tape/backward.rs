//! The way back: from the loss's gradient to the parameters'.

use super::node::{Attended, Node, Updated, Within};
use super::{Param, Rows, Tape};
use crate::error::Result;
use crate::kernels::{Attention, Buffer};
use crate::rotary::Way;

/// The gradients by parameter; `None` for one that did not take part.
pub type Gradients = Vec<Option<Buffer>>;

impl Tape {
    /// The parameters' gradients, given the loss's gradient by `output`.
    pub fn backward(self, output: Rows, gradient: Buffer) -> Result<Gradients> {
        Ok(self.backward_to(None, output, gradient, Vec::new())?.0)
    }

    /// The same, added to what tapes above this one have given (nothing, where they are none), and the gradient by a leaf.
    pub fn backward_to(
        mut self,
        leaf: Option<Rows>,
        output: Rows,
        gradient: Buffer,
        mut parameters: Gradients,
    ) -> Result<(Gradients, Option<Buffer>)> {
        parameters.resize_with(self.parameters.len(), || None);
        let mut walk = Walk { rows: vec![None; self.values.len()], parameters };
        walk.rows[output.0] = Some(gradient);
        while let Some(node) = self.nodes.pop() {
            if let Some(gradient) = walk.rows[node.output().0].take() {
                self.step_back(node, gradient, &mut walk)?;
            }
        }
        let by_leaf = leaf.and_then(|leaf| walk.rows[leaf.0].take());
        Ok((walk.parameters, by_leaf))
    }

    fn step_back(&self, node: Node, gradient: Buffer, walk: &mut Walk) -> Result<()> {
        let kernels = &self.kernels;
        match node {
            Node::Linear { input, map, .. } => {
                self.give_onto(walk, input, |onto| kernels.linear_backward(&gradient, &map, onto))
            }
            Node::Dense { input, x, weight, bias, .. } => {
                let by = kernels.dense_backward_parameters(&gradient, &x)?;
                self.learn_from(walk, weight, by.weight)?;
                self.learn_from(walk, bias, by.bias)?;
                self.give(walk, input, || kernels.dense_backward_input(&gradient, &self.parameters[weight.0]))
            }
            Node::LowRank(updated) => self.low_rank_back(updated, gradient, walk),
            Node::Norm { input, residual, saved, norm, .. } => {
                let by = kernels.norm_backward(&gradient, &saved, &norm)?;
                residual.map_or(Ok(()), |residual| self.give(walk, residual, || Ok(by.clone())))?;
                self.give(walk, input, || Ok(by))
            }
            Node::Pass { input, .. } => self.give(walk, input, || Ok(gradient)),
            Node::Parameter { parameter, .. } => self.learn_from(walk, parameter, gradient),
            Node::ScaleColumns { onto, factors, x, l, .. } => {
                self.give(walk, factors, || kernels.sum_products(&gradient, &x))?;
                let rows = 0..gradient.rows();
                self.give(walk, onto, || kernels.scale_columns(gradient, rows, &l))
            }
            Node::AddColumns { onto, shifts, .. } => {
                self.give(walk, shifts, || kernels.sum_rows(&gradient))?;
                self.give(walk, onto, || Ok(gradient))
            }
            Node::AddRows { onto, added, scale, .. } => {
                self.give(walk, added, || kernels.scale(&gradient, scale))?;
                self.give(walk, onto, || Ok(gradient))
            }
            Node::Prepend { input, front, layout, count, .. } => {
                let [own, before] = kernels.prepend_backward(&gradient, &layout, count)?;
                self.give(walk, front, || Ok(before))?;
                self.give(walk, input, || Ok(own))
            }
            Node::Attention(attended) => self.attention_back(attended, &gradient, walk),
            Node::Pool { input, layout, pool, .. } => {
                self.give(walk, input, || kernels.pool_backward(&gradient, &layout, pool))
            }
            Node::Pick { input, which, count, .. } => {
                self.give(walk, input, || kernels.pick_backward(&gradient, &which, count))
            }
            Node::Rotate { input, heads, rotation, positions, .. } => {
                self.give(walk, input, || kernels.rotate(gradient, heads, &rotation, &positions, Way::Back))
            }
            Node::Columns { input, columns, width, .. } => {
                self.give(walk, input, || kernels.spread_columns(&gradient, columns, width))
            }
            Node::Gated { input, factors, .. } => {
                self.give(walk, input, || kernels.gated_backward(&gradient, &factors))
            }
            Node::Product { factors: [left, right], values: [l, r], .. } => {
                self.give(walk, left, || kernels.multiply(&gradient, &r))?;
                self.give(walk, right, || kernels.multiply(&gradient, &l))
            }
            Node::Fold { input, width, .. } => self.give(walk, input, || kernels.fold(&gradient, width)),
            Node::Times { input, factor, .. } => self.give(walk, input, || kernels.multiply(&gradient, &factor)),
        }
    }

    fn low_rank_back(&self, updated: Updated, gradient: Buffer, walk: &mut Walk) -> Result<()> {
        let Updated { onto, input, x, projected, a, b, scale, .. } = updated;
        let [a_rows, b_rows] = [a, b].map(|param| &self.parameters[param.0]);
        let inner = self.kernels.low_rank_backward(&gradient, b_rows, scale)?;
        let by = self.kernels.low_rank_backward_parameters(&gradient, &inner, &x, &projected)?;
        self.learn_from(walk, a, by.a)?;
        self.learn_from(walk, b, by.b)?;
        self.give_onto(walk, input, |sum| self.kernels.low_rank_backward_input(&inner, a_rows, sum))?;
        self.give(walk, onto, || Ok(gradient))
    }

    fn attention_back(&self, attended: Attended, gradient: &Buffer, walk: &mut Walk) -> Result<()> {
        let ([query, key, value], [asking, layout]) = (&attended.qkv, &attended.layouts);
        let (heads, near) = (attended.heads, attended.within.as_ref().map(Within::near));
        let arguments = Attention { query, key, value, asking, layout, heads, near };
        let gradients = self.kernels.attention_backward(gradient, arguments, &attended.saved)?;
        attended.inputs.into_iter().zip(gradients).try_for_each(|(input, by)| self.give(walk, input, || Ok(by)))
    }

    /// Adds to the gradient of a value, where anything below it is trained.
    fn give(&self, walk: &mut Walk, to: Rows, gradient: impl FnOnce() -> Result<Buffer>) -> Result<()> {
        if !self.values[to.0].tracked {
            return Ok(());
        }
        let gradient = gradient()?;
        self.accumulate(&mut walk.rows[to.0], gradient)
    }

    /// The same for a gradient that can be computed on top of what is there.
    fn give_onto(
        &self,
        walk: &mut Walk,
        to: Rows,
        gradient: impl FnOnce(Option<Buffer>) -> Result<Buffer>,
    ) -> Result<()> {
        if self.values[to.0].tracked {
            walk.rows[to.0] = Some(gradient(walk.rows[to.0].take())?);
        }
        Ok(())
    }

    fn learn_from(&self, walk: &mut Walk, param: Param, gradient: Buffer) -> Result<()> {
        self.accumulate(&mut walk.parameters[param.0], gradient)
    }

    fn accumulate(&self, sum: &mut Option<Buffer>, gradient: Buffer) -> Result<()> {
        *sum = Some(match sum.take() {
            Some(before) => self.kernels.add(&before, &gradient)?,
            None => gradient,
        });
        Ok(())
    }
}

/// Gradients that are still on their way.
struct Walk {
    rows: Vec<Option<Buffer>>,
    parameters: Gradients,
}
