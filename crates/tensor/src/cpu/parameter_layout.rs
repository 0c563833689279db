//! Trainable tensors, as products read them: matrices lie turned, so that a forward pass needs no panels of its own.
//!
//! All tensors of an adapter share one block of exactly their size: a thousand resident adapters take what their files
//! do.

use super::backend::buffer_from_matrix;
use super::int8_matrix::{Int8Matrix, RankAxis};
use super::matrix::{Matrix, MatrixBuf};
use super::packing;
use super::simd::LANES;
use crate::Tensor;
use crate::backend::Parameter;
use std::sync::Arc;

/// `(output, input)` becomes `(input, output)`; vectors stay what they are.
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
        Parameter::new(buffer_from_matrix(slice))
    };
    tensors.iter().map(parameter).collect()
}

/// A matrix as it is, `(output, input)`.
pub fn backward_matrix(parameter: &Parameter) -> &Matrix {
    let untransposed = parameter.backward_value.get_or_init(|| {
        let forward = parameter.value.as_matrix();
        let mut buf = MatrixBuf::new(forward.width(), forward.rows());
        packing::transpose(forward.as_slice(), forward.width(), buf.as_mut_slice());
        buffer_from_matrix(buf.freeze())
    });
    untransposed.as_matrix()
}

/// One side of a low-rank update in bytes; each is always the same side.
pub fn int8_matrix(parameter: &Parameter, rank_axis: RankAxis) -> &Int8Matrix {
    parameter.int8_value.get_or_init(|| Int8Matrix::quantize(parameter.value.as_matrix(), rank_axis))
}
