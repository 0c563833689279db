//! The tensors of a PEFT file under our names, strictly: nothing missing, nothing extra, every shape as the base has it.
//!
//! PEFT itself only warns of a missing tensor and ignores an extra one in silence; the adapter would then answer as
//! something that nobody trained.

use super::Config;
use super::keys::{Form, Half, Head, Key};
use crate::artifact::faults::Faults;
use crate::compute::Tensor;
use crate::error::Result;
use crate::model::SiteInfo;
use std::collections::{BTreeMap, BTreeSet};

type Tensors = BTreeMap<String, Tensor>;

/// From PEFT's keys to our names. `sites` are the linear maps that this adapter may touch, `hidden` the width of the
/// pooled features.
///
/// # Errors
/// `Invalid` (`adapter_tensors`) naming every missing, extra and misshapen tensor.
pub fn from_peft(tensors: Tensors, config: &Config, sites: &[SiteInfo], hidden: usize) -> Result<Tensors> {
    let form = form(&tensors, sites);
    let rank = config.lora.as_ref().map_or(0, |lora| lora.rank);
    let meant = |path: &str| config.lora.as_ref().is_some_and(|lora| lora.rules.matches(path));
    let by_path: BTreeMap<&str, &SiteInfo> = sites.iter().map(|info| (form.path(&info.path), info)).collect();
    let mut faults = Faults::default();
    let mut left = expected(by_path.iter().filter(|(path, _)| meant(path)).map(|(path, _)| *path));
    let labels = labels(&tensors);
    let mut named = Tensors::new();
    for (key, tensor) in tensors {
        let found = match Key::parse(&key) {
            Key::Lora(path, half) if meant(path) => by_path.get(path).map(|info| {
                let shape = match half {
                    Half::A => vec![rank, info.input],
                    Half::B => vec![info.output, rank],
                };
                (half.key(path), half.name(info.site), shape)
            }),
            Key::Head(Head::Weight) => {
                Some((Head::Weight.key().into(), Head::Weight.name().into(), vec![labels, hidden]))
            }
            Key::Head(Head::Bias) => Some((Head::Bias.key().into(), Head::Bias.name().into(), vec![labels])),
            Key::Lora(..) | Key::Other => None,
        };
        match found {
            None => faults.add(unknown(&key, &by_path)),
            Some((canonical, _, _)) if !left.remove(&canonical) => faults.add(format!("{key} is there twice")),
            Some((_, _, shape)) if tensor.shape != shape => {
                faults.add(format!("{key} has the shape {:?}, expected {shape:?}", tensor.shape));
            }
            Some((_, name, _)) => {
                named.insert(name, tensor);
            }
        }
    }
    left.iter().for_each(|key| faults.add(format!("{key} is missing")));
    faults.finish("adapter_tensors", "the adapter's tensors do not fit its config and this base")?;
    Ok(named)
}

/// From our names to PEFT's keys. A name that belongs to no site is left as it is; reading would refuse it.
pub fn to_peft(weights: &Tensors, sites: &[SiteInfo], form: Form) -> Tensors {
    let mut keys: BTreeMap<String, String> =
        Head::BOTH.into_iter().map(|head| (head.name().to_string(), head.key().to_string())).collect();
    for info in sites {
        let path = form.path(&info.path);
        keys.extend(Half::BOTH.into_iter().map(|half| (half.name(info.site), half.key(path))));
    }
    weights.iter().map(|(name, tensor)| (keys.get(name).unwrap_or(name).clone(), tensor.clone())).collect()
}

/// The form in which most of the LoRA's keys are written.
fn form(tensors: &Tensors, sites: &[SiteInfo]) -> Form {
    let count = |form: Form| {
        let paths: BTreeSet<&str> = sites.iter().map(|info| form.path(&info.path)).collect();
        tensors.keys().filter(|key| matches!(Key::parse(key), Key::Lora(path, _) if paths.contains(path))).count()
    };
    if count(Form::Bare) > count(Form::Headed) { Form::Bare } else { Form::Headed }
}

/// The keys that a complete file holds.
fn expected<'a>(paths: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let head = Head::BOTH.into_iter().map(|head| head.key().to_string());
    paths.flat_map(|path| Half::BOTH.map(|half| half.key(path))).chain(head).collect()
}

/// The rows of the head, as its weight or else its bias says.
fn labels(tensors: &Tensors) -> usize {
    let find = |head| tensors.iter().find(|(key, _)| Key::parse(key) == Key::Head(head));
    let first = |(_, tensor): (&String, &Tensor)| tensor.shape.first().copied();
    find(Head::Weight).and_then(first).or_else(|| find(Head::Bias).and_then(first)).unwrap_or(0)
}

fn unknown(key: &str, by_path: &BTreeMap<&str, &SiteInfo>) -> String {
    match Key::parse(key) {
        Key::Lora(path, _) if by_path.contains_key(path) => {
            format!("{key} belongs to a module that target_modules does not name")
        }
        Key::Lora(..) => format!("{key} belongs to a module that this base does not have"),
        _ => format!("{key} is not a tensor of a LoRA with a linear classifier"),
    }
}

#[cfg(test)]
mod tests;
