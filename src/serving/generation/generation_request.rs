//! What a request for generated text asks, and how it becomes sequences.

use super::constraint::{ConstraintFactory, ConstraintSpec, TokenConstraint};
use super::detokenizer::{StopConditions, StopOutput};
use super::sampling;
use super::{GenerationStream, Prompt, SequenceRequest, check_context_length};
use crate::serving::adapters::AdapterHandle;
use crate::store::Adapter;
use espalier_core::error::{Error, FieldError, Problem, Result};
use espalier_core::model::BaseModel;
use std::sync::Arc;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Several texts may go on from each prompt.
pub struct GenerationRequest {
    pub prompts: Vec<Prompt>,
    pub sampling: sampling::SamplingParams,
    pub stop_sequences: Vec<String>,
    pub stop_output: StopOutput,
    /// What each answer has to be, where it is not free.
    pub constraint: Option<ConstraintSpec>,
    /// The server's usual number where it is left out, as far as the base reads.
    pub max_tokens: Option<u32>,
    /// Of each prompt.
    pub choices_per_prompt: u32,
}

/// A request that is under way: prompt by prompt its choices, and the version that answers.
pub struct RunningGeneration {
    pub adapter: Option<Arc<Adapter>>,
    pub streams: Vec<GenerationStream>,
    /// The server does not go down before it is dropped.
    pub(in crate::serving) _request_guard: TaskTrackerToken,
}

/// Stop strings of a request, and bytes of one.
const MAX_STOP_SEQUENCES: usize = 16;
const MAX_STOP_SEQUENCE_BYTES: usize = 1000;

/// What a server has room for.
#[derive(Debug, Clone, Copy)]
pub struct GenerationLimits {
    /// Tokens where a request does not say how many.
    pub default_max_tokens: u32,
    /// Rows of a sequence.
    pub max_sequence_length: usize,
    /// Texts of a request.
    pub max_sequences: usize,
}

impl GenerationRequest {
    /// # Errors
    /// `Invalid` with a pointer to each wrong field; `no_generation` for an adapter of another task; what the chat template
    /// says against a conversation.
    pub fn into_sequence_requests(
        self,
        base: &BaseModel,
        constraint_factory: &ConstraintFactory,
        handle: &AdapterHandle,
        version: &str,
        limits: GenerationLimits,
    ) -> Result<Vec<SequenceRequest>> {
        if let Some(adapter) = &handle.0
            && !adapter.manifest.task.is_generative()
        {
            let name = adapter.manifest.task.type_name();
            let detail = format!("an adapter for {name} does not say what comes next: ask it by POST /predict");
            return Err(Error::invalid("no_generation", detail));
        }
        self.validate(base, limits.max_sequences)?;
        let constraint = self.constraint.as_ref().map(|format| constraint_factory.compile(format)).transpose()?;
        let stop_token_ids = base.tokenizer().eos_ids().to_vec();
        let mut sequence_requests = Vec::new();
        for prompt in &self.prompts {
            let prompt_ids = tokenize_prompt(base, prompt)?;
            let available_tokens = base
                .info()
                .max_tokens
                .min(limits.max_sequence_length)
                .saturating_sub(prompt_ids.len() + handle.virtual_token_count());
            let max_tokens = self.max_tokens.unwrap_or(limits.default_max_tokens.min(available_tokens.max(1) as u32));
            check_context_length(base, handle, &prompt_ids, max_tokens as usize)?;
            for choice_index in 0..self.choices_per_prompt {
                let stop_conditions = StopConditions {
                    stop_sequences: self.stop_sequences.clone(),
                    stop_output: self.stop_output,
                    stop_token_ids: stop_token_ids.clone(),
                    max_tokens,
                };
                let (handle, version) = (handle.clone(), version.to_string());
                let (prompt, sampling) = (prompt_ids.clone(), self.sampling.clone());
                let constraint = constraint.as_ref().map(TokenConstraint::fork);
                sequence_requests.push(SequenceRequest {
                    adapter: handle,
                    version,
                    prompt_ids: prompt,
                    sampling,
                    stop_conditions,
                    constraint,
                    choice_index,
                });
            }
        }
        Ok(sequence_requests)
    }

    fn validate(&self, base: &BaseModel, max_sequences: usize) -> Result<()> {
        let sampling_errors = self.sampling.validate(base.info().vocabulary_size).into_iter();
        let mut field_errors: Vec<FieldError> = sampling_errors
            .map(|(field, message)| FieldError::at_pointer(format!("/{field}"), format!("{field} {message}")))
            .collect();
        let mut reject_if = |is_wrong: bool, field: &str, message: &str| {
            if is_wrong {
                field_errors.push(FieldError::at_pointer(format!("/{field}"), message));
            }
        };
        reject_if(self.max_tokens == Some(0), "max_tokens", "max_tokens must be at least 1");
        reject_if(self.stop_sequences.iter().any(String::is_empty), "stop", "a stop must not be empty");
        reject_if(self.stop_sequences.len() > MAX_STOP_SEQUENCES, "stop", "there may be 16 stops at most");
        let is_too_long = |stop: &String| stop.len() > MAX_STOP_SEQUENCE_BYTES;
        reject_if(self.stop_sequences.iter().any(is_too_long), "stop", "a stop may have 1000 bytes at most");
        let sequence_count = self.prompts.len().saturating_mul(self.choices_per_prompt as usize);
        let too_many_message =
            format!("{sequence_count} texts are too many for one request: ask for at most {max_sequences}");
        reject_if(sequence_count > max_sequences, "inputs", &too_many_message);
        reject_if(!(1..=128).contains(&self.choices_per_prompt), "n", "n must be between 1 and 128");
        reject_if(self.prompts.is_empty(), "inputs", "give at least one prompt");
        match field_errors.as_slice() {
            [] => Ok(()),
            [first, ..] => {
                let detail = format!("the request cannot be answered: {}", first.message);
                Err(Error::Invalid(Problem::new("invalid_generation", detail).with_errors(field_errors)))
            }
        }
    }
}

fn tokenize_prompt(base: &BaseModel, prompt: &Prompt) -> Result<Vec<u32>> {
    match prompt {
        Prompt::Text(text) => base.tokenizer().encode_prompt(text),
        Prompt::Tokens(ids) => match ids.iter().find(|id| **id as usize >= base.info().vocabulary_size) {
            None => Ok(ids.clone()),
            Some(id) => {
                Err(Error::invalid("invalid_generation", format!("the prompt's token {id} is not in the vocabulary")))
            }
        },
        Prompt::Messages { messages, template_options: asked } => base.tokenizer().encode_chat(messages, asked),
    }
}
