//! A request for generated text: validation, and its conversion into sequences.

use super::constraint::TokenConstraint;
use super::constraint_spec::ConstraintSpec;
use super::detokenizer::Detokenizer;
use super::output::GenerationStream;
use super::prompt::Prompt;
use super::prompt_scoring::PromptScorer;
use super::sampling::{MAX_LOGPROBS, Sampler, SamplingParams};
use super::sequence::{DecodeFn, SequenceState};
use super::stop_sequences::{StopConditions, StopOutput};
use crate::serving::adapters::AdapterHandle;
use crate::serving::pinned_lru::Pinned;
use espalier_core::error::{Error, FieldError, Problem, Result};
use espalier_core::model::{BaseModel, TextLimits};
use espalier_tensor::kv_cache::KvCacheShape;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Most choices of a prompt.
pub const MAX_CHOICES: u32 = 128;

/// Limits of `stop`: number of sequences, and bytes of one.
const MAX_STOP_SEQUENCES: usize = 16;
const MAX_STOP_SEQUENCE_BYTES: usize = 1000;

/// A request for generated text: one or more completions per prompt.
pub struct GenerationRequest {
    pub prompts: Vec<Prompt>,
    /// Names of the request's fields, for errors.
    pub fields: RequestFields,
    pub sampling: SamplingParams,
    pub stop_sequences: Vec<String>,
    pub stop_output: StopOutput,
    pub constraint: Option<ConstraintSpec>,
    /// Special tokens whose texts are a part of the generated text.
    pub shown_special_tokens: Vec<&'static str>,
    pub max_tokens: MaxTokens,
    pub choices_per_prompt: u32,
    pub prompt_output: PromptOutput,
}

/// Names of the fields of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestFields {
    pub prompts: &'static str,
    /// Number of most likely tokens.
    pub logprobs: &'static str,
    /// JSON pointer to the response format.
    pub format: &'static str,
}

/// Limit on the generated tokens of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxTokens {
    /// The server's setting, or what the context leaves, if that is less.
    Default,
    /// At least 1; refused if the context leaves less.
    Exactly(u32),
    /// This number, or what the context leaves, if that is less. With 0 only the prompt is computed.
    AtMost(u32),
}

/// What is returned of the prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PromptOutput {
    #[default]
    None,
    /// Text and tokens.
    Text,
    /// Text and tokens, and the log probability of every token after the first, with this many most probable tokens at its position.
    Logprobs(u32),
}

/// Properties of the engine that sequences depend on.
pub struct SequenceContext<'a> {
    pub base: &'a Arc<BaseModel>,
    pub kv_cache_shape: KvCacheShape,
    pub default_max_tokens: u32,
    /// Rows of one sequence that the KV cache has room for.
    pub max_sequence_length: usize,
    /// Bytes of a prompt that are tokenized at most.
    pub max_text_bytes: usize,
    /// Ends tokenizing when it becomes true.
    pub is_cancelled: &'a AtomicBool,
}

impl GenerationRequest {
    /// Number of sequences to generate.
    pub fn sequence_count(&self) -> usize {
        self.prompts.len().saturating_mul(self.choices_per_prompt as usize)
    }

    /// Size of the prompts in bytes.
    pub fn text_bytes(&self) -> usize {
        self.prompts.iter().map(Prompt::text_bytes).sum()
    }

    /// Checks that an adapter is for a task that generates.
    ///
    /// # Errors
    /// `Invalid` (`no_generation`).
    pub fn check_adapter(adapter: &AdapterHandle) -> Result<()> {
        let Some(loaded) = adapter.loaded().filter(|loaded| !loaded.manifest.task.is_generative()) else {
            return Ok(());
        };
        let name = loaded.manifest.task.type_name();
        let detail = format!("an adapter for {name} does not generate text: use POST /predict");
        Err(Error::invalid("no_generation", detail))
    }

