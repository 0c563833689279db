//! The forms in which PEFT writes keys.
//!
//! An adapter that was trained with a head names its modules as the headed model does (`bert.encoder.layer.0…`); one that
//! was trained on the bare encoder leaves the first segment out (`encoder.layer.0…`). Both are read.

use super::weights::Tensors;
use crate::artifact::Outline;
use crate::task;

pub const PREFIX: &str = "base_model.model.";

/// How module paths are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As in transformers' headed model.
    Headed,
    /// As in the encoder by itself: without the first segment.
    Bare,
}

impl Form {
    /// An adapter whose head is that of transformers' classification model, in which a decoder's has no bias, opens in it as a
    /// whole. Any other opens in the
    /// encoder, and its user pools: the classification models have no mean, and no heads but their own.
    pub fn of(task: &task::Config, weights: &Tensors, outline: &Outline) -> Self {
        // The language model of a decoder names its modules as its classification model does.
        if task.generates() {
            return Self::Headed;
        }
        let is_classifier = matches!(task, task::Config::SequenceClassification(_) | task::Config::Regression(_));
        let (pools_alike, theirs) = (outline.pooling(task) == outline.info.classified_by(), outline.info.head());
        let has_bias =
            || weights.get(task::head::BIAS).is_some_and(|bias| bias.values.iter().any(|value| *value != 0.0));
        let is_theirs = is_classifier && pools_alike && task.dense() == theirs.activation();
        if is_theirs && (theirs.has_bias || !has_bias()) { Self::Headed } else { Self::Bare }
    }

    /// `path` is a headed one.
    pub fn path(self, path: &str) -> &str {
        match (self, path.split_once('.')) {
            (Self::Bare, Some((_, rest))) => rest,
            _ => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_with_its_first_segment_or_without() {
        let query = "bert.encoder.layer.3.attention.self.query";
        assert_eq!(Form::Headed.path(query), query);
        assert_eq!(Form::Bare.path(query), "encoder.layer.3.attention.self.query");
    }
}
