//! The tensors of a PEFT file under our names, strictly: nothing missing, nothing extra, every shape as the base has it.
//!
//! PEFT itself only warns of a missing tensor and ignores an extra one in silence; the adapter would then answer as
//! something that nobody trained.

use super::head::HeadLayout;
use super::module_naming::{KEY_PREFIX, ModuleNaming};
use super::tensor_specs::{self, TensorSpec};
use crate::adapter;
use crate::artifact::validation_errors::ValidationErrors;
use crate::error::Result;
use crate::model::SiteInfo;
use espalier_tensor::Tensor;
use std::collections::BTreeMap;

pub type TensorMap = BTreeMap<String, Tensor>;

/// From PEFT's keys to our names. `sites` are those that this adapter may touch, `width` is that of the pooled features.
///
/// # Errors
/// `Invalid` (`adapter_tensors`) naming every missing, extra and misshapen tensor.
pub fn from_peft(
    mut tensors: TensorMap,
    method: &adapter::Config,
    sites: &[SiteInfo],
    head: Option<HeadLayout>,
    width: usize,
) -> Result<TensorMap> {
    let naming = detect_naming(&tensors, sites);
    let (mut errors, mut native_tensors) = (ValidationErrors::default(), TensorMap::new());
    for entry in tensor_specs::for_method(method, sites, naming) {
        match tensors.remove(&entry.key) {
            None => errors.push(format!("{} is missing", entry.key)),
            Some(tensor) => read_slices(&entry, tensor, &mut native_tensors, &mut errors),
        }
    }
    if let Some(head) = head {
        native_tensors.extend(head.extract(&mut tensors, method, width, &mut errors));
    }
    tensors.keys().for_each(|key| errors.push(unexpected_key(key, method, sites, naming)));
    errors.into_result("adapter_tensors", "the adapter's tensors do not fit its config and this base")?;
    Ok(native_tensors)
}

/// A file's tensor becomes ours.
fn read_slices(spec: &TensorSpec, tensor: Tensor, native_tensors: &mut TensorMap, errors: &mut ValidationErrors) {
    if tensor.shape != spec.shape {
        return errors.push(shape_mismatch(&spec.key, &tensor, &spec.shape));
    }
    let width = spec.shape.last().copied().unwrap_or(1).max(1);
    for slice in &spec.slices {
        let rows = tensor.values.chunks_exact(width);
        let values = rows.flat_map(|row| &row[slice.column_range.clone()]).copied().collect();
        native_tensors.insert(slice.name.clone(), Tensor::new(slice.shape.clone(), values));
    }
}

/// From our names to PEFT's keys. Tensors that belong to no entry are left under their names; reading would refuse them.
pub fn to_peft(
    weights: &TensorMap,
    method: &adapter::Config,
    sites: &[SiteInfo],
    naming: ModuleNaming,
    head: HeadLayout,
) -> TensorMap {
    let mut remaining: BTreeMap<&String, &Tensor> = weights.iter().collect();
    let mut peft_tensors = TensorMap::new();
    for spec in tensor_specs::for_method(method, sites, naming) {
        let slice_tensors: Option<Vec<&Tensor>> = spec.slices.iter().map(|part| remaining.remove(&part.name)).collect();
        let Some(parts) = slice_tensors else { continue };
        let width = spec.shape.last().copied().unwrap_or(1);
        let mut values = vec![0.0; spec.shape.iter().product()];
        for (part, tensor) in spec.slices.iter().zip(parts) {
            let rows = tensor.values.chunks_exact(part.column_range.len().max(1));
            for (row, slice_row) in values.chunks_exact_mut(width.max(1)).zip(rows) {
                row[part.column_range.clone()].copy_from_slice(slice_row);
            }
        }
        peft_tensors.insert(spec.key, Tensor::new(spec.shape, values));
    }
    head.write_to(method, |name| remaining.remove(name), &mut peft_tensors);
    peft_tensors.extend(remaining.into_iter().map(|(name, tensor)| (name.clone(), tensor.clone())));
    peft_tensors
}

/// The form in which most keys of modules are written.
pub fn detect_naming(tensors: &TensorMap, sites: &[SiteInfo]) -> ModuleNaming {
    let matching_keys = |form: ModuleNaming| tensors.keys().filter(|key| find_site(key, sites, form).is_some()).count();
    if matching_keys(ModuleNaming::Bare) > matching_keys(ModuleNaming::WithHead) {
        ModuleNaming::Bare
    } else {
        ModuleNaming::WithHead
    }
}

/// The site that a key speaks of.
fn find_site<'a>(key: &str, sites: &'a [SiteInfo], naming: ModuleNaming) -> Option<&'a SiteInfo> {
    let module_path = key.strip_prefix(KEY_PREFIX)?;
    let is_site_of_key = |info: &&SiteInfo| {
        module_path.strip_prefix(naming.strip_prefix(&info.module_path)).is_some_and(|rest| rest.starts_with('.'))
    };
    sites.iter().find(is_site_of_key)
}

pub fn shape_mismatch(key: &str, tensor: &Tensor, expected: &[usize]) -> String {
    format!("{key} has the shape {:?}, expected {expected:?}", tensor.shape)
}

fn unexpected_key(key: &str, method: &adapter::Config, sites: &[SiteInfo], naming: ModuleNaming) -> String {
    // Which of a module's tensors the method has is known from a module that it touches.
    let method_suffixes: Vec<String> = tensor_specs::for_method(method, sites, naming)
        .into_iter()
        .filter_map(|entry| {
            let info = find_site(&entry.key, sites, naming)?;
            entry
                .key
                .strip_prefix(&format!("{KEY_PREFIX}{}", naming.strip_prefix(&info.module_path)))
                .map(str::to_string)
        })
        .collect();
    let has_method_suffix = method_suffixes.iter().any(|end| key.ends_with(end.as_str()));
    match (has_method_suffix, find_site(key, sites, naming)) {
        (true, Some(_)) => format!("{key} belongs to a module that target_modules does not name"),
        (true, None) => format!("{key} belongs to a module that this base does not have"),
        (false, _) => format!("{key} is not a tensor of the method {} and its head", method.name()),
    }
}

#[cfg(test)]
mod tests;
