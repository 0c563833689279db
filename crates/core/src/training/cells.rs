//! The combinations of method, task and base that make no sense, each with what the API says to it (422).
//!
//! Everything that is not in this table is trained, and tested (`tests/methods.rs`).

use crate::adapter;
use crate::error::Fault;
use crate::model::{Info, Pooling, SiteInfo};
use crate::task;

/// What is asked for.
pub struct Asked<'a> {
    pub method: &'a adapter::Config,
    pub task: &'a task::Config,
    pub base: &'a Info,
    pub sites: &'a [SiteInfo],
}

pub struct Senseless {
    pub is: fn(&Asked) -> bool,
    /// The field of the job.
    pub pointer: &'static str,
    pub reason: &'static str,
}

pub const SENSELESS: [Senseless; 9] = [
    Senseless {
        is: |asked| matches!((asked.method, asked.task), (adapter::Config::Head(_), task::Config::Embedding(_))),
        pointer: "/method/type",
        reason: "an embedding has no head that could be trained: choose another method, for example lora",
    },
    Senseless {
        is: |asked| {
            matches!((asked.method, asked.task), (adapter::Config::Head(_), task::Config::MaskedLanguageModel(_)))
        },
        pointer: "/method/type",
        reason: "a masked language model's head is the base's own and frozen: choose another method, for example lora",
    },
    Senseless {
        is: |asked| matches!(asked.method, adapter::Config::Head(_)) && asked.task.generates(),
        pointer: "/method/type",
        reason: "a language model's head is the base's own and frozen: choose another method, for example lora",
    },
    Senseless {
        is: |asked| asked.task.generates() && !asked.base.generates,
        pointer: "/task/type",
        reason: "this base model does not say what comes next: it is an encoder, or its checkpoint has no language model's head",
    },
    Senseless {
        is: |asked| matches!(asked.task, task::Config::MaskedLanguageModel(_)) && asked.base.mask_token.is_none(),
        pointer: "/task/type",
        reason: "this base model's checkpoint has no masked language model's head, or its tokenizer no mask",
    },
    Senseless {
        is: |asked| matches!(asked.method, adapter::Config::Bias(_)) && adapter::bias::able(asked.sites).is_empty(),
        pointer: "/method/type",
        reason: "this base model has no biases that could be trained: choose another method, for example layer_norm",
    },
    Senseless {
        is: |asked| asked.lacks(Pooling::Cls) && !is_decoder(asked),
        pointer: "/task/pooling",
        reason: "this base model has no pooler: use \"mean\" or \"first\"",
    },
    Senseless {
        is: |asked| asked.lacks(Pooling::Last),
        pointer: "/task/pooling",
        reason: "this base model is an encoder, whose last token says no more than others: use \"mean\" or \"first\"",
    },
    Senseless {
        is: |asked| (asked.lacks(Pooling::Cls) || asked.lacks(Pooling::First)) && is_decoder(asked),
        pointer: "/task/pooling",
        reason: "this base model is a decoder, whose first token has seen no other: use \"last\" or \"mean\"",
    },
];

impl Asked<'_> {
    /// Whether this pooling is asked for, and the base does not offer it.
    fn lacks(&self, pooling: Pooling) -> bool {
        self.task.pooling() == Some(pooling) && !self.base.poolings.contains(&pooling)
    }
}

fn is_decoder(asked: &Asked) -> bool {
    asked.base.poolings.contains(&Pooling::Last)
}

/// Why it makes no sense, if it does not.
pub fn faults(asked: &Asked) -> Vec<Fault> {
    let senseless = SENSELESS.iter().filter(|cell| (cell.is)(asked));
    senseless.map(|cell| Fault::at_pointer(cell.pointer, cell.reason)).collect()
}

/// Whether another method would make sense of it.
pub fn is_methods_fault(asked: &Asked) -> bool {
    SENSELESS.iter().any(|cell| cell.pointer.starts_with("/method") && (cell.is)(asked))
}
