//! State of one sequence: its tokens, KV cache, sampler and output stream.

use super::batch_planner::SequenceDemand;
use super::constraint::TokenConstraint;
use super::detokenizer::{Detokenizer, FinishReason};
use super::metrics::GenerationMetrics;
use super::output::{GenerationStream, OutputSender, SequenceOutput, TokenOutput};
use super::phases::Phases;
use super::prefix_cache::{BlockHashes, PrefixCache};
use super::prompt_lookup::PromptLookup;
use super::prompt_scoring::{PromptScorer, non_finite_logits};
use super::reservation::Reservation;
use super::sampling::Sampler;
use crate::serving::adapters::AdapterHandle;
use crate::serving::owners::Owner;
use crate::serving::pinned_lru::Pinned;
use espalier_core::error::{Error, Result};
use espalier_core::model::VirtualTokens;
use espalier_tensor::kv_cache::{KvCacheShape, SequenceKvCache};

pub type DecodeFn = Box<dyn Fn(&[u32]) -> String + Send>;

/// A sequence that is queued or being generated: tokens, KV cache, sampler and constraint.
pub struct SequenceState {
    pub adapter: AdapterHandle,
    /// Set when the sequence is queued.
    pub owner: Owner,
    /// Prompt tokens, followed by generated tokens.
    token_ids: Vec<u32>,
    prompt_length: usize,
    /// Number of leading tokens whose keys and values are in the KV cache.
    computed_tokens: usize,
    /// Computed tokens that were not computed for this sequence, or that [`Self::count_computed_tokens`] has returned.
    counted_tokens: usize,
    pub kv_cache: SequenceKvCache,
    /// Tokens that the next step computes after [`Self::token_ids`], and keeps as far as they are sampled.
    draft: Vec<u32>,
    prompt_lookup: PromptLookup,
    sampler: Sampler,
    detokenizer: Detokenizer<DecodeFn>,
    /// Shared by queued sequences; taken when the first token is sampled.
    compiled_constraint: Option<Pinned<TokenConstraint>>,
    /// The sequence's own parser state, once the first token is sampled.
    constraint: Option<TokenConstraint>,
    /// Memory of the parser state.
    constraint_bytes: u64,
    /// Collects log probabilities of the prompt, if they are requested, until the prompt is computed.
    prompt_scorer: Option<PromptScorer>,
    /// Limit on generated tokens; 0 only computes the prompt.
    max_tokens: u32,
    output_tx: OutputSender,
    is_finished: bool,
    /// Position in the order of arrival of all sequences.
    pub arrival_order: u64,
    /// KV blocks of the longest possible sequence.
    max_blocks: usize,
    /// KV blocks that the prefix cache has too; it keeps them while the sequence uses them.
    shared_blocks: usize,
    /// Number of full KV blocks whose hashes are in the prefix cache.
    pub cached_blocks: usize,
    block_hashes: BlockHashes,
    phases: Phases,
}

/// Rows of a chunk whose logits are needed: those of the chunk's first tokens, and those of its last.
pub struct LogitsDemand {
    /// Prompt tokens that the first rows predict.
    pub scored: Vec<u32>,
    /// Number of last rows that tokens are sampled from: one, and one for each token of the draft.
    pub sampled_rows: usize,
}

/// Tokens of sequences in a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SampledTokens {
    pub generated: usize,
    pub drafted: usize,
    /// Drafted tokens that were sampled.
    pub accepted: usize,
}

