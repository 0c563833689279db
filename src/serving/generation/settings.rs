//! Settings and counters of text generation.

#[derive(Debug, Clone)]
pub struct Settings {
    /// Threads that compute.
    pub threads: usize,
    /// Memory budget of the KV cache in bytes.
    pub kv_cache_bytes: u64,
    /// Memory budget in bytes of compiled constraints, and as much for those of running sequences.
    pub constraint_bytes: u64,
    /// Capacity of the queue in sequences; a request beyond it is `Busy`.
    pub max_queued_sequences: usize,
    /// Sequences in one step.
    pub max_running_sequences: usize,
    /// Fraction of CPU time reserved for training while jobs run, in `[0, 1)`.
    pub training_cpu_share: f64,
    /// Bytes of a prompt that are tokenized at most to find that it is too long.
    pub max_text_bytes: usize,
    /// `max_tokens` of requests that leave it out.
    pub default_max_tokens: u32,
    /// Prompt tokens computed between two decode steps; multiplied when more sequences are prefilling than decoding.
    pub prefill_chunk_tokens: usize,
    /// Tokens of a draft by prompt lookup, at most; 0 for no drafts.
    pub prompt_lookup_tokens: usize,
}

/// Counters and gauges for `/metrics`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub running_sequences: u64,
    pub queued_sequences: u64,
    /// Sequences of admitted requests that are being tokenized.
    pub admitted_sequences: u64,
    /// KV blocks that running sequences reserve or share; the other blocks are free or hold prefixes that may be evicted.
    pub used_blocks: u64,
    pub max_blocks: u64,
    /// KV blocks reserved for running sequences.
    pub reserved_blocks: u64,
    /// Bytes of KV blocks reserved for running sequences or held by the prefix cache.
    pub kv_cache_reserved_bytes: u64,
    pub prompt_tokens: u64,
    /// Prompt tokens that were found in the prefix cache.
    pub prefix_cache_hit_tokens: u64,
    pub generated_tokens: u64,
    /// Tokens drafted by prompt lookup.
    pub draft_tokens: u64,
    /// Drafted tokens that were generated.
    pub accepted_draft_tokens: u64,
    pub steps: u64,
}
