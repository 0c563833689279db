//! Operations with vectors and rows that are learned: scales, shifts, and rows in front of sequences.
//!
//! Those that say so use their first argument up; the rows of a window change where they are.

use super::node::Node;
use super::{Param, Recording, Rows, Tape};
use crate::columns::Front;
use crate::error::Result;
use crate::kernels::{Buffer, FrozenLinear};
use crate::{Packed, Tensor, dora};
use std::ops::Range;
use std::sync::Arc;

impl Tape {
    /// A trainable matrix as rows, or a trainable vector as one `(1, width)`.
    pub fn parameter(&mut self, parameter: Param) -> Result<Rows> {
        let rows = self.kernels.parameter_rows(&self.parameters[parameter.0])?;
        let count = rows.rows();
        let tracked = matches!(self.recording, Recording::On(_));
        let output = self.push(rows, Arc::new(Packed::from_lengths([count])), tracked);
        if tracked {
            self.nodes.push(Node::Parameter { parameter, output });
        }
        Ok(output)
    }

    /// A constant as one row `(1, width)`.
    pub fn row(&mut self, values: Vec<f32>) -> Result<Rows> {
        let rows = self.kernels.upload(&Tensor::new([1, values.len()], values))?;
        Ok(self.constant(rows, Arc::new(Packed::single_rows(1))))
    }

    /// Element by element.
    pub fn times(&mut self, input: Rows, constant: Rows) -> Result<Rows> {
        let factor = self.buffer(constant)?;
        let rows = self.kernels.multiply(&self.buffer(input)?, &factor)?;
        Ok(self.derive(rows, &[input], |output| Node::Times { input, output, factor }))
    }

    /// Rows of their own, to be changed where they are.
    pub fn copy(&mut self, input: Rows) -> Result<Rows> {
        let rows = self.kernels.scale(&self.buffer(input)?, 1.0)?;
        Ok(self.derive(rows, &[input], |output| Node::Pass { input, output }))
    }

    /// Each column times its factor `(1, width)`. Uses `onto` up.
    pub fn scale_columns(&mut self, onto: Rows, factors: Rows) -> Result<Rows> {
        let l = self.buffer(factors)?;
        let inputs = [onto, factors];
        let x = self.is_tracked(&inputs).then(|| self.buffer(onto)).transpose()?;
        self.change(
            onto,
            &inputs,
            |kernels, rows, range| kernels.scale_columns(rows, range, &l),
            |output| x.map(|x| Node::ScaleColumns { onto, factors, output, x, l: l.clone() }),
        )
    }

    /// Each column plus its shift `(1, width)`. Uses `onto` up.
    pub fn add_columns(&mut self, onto: Rows, shifts: Rows) -> Result<Rows> {
        let s = self.buffer(shifts)?;
        self.change(
            onto,
            &[onto, shifts],
            |kernels, rows, range| kernels.add_columns(rows, range, &s),
            |output| Some(Node::AddColumns { onto, shifts, output }),
        )
    }

    /// onto + s·added. Uses `onto` up.
    pub fn add_rows(&mut self, onto: Rows, added: Rows, scale: f64) -> Result<Rows> {
        let rows = self.buffer(added)?;
        self.change(
            onto,
            &[onto, added],
            |kernels, onto, range| kernels.add_within(onto, range, &rows, scale),
            |output| Some(Node::AddRows { onto, added, output, scale }),
        )
    }

    /// onto + s·b with a frozen map's bias, where it has one. Uses `onto` up.
    pub fn add_bias(&mut self, onto: Rows, map: &FrozenLinear, scale: f64) -> Result<Rows> {
        let Some(bias) = &map.bias else { return Ok(onto) };
        let bias = self.kernels.scale(bias, scale)?;
        let shifts = self.constant(bias, Arc::new(Packed::single_rows(1)));
        self.add_columns(onto, shifts)
    }

    /// Virtual tokens in front of some sequences: each front's rows before every one of its sequences.
    pub fn prepend(&mut self, input: Rows, fronts: &[Front<Rows>]) -> Result<Rows> {
        let layout = self.layout(input);
        let inputs: Vec<Rows> = std::iter::once(input).chain(fronts.iter().map(|front| front.rows)).collect();
        let buffers: Vec<Buffer> = fronts.iter().map(|front| self.buffer(front.rows)).collect::<Result<_>>()?;
        let mut counts = vec![0; layout.sequences()];
        let mut given = Vec::new();
        for (front, rows) in fronts.iter().zip(&buffers) {
            counts[front.sequences.clone()].fill(rows.rows());
            given.push(Front { sequences: front.sequences.clone(), rows });
        }
        let rows = self.kernels.prepend(&self.buffer(input)?, &layout, &given)?;
        let tracked = self.is_tracked(&inputs);
        let all = Arc::new(layout.behind(counts));
        let output = self.push(rows, all, tracked);
        if tracked {
            let [only] = fronts else { unreachable!("one adapter is trained at a time") };
            let count = buffers[0].rows();
            self.nodes.push(Node::Prepend { input, front: only.rows, output, layout, count });
        }
        Ok(output)
    }

    /// Single rows: `which` of each sequence, counted from its first real one.
    pub fn pick<'a>(&mut self, input: Rows, which: impl IntoIterator<Item = &'a [u32]>) -> Result<Rows> {
        let layout = self.layout(input);
        let (mut rows, mut lengths) = (Vec::new(), Vec::new());
        for (sequence, which) in which.into_iter().enumerate() {
            let real = layout.real(sequence);
            rows.extend(which.iter().map(|row| real.start as u32 + row));
            lengths.push(which.len());
        }
        assert_eq!(lengths.len(), layout.sequences(), "every sequence says its rows, if only none");
        let all = self.buffer(input)?;
        let picked = self.kernels.pick(&all, &rows)?;
        let tracked = self.is_tracked(&[input]);
        let output = self.push(picked, Arc::new(Packed::from_lengths(lengths)), tracked);
        if tracked {
            self.nodes.push(Node::Pick { input, output, which: rows.into(), count: all.rows() });
        }
        Ok(output)
    }

    /// What DoRA multiplies by: one over the lengths of the rows of W + s·B·A `(1, output)`, not differentiated.
    pub fn inverse_row_lengths(&mut self, map: &FrozenLinear, a: Param, b: Param, scale: f64) -> Result<Rows> {
        let [a, b] = [a, b].map(|parameter| &self.parameters[parameter.0]);
        let lengths = dora::row_lengths(self.kernels.as_ref(), map, a, b, scale)?.values;
        self.row(lengths.into_iter().map(|length| 1.0 / length.max(f32::MIN_POSITIVE)).collect())
    }

    /// Changes rows that are used up: in place for a window.
    fn change(
        &mut self,
        onto: Rows,
        inputs: &[Rows],
        compute: impl FnOnce(&dyn crate::Kernels, Buffer, Range<usize>) -> Result<Buffer>,
        node: impl FnOnce(Rows) -> Option<Node>,
    ) -> Result<Rows> {
        let (owner, range) = self.place(onto);
        if self.gathered.of == Some(owner) {
            self.settle()?;
        }
        let base = self.take(owner);
        let rows = compute(self.kernels.as_ref(), base, range)?;
        if owner != onto {
            self.values[owner.0].buffer = Some(rows);
            return Ok(onto);
        }
        let tracked = self.is_tracked(inputs);
        let output = self.push(rows, self.layout(onto), tracked);
        if tracked {
            self.nodes.extend(node(output));
        }
        Ok(output)
    }
}
