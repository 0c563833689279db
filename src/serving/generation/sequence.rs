//! State of one sequence: its tokens, KV cache, sampler and output stream.

use super::batch_planner::SequenceDemand;
use super::constraint::TokenConstraint;
use super::detokenizer::{Detokenizer, FinishReason};
use super::output::{GenerationStream, TokenOutput};
use super::prefix_cache::{BlockHashes, PrefixCache};
use super::sampling::Sampler;
use crate::serving::adapters::AdapterHandle;
use espalier_core::error::{Error, Result};
use espalier_core::model::VirtualTokens;
use espalier_tensor::kv_cache::{KvCacheShape, SequenceKvCache};
use tokio::sync::mpsc::UnboundedSender;

pub type DecodeFn = Box<dyn Fn(&[u32]) -> String + Send>;

/// A sequence that is queued or being generated: tokens, KV cache, sampler and constraint.
pub struct SequenceState {
    pub adapter: AdapterHandle,
    /// Prompt tokens, followed by generated tokens.
    token_ids: Vec<u32>,
    prompt_length: usize,
    /// Number of leading tokens whose keys and values are in the KV cache.
    computed_tokens: usize,
    pub kv_cache: SequenceKvCache,
    sampler: Sampler,
    detokenizer: Detokenizer<DecodeFn>,
    constraint: Option<TokenConstraint>,
    output_tx: UnboundedSender<Result<TokenOutput>>,
    is_finished: bool,
    /// Position in the order of arrival of all sequences.
    pub arrival_order: u64,
    /// KV blocks for the longest possible sequence.
    pub reserved_blocks: usize,
    /// Number of full KV blocks that are in the prefix cache.
    pub cached_blocks: usize,
    block_hashes: BlockHashes,
}

impl SequenceState {
    /// `prompt_ids` are not empty.
    pub fn new(
        adapter: AdapterHandle,
        kv_cache_shape: KvCacheShape,
        prompt_ids: Vec<u32>,
        max_tokens: u32,
        sampler: Sampler,
        detokenizer: Detokenizer<DecodeFn>,
        constraint: Option<TokenConstraint>,
    ) -> (Self, GenerationStream) {
        let (output_tx, stream) = GenerationStream::new(prompt_ids.len());
        let max_rows = adapter.virtual_token_count() + prompt_ids.len() + max_tokens as usize;
        let sequence = Self {
            block_hashes: BlockHashes::new(adapter.version(), adapter.virtual_tokens()),
            adapter,
            prompt_length: prompt_ids.len(),
            token_ids: prompt_ids,
            computed_tokens: 0,
            kv_cache: SequenceKvCache::new(kv_cache_shape),
            sampler,
            detokenizer,
            constraint,
            output_tx,
            is_finished: false,
            arrival_order: 0,
            reserved_blocks: KvCacheShape::blocks_for_rows(max_rows),
            cached_blocks: 0,
        };
        (sequence, stream)
    }

    /// Whether the stream still exists; otherwise the sequence is cancelled.
    pub fn has_receiver(&self) -> bool {
        !self.output_tx.is_closed()
    }

    /// Whether the last token was generated or the sequence failed.
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    pub fn prompt_ids(&self) -> &[u32] {
        &self.token_ids[..self.prompt_length]
    }

    /// Prompt tokens that may come from the prefix cache: the last is computed, because its logits are needed.
    pub fn cacheable_prompt_ids(&self) -> &[u32] {
        &self.token_ids[..self.prompt_length - 1]
    }

    /// Looks the prompt up in the prefix cache and returns a KV cache of its longest cached prefix.
    pub fn find_prefix(&mut self, prefix_cache: &mut PrefixCache) -> Option<(SequenceKvCache, usize)> {
        let hashes = self.block_hashes.extend(&self.token_ids[..self.prompt_length - 1]);
        prefix_cache.lookup(hashes, self.adapter.virtual_tokens(), self.kv_cache.shape())
    }

    /// Inserts the full KV blocks into the prefix cache.
    pub fn cache_prefix(&mut self, prefix_cache: &mut PrefixCache) {
        self.cached_blocks = self.kv_cache.full_blocks().len();
        prefix_cache.insert(self.block_hashes.extend(&self.token_ids), &self.kv_cache);
    }

    /// Starts from a KV cache with the first `token_count` tokens.
    pub fn resume_from_prefix(&mut self, kv_cache: SequenceKvCache, token_count: usize) {
        self.cached_blocks = kv_cache.full_blocks().len();
        (self.kv_cache, self.computed_tokens) = (kv_cache, token_count);
    }

    pub fn uncomputed_tokens(&self) -> usize {
        self.token_ids.len() - self.computed_tokens
    }

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

    /// The next tokens to compute, at most `max_tokens`.
    pub fn next_chunk(&self, max_tokens: usize) -> &[u32] {
        &self.token_ids[self.computed_tokens..self.token_ids.len().min(self.computed_tokens + max_tokens)]
    }

    /// Virtual tokens that the next chunk starts with: those of the adapter for the first chunk, none after it.
    pub fn pending_virtual_tokens(&self) -> VirtualTokens {
        if self.kv_cache.is_empty() { self.adapter.virtual_tokens() } else { VirtualTokens::Disabled }
    }

    /// Records that the next `token_count` tokens are in `kv_cache`.
    pub fn advance(&mut self, kv_cache: SequenceKvCache, token_count: usize) {
        self.kv_cache = kv_cache;
        self.computed_tokens += token_count;
    }

    /// Samples the next token from its logits and sends it to the stream.
    pub fn sample_next(&mut self, logits: &mut [f32]) {
        match self.sample_token(logits) {
            Ok(output) => {
                self.is_finished = output.finish_reason.is_some();
                // Fails when the stream was dropped; the scheduler removes the sequence at the next step.
                let _ = self.output_tx.send(Ok(output));
            }
            Err(error) => self.fail(error),
        }
    }

    fn sample_token(&mut self, logits: &mut [f32]) -> Result<TokenOutput> {
        let step = (self.token_ids.len() - self.prompt_length) as u64;
        let allowed = self.constraint.as_mut().map(TokenConstraint::allowed_tokens).transpose()?;
        let Some(sampled) = self.sampler.sample(logits, step, allowed.as_ref()) else {
            return Err(Error::internal("the model answered with numbers that are not finite"));
        };
        self.token_ids.push(sampled.token_id);
        let accept = |constraint: &mut TokenConstraint| constraint.accept_token(sampled.token_id);
        let is_complete = self.constraint.as_mut().map(accept).transpose()? == Some(true);
        let mut delta = self.detokenizer.push(sampled.token_id);
        if is_complete {
            delta.text += &self.detokenizer.flush();
            delta.finish_reason = Some(FinishReason::Stop);
        }
        Ok(TokenOutput {
            token_id: sampled.token_id,
            text_delta: delta.text,
            text_offset: delta.offset,
            logprobs: sampled.logprobs,
            finish_reason: delta.finish_reason,
        })
    }

    /// Ends the sequence with an error.
    pub fn fail(&mut self, error: Error) {
        self.is_finished = true;
        // Fails when the stream was dropped, which cancels the sequence anyway.
        let _ = self.output_tx.send(Err(error));
    }
}
