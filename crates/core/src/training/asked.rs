//! The words that a language model is to find: hidden ones, drawn anew in every epoch and always the same where the model is
//! measured, or those that come next.

use super::Spec;
use super::network::Source;
use crate::error::Result;
use crate::model::{Base, Masking, Tokens};
use crate::task::{Config, Target, causal_language_model, masked_language_model};
use espalier_tensor::random::Random;
use std::sync::Arc;

#[derive(Clone)]
pub enum Asked {
    Hidden { masking: Arc<Masking>, config: masked_language_model::Config, seed: u64 },
    Next,
}

/// What the hidden tokens are a function of beside the seed and the example.
#[derive(Debug, Clone, Copy)]
pub enum Moment {
    Epoch(u64),
    Measured,
}

impl Asked {
    /// Where the task is a language model.
    pub fn of(base: &Base, spec: &Spec) -> Option<Self> {
        match &spec.task {
            Config::MaskedLanguageModel(config) => {
                let masking = Arc::new(base.tokenizer().masking()?);
                Some(Self::Hidden { masking, config: config.clone(), seed: spec.hyperparameters.seed })
            }
            task if task.generates() => Some(Self::Next),
            _ => None,
        }
    }

    /// How many tokens of a sequence are asked for.
    pub fn count(&self, tokens: &Tokens) -> usize {
        match self {
            Self::Hidden { masking, config, .. } => config.count(tokens, masking),
            Self::Next => tokens.picked.len(),
        }
    }

    /// Whether the base reads the same in every epoch.
    pub fn is_steady(&self) -> bool {
        matches!(self, Self::Next)
    }

    /// Whether something can be learned from an example with these sequences.
    ///
    /// # Errors
    /// `Invalid` that says why nothing can.
    pub fn check(&self, target: &Target, sequences: &[Tokens]) -> Result<()> {
        match self {
            Self::Hidden { .. } => Ok(()),
            Self::Next => causal_language_model::check(target, sequences),
        }
    }

    /// The sources of these examples as the base is to read them, and the words to be found, end to end.
    pub fn ask(&self, source: Source, examples: &[usize], moment: Moment) -> (Source, Vec<u32>) {
        let Self::Hidden { masking, config, seed } = self else {
            let next = source.tokens.iter().flat_map(|tokens| causal_language_model::next(tokens)).collect();
            return (source, next);
        };
        let moment = match moment {
            Moment::Epoch(epoch) => epoch.to_string(),
            Moment::Measured => "measured".to_string(),
        };
        let one = |(tokens, example): (Arc<Tokens>, &usize)| {
            let random = Random::new(*seed, &["hidden", &moment, &example.to_string()]);
            let (tokens, hidden) = config.mask(&tokens, masking, random);
            (Arc::new(tokens), hidden)
        };
        let (tokens, hidden): (Vec<_>, Vec<_>) = source.tokens.into_iter().zip(examples).map(one).unzip();
        (Source::tokens(tokens), hidden.concat())
    }
}