impl SampledTokens {
    pub fn add(&mut self, other: Self) {
        self.generated += other.generated;
        self.drafted += other.drafted;
        self.accepted += other.accepted;
    }
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
        constraint: Option<Pinned<TokenConstraint>>,
    ) -> (Self, GenerationStream) {
        let (output_tx, stream) = GenerationStream::new(prompt_ids.len());
        let max_rows = adapter.virtual_token_count() + prompt_ids.len() + max_tokens as usize;
        let sequence = Self {
            block_hashes: BlockHashes::new(adapter.version(), adapter.virtual_tokens()),
            adapter,
            owner: Owner::default(),
            prompt_length: prompt_ids.len(),
            token_ids: prompt_ids,
            computed_tokens: 0,
            counted_tokens: 0,
            kv_cache: SequenceKvCache::new(kv_cache_shape),
            draft: Vec::new(),
            prompt_lookup: PromptLookup::default(),
            sampler,
            detokenizer,
            constraint_bytes: constraint.as_ref().map_or(0, |constraint| constraint.bytes()),
            compiled_constraint: constraint,
            constraint: None,
            prompt_scorer: None,
            max_tokens,
            output_tx,
            is_finished: false,
            arrival_order: 0,
            max_blocks: KvCacheShape::blocks_for_rows(max_rows),
            shared_blocks: 0,
            cached_blocks: 0,
            phases: Phases::queued(),
        };
        (sequence, stream)
    }

    /// Computes log probabilities of the prompt too.
    pub fn score_prompt(&mut self, scorer: PromptScorer) {
        self.prompt_scorer = Some(scorer);
    }

    /// Whether log probabilities of the prompt are still being computed.
    pub fn scores_prompt(&self) -> bool {
        self.prompt_scorer.is_some()
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

    /// Starts from the blocks of the longest prefix of the prompt in the prefix cache, unless the prompt is scored, which needs the
    /// logits of all its tokens. Returns the number of tokens of the prefix.
    pub fn resume_from_cached_prefix(&mut self, prefix_cache: &mut PrefixCache) -> usize {
        if self.scores_prompt() {
            return 0;
        }
        let hashes = self.block_hashes.extend(&self.token_ids[..self.prompt_length - 1]);
        let cached = prefix_cache.lookup(hashes, self.adapter.virtual_tokens(), self.kv_cache.shape());
        let Some((kv_cache, token_count)) = cached else { return 0 };
        (self.cached_blocks, self.shared_blocks) = (kv_cache.full_blocks().len(), kv_cache.blocks().len());
        (self.kv_cache, self.computed_tokens, self.counted_tokens) = (kv_cache, token_count, token_count);
        token_count
    }

    /// Records that the sequence leaves the queue with `cached_tokens` of its prompt computed.
    pub fn start_prefill(&mut self, cached_tokens: usize, metrics: &GenerationMetrics) {
        self.phases.start_prefill(self.prompt_length, cached_tokens, metrics);
    }

    /// Records the end of a step.
    pub fn end_step(&mut self, metrics: &GenerationMetrics) {
        let generated = self.token_ids.len() - self.prompt_length;
        self.phases.end_step(generated, metrics);
        if self.is_finished {
            self.phases.finish(generated, metrics);
        }
    }

    /// Undoes [`Self::resume_from_cached_prefix`].
    pub fn forget_prefix(&mut self) {
        (self.cached_blocks, self.shared_blocks, self.computed_tokens, self.counted_tokens) = (0, 0, 0, 0);
        self.kv_cache = SequenceKvCache::new(self.kv_cache.shape());
    }

    /// Shares the new full KV blocks with the prefix cache, if there are any.
    pub fn cache_prefix(&mut self, prefix_cache: &mut PrefixCache) {
        let full_blocks = self.kv_cache.full_blocks().len();
        if full_blocks > self.cached_blocks {
            self.cached_blocks = full_blocks;
            prefix_cache.insert(self.block_hashes.extend(&self.token_ids), &self.kv_cache);
        }
        // A shared block is copied when it is written, which happens where a prefix is shorter in some layers.
        self.shared_blocks = self.kv_cache.blocks().iter().filter(|block| block.is_shared()).count();
    }

    /// KV blocks of the longest possible sequence.
    pub fn max_blocks(&self) -> usize {
        self.max_blocks
    }

    /// Memory that the sequence needs besides the prefix cache.
    pub fn reservation(&self) -> Reservation {
        Reservation {
            kv_blocks: self.max_blocks.saturating_sub(self.shared_blocks),
            constraint_bytes: self.constraint_bytes,
        }
    }

    /// Tokens that are not in the KV cache, those of the draft included.
    pub fn uncomputed_tokens(&self) -> usize {
        self.token_ids.len() + self.draft.len() - self.computed_tokens
    }

    /// Drafts up to `limit` tokens for the next step, if the sequence is decoding.
    pub fn draft_tokens(&mut self, limit: usize) {
        if self.is_prefilling() || self.token_ids.len() == self.prompt_length {
            return;
        }
        // The step generates one token more than it drafts.
        let generated = self.token_ids.len() - self.prompt_length;
        let limit = limit.min((self.max_tokens as usize).saturating_sub(generated + 1));
        self.draft = self.prompt_lookup.draft(&self.token_ids, limit);
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

    /// The next tokens to compute, at most `max_tokens`, with the draft after the others.
    pub fn next_chunk(&self, max_tokens: usize) -> Vec<u32> {
        self.token_ids[self.computed_tokens..].iter().chain(&self.draft).take(max_tokens).copied().collect()
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

    /// Number of tokens that were computed since the last call.
    pub fn count_computed_tokens(&mut self) -> usize {
        self.computed_tokens - std::mem::replace(&mut self.counted_tokens, self.computed_tokens)
    }

    /// Rows of the next `chunk_length` tokens whose logits are needed.
    pub fn logits_demand(&self, chunk_length: usize) -> LogitsDemand {
        let end = self.computed_tokens + chunk_length;
        let scored = match &self.prompt_scorer {
            // The row of a token has the logits of the token after it.
            Some(_) => &self.token_ids[self.computed_tokens + 1..self.prompt_length.min(end + 1)],
            None => &[],
        };
        let is_sampled = end == self.token_ids.len() + self.draft.len() && self.max_tokens > 0;
        LogitsDemand { scored: scored.to_vec(), sampled_rows: if is_sampled { 1 + self.draft.len() } else { 0 } }
    }

    /// Adds the log probabilities of the next prompt token, whose logits these are.
    pub fn score_prompt_token(&mut self, token_id: u32, logits: &[f32]) {
        if let Some(scorer) = &mut self.prompt_scorer
            && let Err(error) = scorer.add_token(token_id, logits)
        {
            self.fail(error);
        }
    }

    /// Once the prompt is computed, sends its log probabilities to the stream, and ends a sequence that generates nothing.
    pub fn finish_prompt(&mut self) {
        if self.is_prefilling() || self.is_finished {
            return;
        }
        if let Some(scorer) = self.prompt_scorer.take() {
            // Fails when the stream was dropped, here and below; the scheduler removes the sequence at the next step.
            let _ = self.output_tx.send(Ok(SequenceOutput::PromptLogprobs(scorer.into_logprobs())));
        }
        if self.max_tokens == 0 {
            self.is_finished = true;
            let _ = self.output_tx.send(Ok(SequenceOutput::Finished(FinishReason::Length)));
        }
    }

    /// Samples a token from each row of logits, in order, and stops at the first token that is not the draft's.
    pub fn sample_tokens(&mut self, rows: &mut [Vec<f32>]) -> SampledTokens {
        let draft = std::mem::take(&mut self.draft);
        let mut sampled = SampledTokens { drafted: draft.len(), ..SampledTokens::default() };
        let mut expected = draft.iter();
        for logits in rows {
            self.sample_and_send(logits);
            sampled.generated += 1;
            if self.is_finished || expected.next() != self.token_ids.last() {
                break;
            }
            sampled.accepted += 1;
        }
        self.prompt_lookup.record(sampled.drafted, sampled.accepted);
        // The last token is computed by the next step.
        let wrong_tokens = self.computed_tokens.saturating_sub(self.token_ids.len() - 1);
        self.kv_cache.drop_last_rows(wrong_tokens);
        self.computed_tokens -= wrong_tokens;
        sampled
    }

    /// Samples the next token from its logits and sends it to the stream.
    fn sample_and_send(&mut self, logits: &mut [f32]) {
        match self.sample_token(logits) {
            Ok(output) => {
                self.is_finished = output.finish_reason.is_some();
                // Fails when the stream was dropped; the scheduler removes the sequence at the next step.
                let _ = self.output_tx.send(Ok(SequenceOutput::Token(output)));
            }
            Err(error) => self.fail(error),
        }
    }

    fn sample_token(&mut self, logits: &mut [f32]) -> Result<TokenOutput> {
        let step = (self.token_ids.len() - self.prompt_length) as u64;
        if let Some(compiled) = self.compiled_constraint.take() {
            self.constraint = Some(compiled.fork());
        }
        let allowed = self.constraint.as_mut().map(TokenConstraint::allowed_tokens).transpose()?;
        let Some(sampled) = self.sampler.sample(logits, step, allowed.as_ref()) else {
            return Err(non_finite_logits());
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

    /// Sender of the sequence's stream.
    pub fn output_tx(&self) -> OutputSender {
        self.output_tx.clone()
    }

    /// Ends the sequence with an error.
    pub fn fail(&mut self, error: Error) {
        self.is_finished = true;
        // Fails when the stream was dropped, which cancels the sequence anyway.
        let _ = self.output_tx.send(Err(error));
    }
}
