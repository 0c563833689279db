//! One sequence on its way: what it has read and said, and who listens.

use super::batch_planner::SequenceDemand;
use super::constraint::TokenConstraint;
use super::detokenizer::{Detokenizer, FinishReason};
use super::request::{SequenceEvent, SequenceRequest, TokenOutput};
use super::sampling::Sampler;
use crate::serving::adapters::AdapterHandle;
use espalier_core::error::{Error, Result};
use espalier_core::model::{BaseModel, VirtualTokens};
use espalier_tensor::kv_cache::{KvCacheShape, SequenceKvCache};
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

type DecodeFn = Box<dyn Fn(&[u32]) -> String + Send>;

pub struct SequenceState {
    pub adapter: AdapterHandle,
    pub version: String,
    /// The prompt, and what has been said.
    token_ids: Vec<u32>,
    prompt_length: usize,
    /// Of `ids`, those whose rows are remembered.
    computed_tokens: usize,
    pub kv_cache: SequenceKvCache,
    sampler: Sampler,
    detokenizer: Detokenizer<DecodeFn>,
    constraint: Option<TokenConstraint>,
    events: UnboundedSender<SequenceEvent>,
    /// Its number among all that came.
    pub arrival_order: u64,
    /// Pages that it may need.
    pub reserved_blocks: usize,
    /// Of its full pages, those that are kept for others.
    pub cached_blocks: usize,
}

impl SequenceState {
    pub fn new(
        base: &Arc<BaseModel>,
        kv_cache_shape: KvCacheShape,
        request: SequenceRequest,
        events: UnboundedSender<SequenceEvent>,
    ) -> Self {
        let tokenizer_base = Arc::clone(base);
        let decode: DecodeFn = Box::new(move |ids| tokenizer_base.tokenizer().decode(ids));
        let max_rows = request.adapter.virtual_token_count()
            + request.prompt_ids.len()
            + request.stop_conditions.max_tokens as usize;
        Self {
            sampler: Sampler::new(request.sampling, &request.prompt_ids, request.choice_index),
            detokenizer: Detokenizer::new(decode, &request.prompt_ids, request.stop_conditions),
            constraint: request.constraint,
            prompt_length: request.prompt_ids.len(),
            token_ids: request.prompt_ids,
            computed_tokens: 0,
            kv_cache: SequenceKvCache::new(kv_cache_shape),
            adapter: request.adapter,
            version: request.version,
            events,
            arrival_order: 0,
            reserved_blocks: KvCacheShape::blocks_for_rows(max_rows),
            cached_blocks: 0,
        }
    }

    /// Whether somebody listens.
    pub fn has_receiver(&self) -> bool {
        !self.events.is_closed()
    }

    pub fn prompt_ids(&self) -> &[u32] {
        &self.token_ids[..self.prompt_length]
    }

    /// All that was read and said.
    pub fn token_ids(&self) -> &[u32] {
        &self.token_ids
    }

    /// Goes on from rows that are remembered of others, so many tokens of the prompt.
    pub fn resume_from_prefix(&mut self, kv_cache: SequenceKvCache, token_count: usize) {
        self.cached_blocks = kv_cache.full_blocks().len();
        (self.kv_cache, self.computed_tokens) = (kv_cache, token_count);
    }

    /// Tokens whose rows are still to be computed.
    pub fn uncomputed_tokens(&self) -> usize {
        self.token_ids.len() - self.computed_tokens
    }

    /// Whether it still reads its prompt.
    pub fn is_prefilling(&self) -> bool {
        self.computed_tokens < self.prompt_length
    }

    pub fn demand(&self) -> SequenceDemand {
        SequenceDemand {
            uncomputed_tokens: self.uncomputed_tokens(),
            is_prefilling: self.is_prefilling(),
            arrival_order: self.arrival_order,
        }
    }

    /// The next tokens to be computed.
    pub fn next_chunk(&self, max_tokens: usize) -> &[u32] {
        &self.token_ids[self.computed_tokens..self.token_ids.len().min(self.computed_tokens + max_tokens)]
    }

