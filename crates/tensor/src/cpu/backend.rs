//! A CPU with an instruction set, and the few things that most of its operations are put together from.

use super::activation::{ActivationFn, MapActivation};
use super::elementwise::{BinaryOp, ZipMap};
use super::gemm::{AccumulatorInit, Gemm, Lhs, Rhs};
use super::matrix::{Matrix, MatrixBuf};
use super::quant::QuantFormat;
use super::simd::Isa;
use crate::Tensor;
use crate::backend::{Buffer, Storage};
use crate::error::Result;
use crate::weight_ops::ActivationQuantization;
use std::marker::PhantomData;
use std::ops::Range;

/// The CPU with one instruction set.
#[derive(Debug, Clone, Copy)]
pub struct CpuBackend {
    pub(super) isa: Isa,
    pub(super) weight_storage: WeightStorage,
    pub(super) activations: ActivationQuantization,
}

/// How the base's weights are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightStorage {
    /// As numbers of 32 bits.
    #[default]
    F32,
    /// As the checkpoint has them, where products can read that; else as numbers of 32 bits.
    Native,
    /// Rounded.
    Quantized(QuantFormat),
}

impl CpuBackend {
    /// With the best instruction set that this machine has.
    pub fn detect() -> Self {
        Self::with_isa(Isa::detect())
    }

    pub fn with_isa(isa: Isa) -> Self {
        Self { isa, weight_storage: WeightStorage::F32, activations: ActivationQuantization::F32 }
    }

    pub fn with_weight_storage(self, weight_storage: WeightStorage) -> Self {
        Self { weight_storage, ..self }
    }

    /// left·right, onto a start.
    pub(super) fn gemm(&self, shape: [usize; 3], lhs: Lhs, rhs: Rhs, init: AccumulatorInit) -> Buffer {
        let [rows, k, columns] = shape;
        let mut buf = MatrixBuf::new(rows, columns);
        let out = buf.as_mut_slice();
        self.isa.run(Gemm { m: rows, k, n: columns, lhs, rhs, init, out, out_stride: columns });
        buffer_from_matrix_buf(buf)
    }

    /// left·right, added to what is there.
    pub(super) fn gemm_accumulate(&self, shape: [usize; 3], lhs: Lhs, rhs: Rhs, accumulator: Option<Buffer>) -> Buffer {
        match accumulator {
            Some(onto) => self.gemm_accumulate_rows(shape, lhs, rhs, onto, 0..shape[0]),
            None => self.gemm(shape, lhs, rhs, AccumulatorInit::Zero),
        }
    }

    /// left·right, added to a range of rows: in place where nobody else has them.
    pub(super) fn gemm_accumulate_rows(
        &self,
        shape: [usize; 3],
        lhs: Lhs,
        rhs: Rhs,
        accumulator: Buffer,
        row_range: Range<usize>,
    ) -> Buffer {
        let [rows, k, columns] = shape;
        assert_eq!(rows, row_range.len(), "what is added has the rows of the range");
        let mut buf = matrix_buf_from_buffer(accumulator);
        let out = &mut buf.as_mut_slice()[row_range.start * columns..row_range.end * columns];
        self.isa.run(Gemm {
            m: rows,
            k,
            n: columns,
            lhs,
            rhs,
            init: AccumulatorInit::Output,
            out,
            out_stride: columns,
        });
        buffer_from_matrix_buf(buf)
    }

    pub(super) fn map_activation<C: ActivationFn>(&self, input: &Matrix, derivative: Option<&mut MatrixBuf>) -> Matrix {
        self.isa.run(MapActivation::<C> { input, derivative, function: PhantomData })
    }

    /// Element by element.
    pub(super) fn zip_map<O: BinaryOp>(&self, lhs: &Buffer, rhs: &Buffer) -> Result<Buffer> {
        let kernel = ZipMap::<O>::new(lhs.as_matrix(), rhs.as_matrix());
        Ok(buffer_from_matrix(self.isa.run(kernel)))
    }
}

pub(super) fn buffer_from_matrix(matrix: Matrix) -> Buffer {
    Buffer(Storage::Cpu(matrix))
}

/// Rows to be written on: in place where nobody else has them.
pub(super) fn matrix_buf_from_buffer(buffer: Buffer) -> MatrixBuf {
    match buffer.0 {
        Storage::Cpu(matrix) => matrix.into_buf(),
        Storage::Quantized(_) => unreachable!("a frozen weight is no rows"),
        Storage::Candle(_) => unreachable!("rows stay with the kernels that made them"),
    }
}

/// What was written, as rows.
pub(super) fn buffer_from_matrix_buf(draft: MatrixBuf) -> Buffer {
    buffer_from_matrix(draft.freeze())
}

pub(super) fn matrix_from_tensor(tensor: &Tensor) -> Matrix {
    let width = tensor.shape.last().copied().unwrap_or(1);
    Matrix::from_slice(tensor.values.len() / width.max(1), width, &tensor.values)
}

impl<'a> Lhs<'a> {
    pub(super) fn from_matrix(matrix: &'a Matrix) -> Self {
        Self::row_major(matrix.as_slice(), matrix.width())
    }

    pub(super) fn from_matrix_transposed(matrix: &'a Matrix) -> Self {
        Self::row_major_transposed(matrix.as_slice(), matrix.width())
    }
}

impl<'a> Rhs<'a> {
    pub(super) fn from_matrix(matrix: &'a Matrix) -> Self {
        Self::row_major(matrix.as_padded_slice(), matrix.width())
    }
}
