//! Our tensor names and PEFT's keys.
//!
//! A LoRA that was trained with a head names its modules as the headed model does (`bert.encoder.layer.0…`); one that
//! was trained on the bare encoder leaves the first segment out (`encoder.layer.0…`). Prompt-learning methods save the
//! head with one `model` fewer. All of them are read.

use crate::model::{Pooling, Site};

const PREFIX: &str = "base_model.model.";

/// Which half of a low-rank update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Half {
    /// `[rank, input]`
    A,
    /// `[output, rank]`
    B,
}

impl Half {
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    fn word(self) -> &'static str {
        match self {
            Self::A => "lora_A",
            Self::B => "lora_B",
        }
    }

    /// Our name, for example `layer.3.query.lora_A`.
    pub fn name(self, site: Site) -> String {
        format!("{site}.{}", self.word())
    }

    /// PEFT's key for the module at this path.
    pub fn key(self, path: &str) -> String {
        format!("{PREFIX}{path}.{}.weight", self.word())
    }
}

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

    pub fn key(self) -> &'static str {
        match self {
            Self::Weight => "base_model.model.classifier.weight",
            Self::Bias => "base_model.model.classifier.bias",
        }
    }

    fn key_of_prompt_learning(self) -> &'static str {
        match self {
            Self::Weight => "base_model.classifier.weight",
            Self::Bias => "base_model.classifier.bias",
        }
    }
}

/// What a key speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key<'a> {
    Lora(&'a str, Half),
    Head(Head),
    Other,
}

impl<'a> Key<'a> {
    pub fn parse(key: &'a str) -> Self {
        if let Some(head) =
            Head::BOTH.into_iter().find(|head| key == head.key() || key == head.key_of_prompt_learning())
        {
            return Self::Head(head);
        }
        let Some(rest) = key.strip_prefix(PREFIX) else { return Self::Other };
        let module = |half: Half| rest.strip_suffix(".weight")?.strip_suffix(half.word())?.strip_suffix('.');
        let found = Half::BOTH.into_iter().find_map(|half| Some(Self::Lora(module(half)?, half)));
        found.unwrap_or(Self::Other)
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
    /// transformers' classification model pools with BERT's pooler, so a `cls` adapter opens in it as a whole; any
    /// other opens in the encoder, and its user pools.
    pub fn of(pooling: Pooling) -> Self {
        match pooling {
            Pooling::Cls => Self::Headed,
            Pooling::Mean | Pooling::First => Self::Bare,
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

    const QUERY: &str = "bert.encoder.layer.3.attention.self.query";

    #[test]
    fn keys_are_those_that_peft_writes() {
        let key = Half::A.key(QUERY);
        assert_eq!(key, "base_model.model.bert.encoder.layer.3.attention.self.query.lora_A.weight");
        assert_eq!(Key::parse(&key), Key::Lora(QUERY, Half::A));
        let bare = Half::B.key(Form::Bare.path(QUERY));
        assert_eq!(bare, "base_model.model.encoder.layer.3.attention.self.query.lora_B.weight");
    }

    #[test]
    fn the_head_is_known_in_both_forms() {
        for key in ["base_model.model.classifier.bias", "base_model.classifier.bias"] {
            assert_eq!(Key::parse(key), Key::Head(Head::Bias));
        }
    }

    #[test]
    fn keys_of_other_methods_are_of_no_adapter_we_know() {
        for key in [
            "prompt_embeddings",
            "base_model.model.bert.encoder.layer.0.attention.self.query.lora_magnitude_vector",
            "base_model.model.bert.encoder.layer.0.attention.self.query.base_layer.bias",
            "base_model.model.classifier.modules_to_save.weight",
            "base_model.model.score.weight",
            "",
        ] {
            assert_eq!(Key::parse(key), Key::Other, "{key}");
        }
    }
}
