//! A masked language model's hidden tokens: drawn anew in every epoch, and always the same where the model is measured.

use super::Spec;
use super::network::Source;
use crate::compute::random::Random;
use crate::model::{Base, Masking, Tokens};
use crate::task::{Config, masked_language_model};
use std::sync::Arc;

#[derive(Clone)]
pub struct Hiding {
    masking: Arc<Masking>,
    config: masked_language_model::Config,
    seed: u64,
    /// The base's words.
    pub vocabulary: usize,
}

/// What the hidden tokens are a function of beside the seed and the example.
#[derive(Debug, Clone, Copy)]
pub enum Moment {
    Epoch(u64),
    Measured,
}

impl Hiding {
    /// Where the task hides tokens.
    pub fn of(base: &Base, spec: &Spec) -> Option<Self> {
        let Config::MaskedLanguageModel(config) = &spec.task else { return None };
        let (masking, vocabulary) = (Arc::new(base.tokenizer().masking()?), base.info().vocabulary_size);
        Some(Self { masking, config: config.clone(), seed: spec.hyperparameters.seed, vocabulary })
    }

    /// How many tokens of a text are hidden.
    pub fn count(&self, tokens: &Tokens) -> usize {
        self.config.count(tokens, &self.masking)
    }

    /// The sources of these examples with hidden tokens, and which they were, end to end.
    pub fn hide(&self, source: Source, examples: &[usize], moment: Moment) -> (Source, Vec<u32>) {
        let moment = match moment {
            Moment::Epoch(epoch) => epoch.to_string(),
            Moment::Measured => "measured".to_string(),
        };
        let one = |(tokens, example): (Arc<Tokens>, &usize)| {
            let random = Random::new(self.seed, &["hidden", &moment, &example.to_string()]);
            let (tokens, hidden) = self.config.mask(&tokens, &self.masking, random);
            (Arc::new(tokens), hidden)
        };
        let (tokens, hidden): (Vec<_>, Vec<_>) = source.tokens.into_iter().zip(examples).map(one).unzip();
        (Source::tokens(tokens), hidden.concat())
    }
}
