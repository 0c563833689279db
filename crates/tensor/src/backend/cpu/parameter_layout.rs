//! Layout of trainable parameters: matrices are stored transposed, so that GEMM reads them without packing.
//!
//! All tensors of an adapter share one allocation of exactly their size, so a thousand resident adapters take little
//! more than their files.

use super::lora::int8_matrix::{Int8Matrix, RankAxis};
use super::matrix::{Matrix, MatrixBuf};
use super::packing;
use super::simd::LANES;
use crate::Tensor;
use crate::backend::Parameter;
use std::sync::{Arc, OnceLock};

/// A trainable tensor and the copies of it that some operations read.
pub struct CpuParameter {
    /// A matrix transposed to `(input, output)`, or a vector as one row.
    pub value: Matrix,
    untransposed: OnceLock<Matrix>,
    int8: OnceLock<Int8Matrix>,
}

/// Copies the tensors into one allocation: `(output, input)` becomes `(input, output)`, vectors stay.
pub fn pack_parameters(tensors: &[Tensor]) -> Arc<[Parameter]> {
    let padded_len = |tensor: &Tensor| tensor.values.len().next_multiple_of(LANES);
    let mut buf = MatrixBuf::zeros_exact_size(1, tensors.iter().map(padded_len).sum());
    let mut remaining = buf.as_mut_slice();
    for tensor in tensors {
        let (slot, tail) = remaining.split_at_mut(padded_len(tensor));
        let slot = &mut slot[..tensor.values.len()];
        match tensor.shape[..] {
            [_, input] => packing::transpose(&tensor.values, input, slot),
            _ => slot.copy_from_slice(&tensor.values),
        }
        remaining = tail;
    }
    let (packed, mut offset) = (buf.freeze(), 0);
    let parameter = |tensor: &Tensor| {
        let [row_count, width] = match tensor.shape[..] {
            [output, input] => [input, output],
            _ => [1, tensor.values.len()],
        };
        let slice = packed.slice_flat(offset, row_count, width);
        offset += padded_len(tensor);
        Parameter::new(CpuParameter { value: slice, untransposed: OnceLock::new(), int8: OnceLock::new() })
    };
    tensors.iter().map(parameter).collect()
}

impl Parameter {
    pub(in crate::backend::cpu) fn as_cpu(&self) -> &CpuParameter {
        self.downcast_ref().expect("the parameter belongs to this backend")
    }
}

impl CpuParameter {
    /// The matrix `(output, input)`, transposed back on first use.
    pub fn untransposed(&self) -> &Matrix {
        self.untransposed.get_or_init(|| {
            let mut buf = MatrixBuf::new(self.value.width(), self.value.rows());
            packing::transpose(self.value.as_slice(), self.value.width(), buf.as_mut_slice());
            buf.freeze()
        })
    }

    /// The matrix in 8 bits, quantized on first use. A parameter is always quantized along the same axis.
    pub fn int8(&self, rank_axis: RankAxis) -> &Int8Matrix {
        self.int8.get_or_init(|| Int8Matrix::quantize(&self.value, rank_axis))
    }
}
