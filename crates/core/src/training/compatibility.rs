//! Table of the unsupported combinations of method, task and base, with the reason that the API returns (422).
//!
//! Every combination that is not in the table can be trained, and is tested (`tests/service/methods.rs`).

use crate::adapter;
use crate::error::FieldError;
use crate::model::{BaseModelInfo, Pooling, SiteInfo};
use crate::task::{self, HeadType};

/// Method and task of a job on a base.
pub struct Combination<'a> {
    pub method: &'a adapter::Config,
    pub task: &'a task::Config,
    pub base: &'a BaseModelInfo,
    pub sites: &'a [SiteInfo],
}

/// Row of the table of unsupported combinations.
pub struct Unsupported {
    /// Whether a combination belongs to this row.
    pub applies: fn(&Combination) -> bool,
    /// Field of the job that has to change.
    pub pointer: &'static str,
    pub reason: &'static str,
}

pub const UNSUPPORTED: [Unsupported; 9] = [
    Unsupported {
        applies: |combination| combination.is_head_method_with(HeadType::Identity),
        pointer: "/method/type",
        reason: "an embedding has no trainable head: choose another method, for example lora",
    },
    Unsupported {
        applies: |combination| combination.is_head_method_with(HeadType::MaskedLm),
        pointer: "/method/type",
        reason: "the head of a masked language model is the base's own and frozen: choose another method, for example lora",
    },
    Unsupported {
        applies: |combination| combination.is_head_method_with(HeadType::CausalLm),
        pointer: "/method/type",
        reason: "the head of a language model is the base's own and frozen: choose another method, for example lora",
    },
    Unsupported {
        applies: |combination| combination.task.is_generative() && !combination.base.is_causal_lm,
        pointer: "/task/type",
        reason: "this base model does not generate text: it is an encoder, or its checkpoint has no language model head",
    },
    Unsupported {
        applies: |combination| {
            combination.task.head(&[]).kind == HeadType::MaskedLm && combination.base.mask_token.is_none()
        },
        pointer: "/task/type",
        reason: "this base model's checkpoint has no masked language model head, or its tokenizer has no mask",
    },
    Unsupported {
        applies: |combination| {
            matches!(combination.method, adapter::Config::Bias(_))
                && adapter::bias::trainable_biases(combination.sites).is_empty()
        },
        pointer: "/method/type",
        reason: "this base model has no trainable biases: choose another method, for example layer_norm",
    },
    Unsupported {
        applies: |combination| combination.lacks_requested_pooling(Pooling::Cls) && !is_decoder(combination),
        pointer: "/task/pooling",
        reason: "this base model has no pooler: use \"mean\" or \"first\"",
    },
    Unsupported {
        applies: |combination| combination.lacks_requested_pooling(Pooling::Last),
        pointer: "/task/pooling",
        reason: "this base model is an encoder, whose last token has no special role: use \"mean\" or \"first\"",
    },
    Unsupported {
        applies: |combination| {
            (combination.lacks_requested_pooling(Pooling::Cls) || combination.lacks_requested_pooling(Pooling::First))
                && is_decoder(combination)
        },
        pointer: "/task/pooling",
        reason: "this base model is a decoder, whose first token attends to no other: use \"last\" or \"mean\"",
    },
];

impl Combination<'_> {
    /// Whether only a head is to be trained, and the task's head is of this type.
    fn is_head_method_with(&self, head: HeadType) -> bool {
        matches!(self.method, adapter::Config::Head(_)) && self.task.head(&[]).kind == head
    }

    /// Whether the task has this pooling and the base does not offer it.
    fn lacks_requested_pooling(&self, pooling: Pooling) -> bool {
        self.task.pooling() == Some(pooling) && !self.base.poolings.contains(&pooling)
    }
}

fn is_decoder(combination: &Combination) -> bool {
    combination.base.poolings.contains(&Pooling::Last)
}

/// Reasons why the combination is unsupported.
pub fn check(combination: &Combination) -> Vec<FieldError> {
    let unsupported = UNSUPPORTED.iter().filter(|row| (row.applies)(combination));
    unsupported.map(|row| FieldError::at_pointer(row.pointer, row.reason)).collect()
}

/// Whether the combination is unsupported because of its method.
pub fn is_unsupported_method(combination: &Combination) -> bool {
    UNSUPPORTED.iter().any(|row| row.pointer.starts_with("/method") && (row.applies)(combination))
}