    /// Checks everything that needs no adapter and no tokenization.
    ///
    /// # Errors
    /// `Invalid` (`invalid_generation`) with a pointer to each invalid field.
    pub fn validate(&self, base: &BaseModel, max_sequences: usize) -> Result<()> {
        let field_errors = self.field_errors(base.info().vocabulary_size, max_sequences);
        match field_errors.as_slice() {
            [] => Ok(()),
            [first, ..] => {
                let detail = format!("the request cannot be answered: {}", first.message);
                Err(Error::Invalid(Problem::new("invalid_generation", detail).with_errors(field_errors)))
            }
        }
    }

    fn field_errors(&self, vocabulary_size: usize, max_sequences: usize) -> Vec<FieldError> {
        let sampling_errors = self.sampling.validate(vocabulary_size).into_iter();
        let to_error = |(field, message): (&'static str, String)| {
            let field = if field == "logprobs" { self.fields.logprobs } else { field };
            FieldError::at_pointer(format!("/{field}"), format!("{field} {message}"))
        };
        let mut field_errors: Vec<FieldError> = sampling_errors.map(to_error).collect();
        let mut reject_if = |is_invalid: bool, field: &str, message: &str| {
            if is_invalid {
                field_errors.push(FieldError::at_pointer(format!("/{field}"), message));
            }
        };
        reject_if(self.max_tokens == MaxTokens::Exactly(0), "max_tokens", "max_tokens must be at least 1");
        let prompt_logprobs = if let PromptOutput::Logprobs(count) = self.prompt_output { count } else { 0 };
        let too_many = format!("prompt_logprobs must be at most {MAX_LOGPROBS}, not {prompt_logprobs}");
        // `echo` takes the number from `logprobs`, whose error there is already.
        let is_own = self.sampling.logprobs != Some(prompt_logprobs);
        reject_if(prompt_logprobs > MAX_LOGPROBS && is_own, "prompt_logprobs", &too_many);
        reject_if(self.stop_sequences.iter().any(String::is_empty), "stop", "a stop sequence must not be empty");
        reject_if(
            self.stop_sequences.len() > MAX_STOP_SEQUENCES,
            "stop",
            &format!("at most {MAX_STOP_SEQUENCES} stop sequences are allowed"),
        );
        let is_too_long = |stop: &String| stop.len() > MAX_STOP_SEQUENCE_BYTES;
        reject_if(
            self.stop_sequences.iter().any(is_too_long),
            "stop",
            &format!("a stop sequence must be at most {MAX_STOP_SEQUENCE_BYTES} bytes"),
        );
        let sequence_count = self.sequence_count();
        let too_many = format!("{sequence_count} texts are too many for one request: ask for at most {max_sequences}");
        reject_if(sequence_count > max_sequences, self.fields.prompts, &too_many);
        let is_valid_count = (1..=MAX_CHOICES).contains(&self.choices_per_prompt);
        reject_if(!is_valid_count, "n", &format!("n must be between 1 and {MAX_CHOICES}"));
        reject_if(self.prompts.is_empty(), self.fields.prompts, "give at least one prompt");
        field_errors
    }

    /// Tokenizes the prompts. Returns each sequence with its stream, prompt by prompt.
    ///
    /// # Errors
    /// `Invalid` for a prompt that is empty or too long, or a conversation that the chat template rejects, with a pointer to the prompt.
    pub fn to_sequences(
        &self,
        context: &SequenceContext<'_>,
        adapter: &AdapterHandle,
        constraint: Option<&Pinned<TokenConstraint>>,
    ) -> Result<Vec<(SequenceState, GenerationStream)>> {
        let mut sequences = Vec::new();
        let sampling = Arc::new(self.sampling.clone());
        for (index, prompt) in self.prompts.iter().enumerate() {
            let about_prompt = |error: Error| error.about_field(&self.prompt_pointer(index));
            let limits = TextLimits {
                max_length: max_context_tokens(context.base, adapter),
                max_text_bytes: context.max_text_bytes,
                is_cancelled: context.is_cancelled,
            };
            let tokenize = || prompt.tokenize(context.base, limits).map_err(about_prompt);
            let prompt_ids = tracing::debug_span!("tokenize").in_scope(tokenize)?;
            let max_tokens = self.max_tokens_for(context, adapter, prompt_ids.len());
            check_context_length(context.base, adapter, &prompt_ids, max_tokens as usize).map_err(about_prompt)?;
            let prompt_text = match self.prompt_output {
                PromptOutput::None => None,
                PromptOutput::Text | PromptOutput::Logprobs(_) => {
                    Some(Arc::new(prompt.to_text(context.base, &prompt_ids)))
                }
            };
            for choice_index in 0..self.choices_per_prompt {
                let (mut sequence, mut stream) = SequenceState::new(
                    adapter.clone(),
                    context.kv_cache_shape,
                    prompt_ids.clone(),
                    max_tokens,
                    Sampler::new(Arc::clone(&sampling), &prompt_ids, choice_index),
                    self.detokenizer(context.base, &prompt_ids, max_tokens),
                    constraint.cloned(),
                );
                stream.prompt = prompt_text.clone();
                if let (0, PromptOutput::Logprobs(top_count)) = (choice_index, self.prompt_output) {
                    sequence.score_prompt(PromptScorer::new(top_count));
                    stream.scores_prompt = true;
                }
                sequences.push((sequence, stream));
            }
        }
        Ok(sequences)
    }

