//! The words that a language model is to find: hidden ones, drawn anew in every epoch and always the same where the model is
//! measured, or those that come next.

use super::Spec;
use super::network::ForwardInput;
use crate::model::{BaseModel, MlmVocabulary, Tokens};
use crate::task::{Config, lm_tokenize, masked_language_model};
use espalier_tensor::seeded_rng::SeededRng;
use std::sync::Arc;

#[derive(Clone)]
pub enum LmLabels {
    Masked { masking: Arc<MlmVocabulary>, config: masked_language_model::Config, seed: u64 },
    NextToken,
}

/// What the hidden tokens are a function of beside the seed and the example.
#[derive(Debug, Clone, Copy)]
pub enum MaskingSeed {
    Epoch(u64),
    Evaluation,
}

impl LmLabels {
    /// Where the task is a language model.
    pub fn for_task(base: &BaseModel, spec: &Spec) -> Option<Self> {
        match &spec.task {
            Config::MaskedLanguageModel(config) => {
                let masking = Arc::new(base.tokenizer().mlm_vocabulary()?);
                Some(Self::Masked { masking, config: config.clone(), seed: spec.hyperparameters.seed })
            }
            task if task.is_generative() => Some(Self::NextToken),
            _ => None,
        }
    }

    /// How many tokens of a sequence are asked for.
    pub fn target_count(&self, tokens: &Tokens) -> usize {
        match self {
            Self::Masked { masking, config, .. } => config.mask_count(tokens, masking),
            Self::NextToken => tokens.target_positions.len(),
        }
    }

    /// Whether the base reads the same in every epoch.
    pub fn is_epoch_invariant(&self) -> bool {
        matches!(self, Self::NextToken)
    }

    /// The sources of these examples as the base is to read them, and the words to be found, end to end.
    pub fn apply(
        &self,
        input: ForwardInput,
        examples: &[usize],
        masking_seed: MaskingSeed,
    ) -> (ForwardInput, Vec<u32>) {
        let Self::Masked { masking, config, seed } = self else {
            let target_ids = input.tokens.iter().flat_map(|tokens| lm_tokenize::next_token_ids(tokens)).collect();
            return (input, target_ids);
        };
        let seed_part = match masking_seed {
            MaskingSeed::Epoch(epoch) => epoch.to_string(),
            MaskingSeed::Evaluation => "measured".to_string(),
        };
        let mask = |(tokens, example): (Arc<Tokens>, &usize)| {
            let random = SeededRng::new(*seed, &["hidden", &seed_part, &example.to_string()]);
            let (tokens, original_ids) = config.mask(&tokens, masking, random);
            (Arc::new(tokens), original_ids)
        };
        let (tokens, original_ids): (Vec<_>, Vec<_>) = input.tokens.into_iter().zip(examples).map(mask).unzip();
        (ForwardInput::from_tokens(tokens), original_ids.concat())
    }
}