    /// What its adapter puts in front of a sequence.
    pub fn virtual_tokens(&self) -> VirtualTokens {
        self.adapter.0.as_ref().map_or(VirtualTokens::Disabled, |adapter| adapter.hooks.virtual_tokens())
    }

    /// The same before its first row, and nothing behind it.
    pub fn pending_virtual_tokens(&self) -> VirtualTokens {
        if self.kv_cache.is_empty() { self.virtual_tokens() } else { VirtualTokens::Disabled }
    }

    /// So many more of its tokens are remembered.
    pub fn advance(&mut self, kv_cache: SequenceKvCache, token_count: usize) {
        self.kv_cache = kv_cache;
        self.computed_tokens += token_count;
    }

    /// Says the next token, given its logits; whether that was the last.
    pub fn sample_next(&mut self, logits: &mut [f32]) -> bool {
        let finish_reason = self.sample_token(logits);
        match finish_reason {
            Ok(None) => return false,
            Ok(Some(finish_reason)) => self.finish_reason(finish_reason),
            Err(error) => self.fail(error),
        }
        true
    }

    fn sample_token(&mut self, logits: &mut [f32]) -> Result<Option<FinishReason>> {
        let step = (self.token_ids.len() - self.prompt_length) as u64;
        let allowed = self.constraint.as_mut().map(TokenConstraint::allowed_tokens).transpose()?;
        let Some(sampled) = self.sampler.sample(logits, step, allowed.as_ref()) else {
            return Err(Error::internal("the model answered with numbers that are not finite"));
        };
        self.token_ids.push(sampled.token_id);
        let is_complete =
            self.constraint.as_mut().map(|grammar| grammar.accept_token(sampled.token_id)).transpose()? == Some(true);
        let mut delta = self.detokenizer.push(sampled.token_id);
        if is_complete {
            delta.text += &self.detokenizer.flush();
            delta.finish_reason = Some(FinishReason::Stop);
        }
        let output = TokenOutput {
            token_id: sampled.token_id,
            text_delta: delta.text,
            text_offset: delta.offset,
            logprobs: sampled.logprobs,
        };
        self.emit(SequenceEvent::Token(output));
        Ok(delta.finish_reason)
    }

    pub fn finish_reason(&self, finish: FinishReason) {
        self.emit(SequenceEvent::Finished(finish));
    }

    pub fn fail(&self, error: Error) {
        self.emit(SequenceEvent::Failed(error));
    }

    fn emit(&self, event: SequenceEvent) {
        // Who has gone away hears nothing; the next step takes the sequence out.
        let _ = self.events.send(event);
    }
}

/// The same failure for several sequences.
pub fn fail_all(sequences: &[SequenceState], error: &Error) {
    for sequence in sequences {
        sequence.fail(Error::internal(format!("{error:#}")));
    }
}

/// The prompt's tokens where they can be gone on from.
///
/// # Errors
/// `Invalid`: `empty_input`, or `too_long` where prompt and answer do not fit into what the base reads.
pub fn check_context_length(base: &BaseModel, handle: &AdapterHandle, prompt: &[u32], max_tokens: usize) -> Result<()> {
    if prompt.is_empty() {
        return Err(Error::invalid("empty_input", "the prompt is empty: give it at least one word"));
    }
    let max_context_tokens = base.info().max_tokens.saturating_sub(handle.virtual_token_count());
    let prompt_length = prompt.len();
    if prompt_length >= max_context_tokens {
        let detail = format!(
            "the prompt has {prompt_length} tokens, and this base model reads {max_context_tokens} with its answer: shorten it"
        );
        return Err(Error::invalid("too_long", detail));
    }
    if prompt_length.saturating_add(max_tokens) > max_context_tokens {
        let detail = format!(
            "the prompt has {prompt_length} tokens and {max_tokens} may be generated, but this base model reads {max_context_tokens} in all: \
             shorten the prompt, or lower max_tokens"
        );
        return Err(Error::invalid("too_long", detail));
    }
    Ok(())
}
