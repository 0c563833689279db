//! PEFT's values of single modules, by patterns of their paths (`rank_pattern`, `alpha_pattern`).

use super::naming::ModuleNaming;
use super::target_selector::anchored_regex;
use crate::adapter::tensor_spec::{CONFIG_FILE, unsupported_file};
use crate::error::{Error, Result};
use crate::model::SiteInfo;
use regex::Regex;
use std::collections::BTreeMap;

/// Resolves a pattern (`rank_pattern`, `alpha_pattern`) to whole paths. PEFT uses the first entry that matches, but the entries of a
/// JSON object have no order.
///
/// # Errors
/// `Invalid` (`unsupported_adapter`) if several entries give one module different values.
pub fn expand_pattern<T: Copy + PartialEq>(
    field: &str,
    patterns: &BTreeMap<String, T>,
    targets: &[&SiteInfo],
    naming: ModuleNaming,
) -> Result<BTreeMap<String, T>> {
    let mut by_path = BTreeMap::new();
    for (name, value) in patterns {
        let regex = pattern_regex(field, name)?;
        for info in targets.iter().filter(|info| regex.is_match(naming.module_path(info))) {
            if by_path.insert(info.module_path.clone(), *value).is_some_and(|before| before != *value) {
                return Err(ambiguous_pattern(field, naming.module_path(info)));
            }
        }
    }
    Ok(by_path)
}

/// The value of a pattern (`rank_pattern`, `alpha_pattern`) for one path.
///
/// # Errors
/// As [`expand_pattern`].
pub fn pattern_value<T: Copy + PartialEq>(
    field: &str,
    patterns: &BTreeMap<String, T>,
    path: &str,
) -> Result<Option<T>> {
    let mut found = None;
    for (name, value) in patterns {
        if !pattern_regex(field, name)?.is_match(path) {
            continue;
        }
        if found.replace(*value).is_some_and(|before| before != *value) {
            return Err(ambiguous_pattern(field, path));
        }
    }
    Ok(found)
}

fn pattern_regex(field: &str, name: &str) -> Result<Regex> {
    anchored_regex(field, &format!(r"(?:.*\.)?(?:{name})"))
}

fn ambiguous_pattern(field: &str, path: &str) -> Error {
    unsupported_file(CONFIG_FILE, format!("several entries of {field} mean {path}: leave one"))
}
