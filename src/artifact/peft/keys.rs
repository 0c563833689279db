//! The forms in which PEFT writes keys.
//!
//! An adapter that was trained with a head names its modules as the headed model does (`bert.encoder.layer.0…`); one that
//! was trained on the bare encoder leaves the first segment out (`encoder.layer.0…`). Prompt-learning methods save the
//! head with one `model` fewer. All of them are read.

use crate::adapter;
use crate::model::{Info, Pooling};

pub const PREFIX: &str = "base_model.model.";

/// A tensor of the classification head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Head {
    /// `[labels, hidden]`
    Weight,
    /// `[labels]`
    Bias,
}

impl Head {
    pub const BOTH: [Self; 2] = [Self::Weight, Self::Bias];

    pub fn name(self) -> &'static str {
        match self {
            Self::Weight => "head.weight",
            Self::Bias => "head.bias",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::Bias => "bias",
        }
    }

    /// The key as PEFT writes it for this method.
    pub fn key(self, method: &adapter::Config) -> String {
        let prefix = match method.virtual_tokens() {
            0 => PREFIX,
            _ => "base_model.",
        };
        format!("{prefix}classifier.{}", self.word())
    }

    /// Whether this is its key, in either form.
    pub fn is(self, key: &str) -> bool {
        let rest = key.strip_prefix(PREFIX).or_else(|| key.strip_prefix("base_model."));
        rest.and_then(|rest| rest.strip_prefix("classifier.")) == Some(self.word())
    }
}

/// How module paths are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As in transformers' headed model.
    Headed,
    /// As in the encoder by itself: without the first segment.
    Bare,
}

impl Form {
    /// transformers' classification model of BERT pools with BERT's pooler and has a linear head, so a `cls` adapter opens
    /// in it as a whole. Any other opens in the encoder, and its user pools: the other architectures' classification models
    /// have heads of their own.
    pub fn of(pooling: Pooling, info: &Info) -> Self {
        match pooling == Pooling::Cls && info.model_type == "bert" {
            true => Self::Headed,
            false => Self::Bare,
        }
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

    #[test]
    fn the_head_is_known_in_both_forms_and_in_no_other() {
        for key in ["base_model.model.classifier.bias", "base_model.classifier.bias"] {
            assert!(Head::Bias.is(key) && !Head::Weight.is(key), "{key}");
        }
        for key in
            ["base_model.model.classifier.modules_to_save.bias", "base_model.model.score.bias", "classifier.bias"]
        {
            assert!(!Head::Bias.is(key), "{key}");
        }
    }
}
