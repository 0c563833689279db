//! The shortest `target_modules` that select exactly the adapted sites.
//!
//! PEFT matches the ends of paths, and an end can match more than the adapted sites: BERT's `output.dense` is also the end of
//! `attention.output.dense`. If no end is exact, or some layers are not adapted, whole paths are listed.

use super::naming::ModuleNaming;
use crate::adapter::target_modules::has_module_suffix;
use crate::model::SiteInfo;
use std::collections::BTreeSet;

/// Returns the names in sorted order. `all_sites` are the sites of the checkpoint; `other_paths` are further modules of
/// transformers' model.
pub fn minimal_target_modules(
    all_sites: &[SiteInfo],
    other_paths: &[&str],
    adapted_sites: &[&SiteInfo],
    naming: ModuleNaming,
) -> Vec<String> {
    let all_paths: Vec<&str> = all_sites.iter().map(|info| naming.module_path(info)).collect();
    let adapted_paths: BTreeSet<&str> = adapted_sites.iter().map(|info| naming.module_path(info)).collect();
    let matches_only_adapted = |suffix: &str| {
        all_paths
            .iter()
            .chain(other_paths)
            .filter(|path| has_module_suffix(path, suffix))
            .all(|path| adapted_paths.contains(path))
    };
    let shortest_suffix =
        |path: &'_ str| path_suffixes(path).find(|suffix| matches_only_adapted(suffix)).map(str::to_string);
    let suffixes: Option<BTreeSet<String>> = adapted_paths.iter().map(|path| shortest_suffix(path)).collect();
    match suffixes {
        Some(suffixes) => suffixes.into_iter().collect(),
        None => adapted_paths.into_iter().map(str::to_string).collect(),
    }
}

/// The suffixes of a path after the layer's number, shortest first.
fn path_suffixes(path: &str) -> impl Iterator<Item = &str> {
    let segments = path.split('.').rev().take_while(|segment| segment.parse::<u64>().is_err());
    segments
        .scan(0, |length, segment| {
            *length += segment.len() + usize::from(*length > 0);
            Some(*length)
        })
        .map(|length| &path[path.len() - length..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::testing::tiny_bert_sites;
    use crate::model::Module;

    fn minimal_targets(is_adapted: impl Fn(&SiteInfo) -> bool) -> Vec<String> {
        let sites = tiny_bert_sites();
        let adapted_sites: Vec<&SiteInfo> = sites.iter().filter(|info| is_adapted(info)).collect();
        minimal_target_modules(&sites, &["classifier.dense"], &adapted_sites, ModuleNaming::WithHead)
    }

    #[test]
    fn module_in_every_layer_is_named_by_suffix() {
        assert_eq!(
            minimal_targets(|info| matches!(info.site.module, Module::Query | Module::Value)),
            ["query", "value"]
        );
        assert_eq!(minimal_targets(|info| info.site.module == Module::AttentionOutput), ["attention.output.dense"]);
        assert_eq!(minimal_targets(|info| info.site.module == Module::Pooler), ["pooler.dense"]);
    }

    #[test]
    fn ambiguous_suffix_falls_back_to_full_paths() {
        let paths = ["bert.encoder.layer.0.output.dense", "bert.encoder.layer.1.output.dense"];
        assert_eq!(minimal_targets(|info| info.site.module == Module::FeedForwardOut), paths);
    }

    #[test]
    fn partial_layers_are_full_paths() {
        let top_layer_key = minimal_targets(|info| info.site.layer == Some(1) && info.site.module == Module::Key);
        assert_eq!(top_layer_key, ["bert.encoder.layer.1.attention.self.key"]);
    }

    #[test]
    fn all_linear_layers_exclude_the_head() {
        let sites = tiny_bert_sites();
        let all: Vec<&SiteInfo> = sites.iter().collect();
        let suffixes = minimal_target_modules(&sites, &["classifier"], &all, ModuleNaming::WithHead);
        assert_eq!(suffixes, ["dense", "key", "query", "value"]);
        let suffixes = minimal_targets(|_| true);
        let names = ["intermediate.dense", "key", "output.dense", "pooler.dense", "query", "value"];
        assert_eq!(suffixes, names, "\"dense\" would match the head's");
    }
}
