//! The tensors of a PEFT file under our names, strictly: nothing missing, nothing extra, every shape as the base has it.
//!
//! PEFT itself only warns of a missing tensor and ignores an extra one in silence; the adapter would then answer as
//! something that nobody trained.

use super::entries::{self, Entry};
use super::head::Head;
use super::keys::{Form, PREFIX};
use crate::adapter;
use crate::artifact::faults::Faults;
use crate::error::Result;
use crate::model::SiteInfo;
use espalier_tensor::Tensor;
use std::collections::BTreeMap;

pub type Tensors = BTreeMap<String, Tensor>;

/// From PEFT's keys to our names. `sites` are those that this adapter may touch, `width` is that of the pooled features.
///
/// # Errors
/// `Invalid` (`adapter_tensors`) naming every missing, extra and misshapen tensor.
pub fn from_peft(
    mut tensors: Tensors,
    method: &adapter::Config,
    sites: &[SiteInfo],
    head: Option<Head>,
    width: usize,
) -> Result<Tensors> {
    let form = form(&tensors, sites);
    let (mut faults, mut named) = (Faults::default(), Tensors::new());
    for entry in entries::of(method, sites, form) {
        match tensors.remove(&entry.key) {
            None => faults.add(format!("{} is missing", entry.key)),
            Some(tensor) => take(&entry, tensor, &mut named, &mut faults),
        }
    }
    if let Some(head) = head {
        named.extend(head.take(&mut tensors, method, width, &mut faults));
    }
    tensors.keys().for_each(|key| faults.add(unknown(key, method, sites, form)));
    faults.finish("adapter_tensors", "the adapter's tensors do not fit its config and this base")?;
    Ok(named)
}

/// A file's tensor becomes ours.
fn take(entry: &Entry, tensor: Tensor, named: &mut Tensors, faults: &mut Faults) {
    if tensor.shape != entry.shape {
        return faults.add(misshapen(&entry.key, &tensor, &entry.shape));
    }
    let width = entry.shape.last().copied().unwrap_or(1).max(1);
    for part in &entry.parts {
        let rows = tensor.values.chunks_exact(width);
        let values = rows.flat_map(|row| &row[part.columns.clone()]).copied().collect();
        named.insert(part.name.clone(), Tensor::new(part.shape.clone(), values));
    }
}

/// From our names to PEFT's keys. Tensors that belong to no entry are left under their names; reading would refuse them.
pub fn to_peft(weights: &Tensors, method: &adapter::Config, sites: &[SiteInfo], form: Form, head: Head) -> Tensors {
    let mut left: BTreeMap<&String, &Tensor> = weights.iter().collect();
    let mut keyed = Tensors::new();
    for entry in entries::of(method, sites, form) {
        let parts: Option<Vec<&Tensor>> = entry.parts.iter().map(|part| left.remove(&part.name)).collect();
        let Some(parts) = parts else { continue };
        let width = entry.shape.last().copied().unwrap_or(1);
        let mut values = vec![0.0; entry.shape.iter().product()];
        for (part, tensor) in entry.parts.iter().zip(parts) {
            let rows = tensor.values.chunks_exact(part.columns.len().max(1));
            for (row, own) in values.chunks_exact_mut(width.max(1)).zip(rows) {
                row[part.columns.clone()].copy_from_slice(own);
            }
        }
        keyed.insert(entry.key, Tensor::new(entry.shape, values));
    }
    head.put(method, |name| left.remove(name), &mut keyed);
    keyed.extend(left.into_iter().map(|(name, tensor)| (name.clone(), tensor.clone())));
    keyed
}

/// The form in which most keys of modules are written.
pub fn form(tensors: &Tensors, sites: &[SiteInfo]) -> Form {
    let count = |form: Form| tensors.keys().filter(|key| module(key, sites, form).is_some()).count();
    if count(Form::Bare) > count(Form::Headed) { Form::Bare } else { Form::Headed }
}

/// The site that a key speaks of.
fn module<'a>(key: &str, sites: &'a [SiteInfo], form: Form) -> Option<&'a SiteInfo> {
    let rest = key.strip_prefix(PREFIX)?;
    let is_of = |info: &&SiteInfo| rest.strip_prefix(form.path(&info.path)).is_some_and(|rest| rest.starts_with('.'));
    sites.iter().find(is_of)
}

pub fn misshapen(key: &str, tensor: &Tensor, expected: &[usize]) -> String {
    format!("{key} has the shape {:?}, expected {expected:?}", tensor.shape)
}

fn unknown(key: &str, method: &adapter::Config, sites: &[SiteInfo], form: Form) -> String {
    // Which of a module's tensors the method has is known from a module that it touches.
    let ends: Vec<String> = entries::of(method, sites, form)
        .into_iter()
        .filter_map(|entry| {
            let info = module(&entry.key, sites, form)?;
            entry.key.strip_prefix(&format!("{PREFIX}{}", form.path(&info.path))).map(str::to_string)
        })
        .collect();
    let is_of_the_method = ends.iter().any(|end| key.ends_with(end.as_str()));
    match (is_of_the_method, module(key, sites, form)) {
        (true, Some(_)) => format!("{key} belongs to a module that target_modules does not name"),
        (true, None) => format!("{key} belongs to a module that this base does not have"),
        (false, _) => format!("{key} is not a tensor of the method {} and its head", method.name()),
    }
}

#[cfg(test)]
mod tests;
