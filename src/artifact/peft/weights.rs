//! The tensors of a PEFT file under our names, strictly: nothing missing, nothing extra, every shape as the base has it.
//!
//! PEFT itself only warns of a missing tensor and ignores an extra one in silence; the adapter would then answer as
//! something that nobody trained.

use super::entries::{self, Entry};
use super::keys::{Form, Head, PREFIX};
use crate::adapter;
use crate::artifact::faults::Faults;
use crate::compute::Tensor;
use crate::error::Result;
use crate::model::SiteInfo;
use std::collections::BTreeMap;

type Tensors = BTreeMap<String, Tensor>;

/// From PEFT's keys to our names. `sites` are those that this adapter may touch, `hidden` the width of the pooled
/// features.
///
/// # Errors
/// `Invalid` (`adapter_tensors`) naming every missing, extra and misshapen tensor.
pub fn from_peft(mut tensors: Tensors, method: &adapter::Config, sites: &[SiteInfo], hidden: usize) -> Result<Tensors> {
    let form = form(&tensors, sites);
    let (mut faults, mut named) = (Faults::default(), Tensors::new());
    let labels = labels(&tensors);
    let has_head = tensors.keys().any(|key| Head::BOTH.iter().any(|head| head.is(key)));
    for entry in entries::of(method, sites, form) {
        match tensors.remove(&entry.key) {
            None => faults.add(format!("{} is missing", entry.key)),
            Some(tensor) => take(&entry, tensor, &mut named, &mut faults),
        }
    }
    for head in Head::BOTH {
        let keys: Vec<String> = tensors.keys().filter(|key| head.is(key)).cloned().collect();
        let shape = if head == Head::Weight { vec![labels, hidden] } else { vec![labels] };
        match keys.as_slice() {
            [] if has_head => faults.add(format!("{} is missing", head.key(method))),
            [] => {}
            [key] => match tensors.remove(key) {
                Some(tensor) if tensor.shape == shape => drop(named.insert(head.name().to_string(), tensor)),
                Some(tensor) => faults.add(misshapen(key, &tensor, &shape)),
                None => {}
            },
            [key, ..] => {
                faults.add(format!("{key} is there twice"));
                keys.iter().for_each(|key| drop(tensors.remove(key)));
            }
        }
    }
    tensors.keys().for_each(|key| faults.add(unknown(key, method, sites, form)));
    faults.finish("adapter_tensors", "the adapter's tensors do not fit its config and this base")?;
    Ok(named)
}

/// # Errors
/// `Invalid` (`adapter_tensors`) where an adapter has no head and needs one.
pub fn need_head(named: &Tensors, method: &adapter::Config) -> Result<()> {
    let mut faults = Faults::default();
    let missing = Head::BOTH.iter().filter(|head| !named.contains_key(head.name()));
    missing.for_each(|head| faults.add(format!("{} is missing", head.key(method))));
    faults.finish("adapter_tensors", "the adapter's tensors do not fit its config and this base")
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
pub fn to_peft(weights: &Tensors, method: &adapter::Config, sites: &[SiteInfo], form: Form) -> Tensors {
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
    for head in Head::BOTH {
        if let Some(tensor) = left.remove(&head.name().to_string()) {
            keyed.insert(head.key(method), tensor.clone());
        }
    }
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

fn misshapen(key: &str, tensor: &Tensor, expected: &[usize]) -> String {
    format!("{key} has the shape {:?}, expected {expected:?}", tensor.shape)
}

/// The rows of the head, as its weight or else its bias says.
fn labels(tensors: &Tensors) -> usize {
    let rows = |head: Head| tensors.iter().find(|(key, _)| head.is(key)).and_then(|(_, tensor)| tensor.shape.first());
    rows(Head::Weight).or_else(|| rows(Head::Bias)).copied().unwrap_or(0)
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
        (false, _) => format!("{key} is not a tensor of the method {} with a linear classifier", method.name()),
    }
}

#[cfg(test)]
mod tests;
