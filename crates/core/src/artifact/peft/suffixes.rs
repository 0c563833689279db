//! The shortest `target_modules` that mean exactly the sites an adapter touches.
//!
//! PEFT matches the ends of paths, and an end can catch more than is meant: BERT's `output.dense` is also the end of
//! `attention.output.dense`. Where no end fits, or not every layer is touched, whole paths are listed; the real PEFT
//! loads both.

use super::keys::Form;
use super::targets::ends_with;
use crate::model::SiteInfo;
use std::collections::BTreeSet;

/// Sorted. `all` holds every linear map of the checkpoint, `touched` some of them; `others` are paths of what transformers' model
/// has besides.
pub fn target_modules(all: &[SiteInfo], others: &[&str], touched: &[&SiteInfo], form: Form) -> Vec<String> {
    let all: Vec<&str> = all.iter().map(|info| form.path(&info.path)).collect();
    let touched: BTreeSet<&str> = touched.iter().map(|info| form.path(&info.path)).collect();
    let means_only_touched = |suffix: &str| {
        all.iter().chain(others).filter(|path| ends_with(path, suffix)).all(|path| touched.contains(path))
    };
    let shortest = |path: &'_ str| ends(path).find(|suffix| means_only_touched(suffix)).map(str::to_string);
    let suffixes: Option<BTreeSet<String>> = touched.iter().map(|path| shortest(path)).collect();
    match suffixes {
        Some(suffixes) => suffixes.into_iter().collect(),
        None => touched.into_iter().map(str::to_string).collect(),
    }
}

/// The ends of a path after its layer's number, shortest first.
fn ends(path: &str) -> impl Iterator<Item = &str> {
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
    use crate::artifact::testing;
    use crate::model::Module;

    fn targets(pick: impl Fn(&SiteInfo) -> bool) -> Vec<String> {
        let outline = testing::outline();
        let touched: Vec<&SiteInfo> = outline.sites.iter().filter(|info| pick(info)).collect();
        target_modules(&outline.sites, &["classifier.dense"], &touched, Form::Headed)
    }

    #[test]
    fn a_module_of_every_layer_is_named_by_its_end() {
        assert_eq!(targets(|info| matches!(info.site.module, Module::Query | Module::Value)), ["query", "value"]);
        assert_eq!(targets(|info| info.site.module == Module::AttentionOutput), ["attention.output.dense"]);
        assert_eq!(targets(|info| info.site.module == Module::Pooler), ["pooler.dense"]);
    }

    #[test]
    fn an_end_that_would_catch_more_becomes_whole_paths() {
        let paths = ["bert.encoder.layer.0.output.dense", "bert.encoder.layer.1.output.dense"];
        assert_eq!(targets(|info| info.site.module == Module::FeedForwardOut), paths);
    }

    #[test]
    fn some_layers_become_whole_paths() {
        let top = targets(|info| info.site.layer == Some(1) && info.site.module == Module::Key);
        assert_eq!(top, ["bert.encoder.layer.1.attention.self.key"]);
    }

    #[test]
    fn every_linear_map_is_named_without_the_head() {
        let outline = testing::outline();
        let all: Vec<&SiteInfo> = outline.sites.iter().collect();
        let ends = target_modules(&outline.sites, &["classifier"], &all, Form::Headed);
        assert_eq!(ends, ["dense", "key", "query", "value"]);
        let ends = targets(|_| true);
        let names = ["intermediate.dense", "key", "output.dense", "pooler.dense", "query", "value"];
        assert_eq!(ends, names, "\"dense\" would catch the head's");
    }
}
