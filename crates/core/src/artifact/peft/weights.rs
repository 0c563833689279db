//! The tensors of a PEFT file under native names. Reading is strict: no tensor may be missing, extra or misshapen.
//!
//! PEFT warns of a missing tensor and ignores an extra one, so a damaged adapter would load there.

use super::head::HeadLayout;
use crate::adapter::peft::{KEY_PREFIX, ModuleNaming};
use crate::adapter::tensor_spec::ValidationErrors;
use crate::adapter::{self, TensorMap};
use crate::artifact::safetensors::{build_tensor, take_tensor};
use crate::error::Result;
use crate::model::SiteInfo;
use espalier_tensor::Tensor;
use std::collections::BTreeMap;

/// Converts PEFT's keys to native names. `sites` are those that the adapter may adapt; `hidden_size` is the width of the head's
/// input.
///
/// # Errors
/// `Invalid` (`adapter_tensors`) naming every missing, extra and misshapen tensor.
pub fn from_peft(
    mut tensors: TensorMap,
    method: &adapter::Config,
    sites: &[SiteInfo],
    head: Option<HeadLayout>,
    hidden_size: usize,
) -> Result<TensorMap> {
    let naming = detect_naming(&tensors, sites);
    let (mut errors, mut native_tensors) = (ValidationErrors::default(), TensorMap::new());
    for spec in method.tensor_specs(sites, naming) {
        take_tensor(&spec, &mut tensors, &mut native_tensors, &mut errors);
    }
    if let Some(head) = head {
        native_tensors.extend(head.extract(&mut tensors, method, hidden_size, &mut errors));
    }
    tensors.keys().for_each(|key| errors.push(unexpected_key(key, method, sites, naming)));
    errors.into_result("adapter_tensors", "the adapter's tensors do not fit its config and this base")?;
    Ok(native_tensors)
}

/// Converts native names to PEFT's keys. A tensor without a key keeps its name, and reading the file will reject it.
pub fn to_peft(
    weights: &TensorMap,
    method: &adapter::Config,
    sites: &[SiteInfo],
    naming: ModuleNaming,
    head: HeadLayout,
) -> TensorMap {
    let mut remaining: BTreeMap<&str, &Tensor> = weights.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut peft_tensors = TensorMap::new();
    for spec in method.tensor_specs(sites, naming) {
        if let Some(tensor) = build_tensor(&spec, |name| remaining.remove(name)) {
            peft_tensors.insert(spec.key, tensor);
        }
    }
    head.write_to(method, |name| remaining.remove(name), &mut peft_tensors);
    peft_tensors.extend(remaining.into_iter().map(|(name, tensor)| (name.to_string(), tensor.clone())));
    peft_tensors
}

/// Whether a key belongs to a module of the base, in either naming.
pub fn has_module_keys(tensors: &TensorMap, sites: &[SiteInfo]) -> bool {
    let is_module_key = |key: &String| {
        [ModuleNaming::WithHead, ModuleNaming::Bare].iter().any(|naming| find_site(key, sites, *naming).is_some())
    };
    tensors.keys().any(is_module_key)
}

/// The naming of most keys of modules.
pub fn detect_naming(tensors: &TensorMap, sites: &[SiteInfo]) -> ModuleNaming {
    let matching_keys =
        |naming: ModuleNaming| tensors.keys().filter(|key| find_site(key, sites, naming).is_some()).count();
    if matching_keys(ModuleNaming::Bare) > matching_keys(ModuleNaming::WithHead) {
        ModuleNaming::Bare
    } else {
        ModuleNaming::WithHead
    }
}

/// The site of a key.
fn find_site<'a>(key: &str, sites: &'a [SiteInfo], naming: ModuleNaming) -> Option<&'a SiteInfo> {
    sites.iter().find(|info| tensor_suffix(key, info, naming).is_some())
}

/// The part of a key after the site's module, with its dot; `None` for a key of another module.
fn tensor_suffix<'a>(key: &'a str, info: &SiteInfo, naming: ModuleNaming) -> Option<&'a str> {
    let suffix = key.strip_prefix(KEY_PREFIX)?.strip_prefix(naming.module_path(info))?;
    suffix.starts_with('.').then_some(suffix)
}

fn unexpected_key(key: &str, method: &adapter::Config, sites: &[SiteInfo], naming: ModuleNaming) -> String {
    // The method's tensors of a module, from the modules that it adapts.
    let is_of_method = method.tensor_specs(sites, naming).iter().any(|spec| {
        let info = find_site(&spec.key, sites, naming);
        info.and_then(|info| tensor_suffix(&spec.key, info, naming)).is_some_and(|suffix| key.ends_with(suffix))
    });
    match (is_of_method, find_site(key, sites, naming)) {
        (true, Some(_)) => format!("{key} belongs to a module that target_modules does not name"),
        (true, None) => format!("{key} belongs to a module that this base does not have"),
        (false, _) => format!("{key} is not a tensor of the method {} and its head", method.name()),
    }
}

#[cfg(test)]
mod tests;
