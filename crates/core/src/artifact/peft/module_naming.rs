//! The forms in which PEFT writes keys.
//!
//! An adapter that was trained with a head names its modules as the headed model does (`bert.encoder.layer.0…`); one that
//! was trained on the bare encoder leaves the first segment out (`encoder.layer.0…`). Both are read.

use super::weights::TensorMap;
use crate::artifact::BaseSummary;
use crate::task;

pub const KEY_PREFIX: &str = "base_model.model.";

/// How module paths are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModuleNaming {
    /// As in transformers' headed model.
    WithHead,
    /// As in the encoder by itself: without the first segment.
    Bare,
}

impl ModuleNaming {
    /// An adapter whose head is that of transformers' classification model, in which a decoder's has no bias, opens in it as a
    /// whole. Any other opens in the
    /// encoder, and its user pools: the classification models have no mean, and no heads but their own.
    pub fn for_adapter(task: &task::Config, weights: &TensorMap, summary: &BaseSummary) -> Self {
        // The language model of a decoder names its modules as its classification model does.
        if task.is_generative() {
            return Self::WithHead;
        }
        let is_classifier = matches!(task, task::Config::SequenceClassification(_) | task::Config::Regression(_));
        let (has_same_pooling, transformers_head) =
            (summary.pooling(task) == summary.info.classification_pooling(), summary.info.classification_head());
        let has_bias =
            || weights.get(task::head::OUTPUT_BIAS).is_some_and(|bias| bias.values.iter().any(|value| *value != 0.0));
        let is_transformers_classifier =
            is_classifier && has_same_pooling && task.head_activation() == transformers_head.dense_activation();
        if is_transformers_classifier && (transformers_head.output_has_bias || !has_bias()) {
            Self::WithHead
        } else {
            Self::Bare
        }
    }

    /// `path` is a headed one.
    pub fn strip_prefix(self, path: &str) -> &str {
        match (self, path.split_once('.')) {
            (Self::Bare, Some((_, bare_path))) => bare_path,
            _ => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_naming_drops_the_first_segment() {
        let query_path = "bert.encoder.layer.3.attention.self.query";
        assert_eq!(ModuleNaming::WithHead.strip_prefix(query_path), query_path);
        assert_eq!(ModuleNaming::Bare.strip_prefix(query_path), "encoder.layer.3.attention.self.query");
    }
}
