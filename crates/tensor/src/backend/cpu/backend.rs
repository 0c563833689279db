//! [`CpuBackend`] and the helpers that most operations share.

use super::activation::{ActivationFn, MapActivation};
use super::elementwise::{BinaryOp, ZipMap};
use super::gemm::{AccumulatorInit, Gemm, Lhs, Rhs};
use super::matrix::{Matrix, MatrixBuf};
use super::quant::QuantizedWeight;
use super::simd::Isa;
use crate::backend::{Buffer, DeviceBuffer};
use crate::error::Result;
use crate::quant::QuantFormat;
use crate::{ActivationQuantization, LoraPrecision, Tensor};
use std::marker::PhantomData;
use std::ops::Range;

/// CPU backend with one instruction set.
#[derive(Debug, Clone, Copy)]
pub struct CpuBackend {
    pub(super) isa: Isa,
    pub(super) weight_storage: WeightStorage,
    pub(super) activations: ActivationQuantization,
    /// Precision of A and B with int8 activations.
    pub(super) lora: LoraPrecision,
}

/// Storage of the base model's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightStorage {
    /// `f32`.
    #[default]
    F32,
    /// The checkpoint's format where the kernels can read it, else `f32`.
    Native,
    /// Quantized to this format at load.
    Quantized(QuantFormat),
}

impl CpuBackend {
    /// Backend with the best instruction set of this machine.
    pub fn detect() -> Self {
        Self::with_isa(Isa::detect())
    }

    pub fn with_isa(isa: Isa) -> Self {
        Self {
            isa,
            weight_storage: WeightStorage::F32,
            activations: ActivationQuantization::F32,
            lora: LoraPrecision::F32,
        }
    }

    pub fn with_weight_storage(self, weight_storage: WeightStorage) -> Self {
        Self { weight_storage, ..self }
    }

    /// init + lhs·rhs, for shapes `[m, k, n]`.
    pub(super) fn gemm(&self, shape: [usize; 3], lhs: Lhs, rhs: Rhs, init: AccumulatorInit) -> Buffer {
        let [rows, k, columns] = shape;
        let mut buf = MatrixBuf::new(rows, columns);
        let out = buf.as_mut_slice();
        self.isa.run(Gemm { m: rows, k, n: columns, lhs, rhs, init, out, out_stride: columns });
        buffer_from_matrix_buf(buf)
    }

    /// accumulator + lhs·rhs.
    pub(super) fn gemm_accumulate(&self, shape: [usize; 3], lhs: Lhs, rhs: Rhs, accumulator: Option<Buffer>) -> Buffer {
        match accumulator {
            Some(accumulator) => self.gemm_accumulate_rows(shape, lhs, rhs, accumulator, 0..shape[0]),
            None => self.gemm(shape, lhs, rhs, AccumulatorInit::Zero),
        }
    }

    /// Adds lhs·rhs to a range of rows, in place if nothing else shares them.
    pub(super) fn gemm_accumulate_rows(
        &self,
        shape: [usize; 3],
        lhs: Lhs,
        rhs: Rhs,
        accumulator: Buffer,
        row_range: Range<usize>,
    ) -> Buffer {
        let [rows, k, columns] = shape;
        assert_eq!(rows, row_range.len(), "the addend has the rows of the range");
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

    /// Applies a binary operation elementwise.
    pub(super) fn zip_map<O: BinaryOp>(&self, lhs: &Buffer, rhs: &Buffer) -> Result<Buffer> {
        let kernel = ZipMap::<O>::new(lhs.as_matrix(), rhs.as_matrix());
        Ok(buffer_from_matrix(self.isa.run(kernel)))
    }
}

impl DeviceBuffer for Matrix {
    fn rows(&self) -> usize {
        Self::rows(self)
    }

    fn width(&self) -> usize {
        Self::width(self)
    }
}

impl DeviceBuffer for QuantizedWeight {
    fn rows(&self) -> usize {
        self.out_features()
    }

    fn width(&self) -> usize {
        self.in_features()
    }

    fn is_quantized(&self) -> bool {
        true
    }
}

impl Buffer {
    /// # Panics
    /// If the buffer holds a quantized weight or belongs to another backend.
    pub(in crate::backend::cpu) fn as_matrix(&self) -> &Matrix {
        self.downcast_ref().expect("the buffer is an f32 matrix of this backend")
    }

    pub(in crate::backend::cpu) fn as_quantized(&self) -> Option<&QuantizedWeight> {
        self.downcast_ref()
    }
}

pub(super) fn buffer_from_matrix(matrix: Matrix) -> Buffer {
    Buffer::new(matrix)
}

/// Opens a matrix for writing: in place if nothing else shares it, else on a copy.
pub(super) fn matrix_buf_from_buffer(buffer: Buffer) -> MatrixBuf {
    let matrix: Matrix = buffer.downcast().expect("the buffer is an f32 matrix of this backend");
    matrix.into_buf()
}

pub(super) fn buffer_from_matrix_buf(buf: MatrixBuf) -> Buffer {
    Buffer::new(buf.freeze())
}

pub(super) fn matrix_from_tensor(tensor: &Tensor) -> Matrix {
    let width = tensor.shape.last().copied().unwrap_or(1);
    Matrix::from_slice(tensor.values.len() / width.max(1), width, &tensor.values)
}
