//! The combinations of method, task and base that make no sense, each with what the API says to it (422).
//!
//! Everything that is not in this table is trained, and tested (`tests/methods.rs`).

use crate::adapter;
use crate::error::FieldError;
use crate::model::{BaseModelInfo, Pooling, SiteInfo};
use crate::task;

/// What is asked for.
pub struct Combination<'a> {
    pub method: &'a adapter::Config,
    pub task: &'a task::Config,
    pub base: &'a BaseModelInfo,
    pub sites: &'a [SiteInfo],
}

pub struct Unsupported {
    pub applies: fn(&Combination) -> bool,
    /// The field of the job.
    pub pointer: &'static str,
    pub reason: &'static str,
}

pub const UNSUPPORTED: [Unsupported; 9] = [
    Unsupported {
        applies: |asked| matches!((asked.method, asked.task), (adapter::Config::Head(_), task::Config::Embedding(_))),
        pointer: "/method/type",
        reason: "an embedding has no head that could be trained: choose another method, for example lora",
    },
    Unsupported {
        applies: |asked| {
            matches!((asked.method, asked.task), (adapter::Config::Head(_), task::Config::MaskedLanguageModel(_)))
        },
        pointer: "/method/type",
        reason: "a masked language model's head is the base's own and frozen: choose another method, for example lora",
    },
    Unsupported {
        applies: |asked| matches!(asked.method, adapter::Config::Head(_)) && asked.task.is_generative(),
        pointer: "/method/type",
        reason: "a language model's head is the base's own and frozen: choose another method, for example lora",
    },
    Unsupported {
        applies: |asked| asked.task.is_generative() && !asked.base.is_causal_lm,
        pointer: "/task/type",
        reason: "this base model does not say what comes next: it is an encoder, or its checkpoint has no language model's head",
    },
    Unsupported {
        applies: |asked| matches!(asked.task, task::Config::MaskedLanguageModel(_)) && asked.base.mask_token.is_none(),
        pointer: "/task/type",
        reason: "this base model's checkpoint has no masked language model's head, or its tokenizer no mask",
    },
    Unsupported {
        applies: |asked| {
            matches!(asked.method, adapter::Config::Bias(_)) && adapter::bias::trainable_biases(asked.sites).is_empty()
        },
        pointer: "/method/type",
        reason: "this base model has no biases that could be trained: choose another method, for example layer_norm",
    },
    Unsupported {
        applies: |asked| asked.lacks_requested_pooling(Pooling::Cls) && !is_decoder(asked),
        pointer: "/task/pooling",
        reason: "this base model has no pooler: use \"mean\" or \"first\"",
    },
    Unsupported {
        applies: |asked| asked.lacks_requested_pooling(Pooling::Last),
        pointer: "/task/pooling",
        reason: "this base model is an encoder, whose last token says no more than others: use \"mean\" or \"first\"",
    },
    Unsupported {
        applies: |asked| {
            (asked.lacks_requested_pooling(Pooling::Cls) || asked.lacks_requested_pooling(Pooling::First))
                && is_decoder(asked)
        },
        pointer: "/task/pooling",
        reason: "this base model is a decoder, whose first token has seen no other: use \"last\" or \"mean\"",
    },
];

impl Combination<'_> {
    /// Whether this pooling is asked for, and the base does not offer it.
    fn lacks_requested_pooling(&self, pooling: Pooling) -> bool {
        self.task.pooling() == Some(pooling) && !self.base.poolings.contains(&pooling)
    }
}

fn is_decoder(combination: &Combination) -> bool {
    combination.base.poolings.contains(&Pooling::Last)
}

/// Why it makes no sense, if it does not.
pub fn check(combination: &Combination) -> Vec<FieldError> {
    let unsupported = UNSUPPORTED.iter().filter(|cell| (cell.applies)(combination));
    unsupported.map(|cell| FieldError::at_pointer(cell.pointer, cell.reason)).collect()
}

/// Whether another method would make sense of it.
pub fn is_unsupported_method(combination: &Combination) -> bool {
    UNSUPPORTED.iter().any(|cell| cell.pointer.starts_with("/method") && (cell.applies)(combination))
}
