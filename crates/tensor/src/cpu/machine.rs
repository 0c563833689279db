//! A CPU with an instruction set, and the few things that most of its operations are put together from.

use super::activation::{Activate, Curve};
use super::elementwise::{Pairs, Two};
use super::lanes::Level;
use super::memory::{Draft, Matrix};
use super::product::{Left, Product, Right, Start};
use super::reduced::Form;
use crate::Tensor;
use crate::error::Result;
use crate::held::Activations;
use crate::kernels::{Buffer, Storage};
use std::marker::PhantomData;
use std::ops::Range;

/// The CPU with one instruction set.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    pub(super) level: Level,
    pub(super) held: Held,
    pub(super) activations: Activations,
}

/// How the base's weights are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Held {
    /// As numbers of 32 bits.
    #[default]
    Whole,
    /// As the checkpoint has them, where products can read that; else as numbers of 32 bits.
    AsIs,
    /// Rounded.
    Rounded(Form),
}

impl Cpu {
    /// With the best instruction set that this machine has.
    pub fn best() -> Self {
        Self::with(Level::best())
    }

    pub fn with(level: Level) -> Self {
        Self { level, held: Held::Whole, activations: Activations::F32 }
    }

    pub fn holding(self, held: Held) -> Self {
        Self { held, ..self }
    }

    /// left·right, onto a start.
    pub(super) fn product(&self, shape: [usize; 3], left: Left, right: Right, start: Start) -> Buffer {
        let [rows, depth, columns] = shape;
        let mut draft = Draft::new(rows, columns);
        let out = draft.values();
        self.level.run(Product { rows, depth, columns, left, right, start, out, out_step: columns });
        host(draft)
    }

    /// left·right, added to what is there.
    pub(super) fn product_onto(&self, shape: [usize; 3], left: Left, right: Right, onto: Option<Buffer>) -> Buffer {
        match onto {
            Some(onto) => self.product_within(shape, left, right, onto, 0..shape[0]),
            None => self.product(shape, left, right, Start::Zero),
        }
    }

    /// left·right, added to a range of rows: in place where nobody else has them.
    pub(super) fn product_within(
        &self,
        shape: [usize; 3],
        left: Left,
        right: Right,
        onto: Buffer,
        range: Range<usize>,
    ) -> Buffer {
        let [rows, depth, columns] = shape;
        assert_eq!(rows, range.len(), "what is added has the rows of the range");
        let mut draft = draft(onto);
        let out = &mut draft.values()[range.start * columns..range.end * columns];
        self.level.run(Product { rows, depth, columns, left, right, start: Start::Output, out, out_step: columns });
        host(draft)
    }

    pub(super) fn curve<C: Curve>(&self, input: &Matrix, derivative: Option<&mut Draft>) -> Matrix {
        self.level.run(Activate::<C> { input, derivative, curve: PhantomData })
    }

    /// Element by element.
    pub(super) fn pairs<O: Two>(&self, left: &Buffer, right: &Buffer) -> Result<Buffer> {
        let pairs = Pairs::<O>::new(left.host(), right.host());
        Ok(rows(self.level.run(pairs)))
    }
}

pub(super) fn rows(matrix: Matrix) -> Buffer {
    Buffer(Storage::Host(matrix))
}

/// Rows to be written on: in place where nobody else has them.
pub(super) fn draft(rows: Buffer) -> Draft {
    match rows.0 {
        Storage::Host(matrix) => matrix.into_draft(),
        Storage::Reduced(_) => unreachable!("a frozen weight is no rows"),
        Storage::Candle(_) => unreachable!("rows stay with the kernels that made them"),
    }
}

/// What was written, as rows.
pub(super) fn host(draft: Draft) -> Buffer {
    rows(draft.done())
}

pub(super) fn matrix(tensor: &Tensor) -> Matrix {
    let width = tensor.shape.last().copied().unwrap_or(1);
    Matrix::copied(tensor.values.len() / width.max(1), width, &tensor.values)
}

impl<'a> Left<'a> {
    pub(super) fn of(matrix: &'a Matrix) -> Self {
        Self::rows(matrix.values(), matrix.width())
    }

    pub(super) fn transposed(matrix: &'a Matrix) -> Self {
        Self::columns(matrix.values(), matrix.width())
    }
}

impl<'a> Right<'a> {
    pub(super) fn of(matrix: &'a Matrix) -> Self {
        Self::rows(matrix.spacious(), matrix.width())
    }
}
