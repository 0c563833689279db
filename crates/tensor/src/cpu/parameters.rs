//! Trainable tensors, as products read them: matrices lie turned, so that a forward pass needs no panels of its own.
//!
//! All tensors of an adapter share one block of exactly their size: a thousand resident adapters take what their files
//! do.

use super::lanes::LANES;
use super::machine::rows;
use super::memory::{Draft, Matrix};
use super::octets::{Octets, Ranks};
use super::panels;
use crate::Tensor;
use crate::kernels::Parameter;
use std::sync::Arc;

/// `(output, input)` becomes `(input, output)`; vectors stay what they are.
pub fn place(tensors: &[Tensor]) -> Arc<[Parameter]> {
    let size = |tensor: &Tensor| tensor.values.len().next_multiple_of(LANES);
    let mut draft = Draft::exact(1, tensors.iter().map(size).sum());
    let mut rest = draft.values();
    for tensor in tensors {
        let (own, after) = rest.split_at_mut(size(tensor));
        let own = &mut own[..tensor.values.len()];
        match tensor.shape[..] {
            [_, input] => panels::turn(&tensor.values, input, own),
            _ => own.copy_from_slice(&tensor.values),
        }
        rest = after;
    }
    let (all, mut start) = (draft.done(), 0);
    let parameter = |tensor: &Tensor| {
        let [rows_of, width] = match tensor.shape[..] {
            [output, input] => [input, output],
            _ => [1, tensor.values.len()],
        };
        let own = all.part(start, rows_of, width);
        start += size(tensor);
        Parameter::new(rows(own))
    };
    tensors.iter().map(parameter).collect()
}

/// A matrix as it is, `(output, input)`.
pub fn backward(parameter: &Parameter) -> &Matrix {
    let plain = parameter.backward.get_or_init(|| {
        let forward = parameter.forward.host();
        let mut draft = Draft::new(forward.width(), forward.rows());
        panels::turn(forward.values(), forward.width(), draft.values());
        rows(draft.done())
    });
    plain.host()
}

/// One side of a low-rank update in bytes; each is always the same side.
pub fn octets(parameter: &Parameter, ranks: Ranks) -> &Octets {
    parameter.octets.get_or_init(|| Octets::of(parameter.forward.host(), ranks))
}