    /// JSON pointer to a prompt.
    fn prompt_pointer(&self, index: usize) -> String {
        match self.prompts.len() {
            1 => format!("/{}", self.fields.prompts),
            _ => format!("/{}/{index}", self.fields.prompts),
        }
    }

    fn max_tokens_for(&self, context: &SequenceContext<'_>, adapter: &AdapterHandle, prompt_length: usize) -> u32 {
        let max_rows = context.base.info().max_tokens.min(context.max_sequence_length);
        let available = max_rows.saturating_sub(prompt_length + adapter.virtual_token_count()).max(1) as u32;
        match self.max_tokens {
            MaxTokens::Default => context.default_max_tokens.min(available),
            MaxTokens::Exactly(max_tokens) => max_tokens,
            MaxTokens::AtMost(max_tokens) => max_tokens.min(available),
        }
    }

    fn detokenizer(&self, base: &Arc<BaseModel>, prompt_ids: &[u32], max_tokens: u32) -> Detokenizer<DecodeFn> {
        let stop_conditions = StopConditions {
            stop_sequences: self.stop_sequences.clone(),
            stop_output: self.stop_output,
            stop_token_ids: base.tokenizer().eos_ids().to_vec(),
            max_tokens,
        };
        let shown = self.shown_special_tokens.iter().filter_map(|token| base.tokenizer().token_to_id(token));
        let (base, shown): (Arc<BaseModel>, Vec<u32>) = (Arc::clone(base), shown.collect());
        let decode: DecodeFn = match shown.is_empty() {
            true => Box::new(move |ids| base.tokenizer().decode(ids)),
            false => Box::new(move |ids| base.tokenizer().decode_with(ids, &shown)),
        };
        Detokenizer::new(decode, prompt_ids, stop_conditions)
    }
}

/// Tokens of a prompt and its answer.
fn max_context_tokens(base: &BaseModel, adapter: &AdapterHandle) -> usize {
    base.info().max_tokens.saturating_sub(adapter.virtual_token_count())
}

/// # Errors
/// `Invalid`: `empty_input`, or `too_long` if prompt and answer exceed the context length.
fn check_context_length(base: &BaseModel, adapter: &AdapterHandle, prompt: &[u32], max_tokens: usize) -> Result<()> {
    if prompt.is_empty() {
        return Err(Error::invalid("empty_input", "the prompt must have at least one token"));
    }
    let max_context_tokens = max_context_tokens(base, adapter);
    let prompt_length = prompt.len();
    if prompt_length >= max_context_tokens && max_tokens > 0 {
        let detail = format!(
            "this model's maximum context length is {max_context_tokens} tokens with the answer, and the prompt has {prompt_length}: shorten it"
        );
        return Err(Error::invalid("too_long", detail));
    }
    if prompt_length.saturating_add(max_tokens) > max_context_tokens {
        let detail = format!(
            "this model's maximum context length is {max_context_tokens} tokens, but the prompt has {prompt_length} and {max_tokens} may be \
             generated: shorten the prompt, or lower max_tokens"
        );
        return Err(Error::invalid("too_long", detail));
    }
    Ok(())
}
