//! Converts between the tensors of a file and native tensors, by [`TensorSpec`].

use crate::adapter::TensorMap;
use crate::adapter::file_errors::ValidationErrors;
use crate::adapter::tensor_spec::{TensorSpec, shape_mismatch};
use espalier_tensor::Tensor;

/// Moves one tensor out of `file_tensors` and inserts its native tensors. Records an error if it is missing or misshapen.
pub fn take_tensor(
    spec: &TensorSpec,
    file_tensors: &mut TensorMap,
    native_tensors: &mut TensorMap,
    errors: &mut ValidationErrors,
) {
    let Some(tensor) = file_tensors.remove(&spec.key) else {
        return errors.push(format!("{} is missing", spec.key));
    };
    if tensor.shape != spec.shape {
        return errors.push(shape_mismatch(&spec.key, &tensor.shape, &spec.shape));
    }
    let width = spec.shape.last().copied().unwrap_or(1).max(1);
    for slice in &spec.slices {
        let rows = tensor.values.chunks_exact(width);
        let values = rows.flat_map(|row| &row[slice.column_range.clone()]).copied().collect();
        native_tensors.insert(slice.name.clone(), Tensor::new(slice.shape.clone(), values));
    }
}

/// Builds the file's tensor from native ones. `take_native` returns a native tensor by name; returns `None` if it has not all of
/// them.
pub fn build_tensor<'a>(spec: &TensorSpec, mut take_native: impl FnMut(&str) -> Option<&'a Tensor>) -> Option<Tensor> {
    let slices: Vec<&Tensor> = spec.slices.iter().map(|slice| take_native(&slice.name)).collect::<Option<_>>()?;
    let width = spec.shape.last().copied().unwrap_or(1);
    let mut values = vec![0.0; spec.shape.iter().product()];
    for (slice, tensor) in spec.slices.iter().zip(slices) {
        let rows = tensor.values.chunks_exact(slice.column_range.len().max(1));
        for (row, slice_row) in values.chunks_exact_mut(width.max(1)).zip(rows) {
            row[slice.column_range.clone()].copy_from_slice(slice_row);
        }
    }
    Some(Tensor::new(spec.shape.clone(), values))
}
