//! Settings of prediction and generation.

use super::units::{self, available_cores};
use crate::serving::{Settings, generation};
use clap::Args;
use espalier_tensor::{ActivationQuantization, Device};
use std::time::Duration;

#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Serving")]
pub struct Flags {
    /// Number of threads for prediction and generation [default: one per core]
    #[arg(long, env = "ESPALIER_SERVING_THREADS", value_name = "N", value_parser = units::parse_count)]
    pub serving_threads: Option<usize>,

    /// Memory for the cache of loaded adapters, evicted by LRU
    #[arg(long, env = "ESPALIER_ADAPTER_CACHE_SIZE", value_name = "BYTES", default_value = "1GiB", value_parser = units::parse_bytes)]
    pub adapter_cache_size: u64,

    /// Maximum age of a name's version that predictions and generation use while the database is unavailable; names are otherwise at
    /// most a second old
    #[arg(long, env = "ESPALIER_MAX_NAME_STALENESS", value_name = "TIME", default_value = "1h", value_parser = units::parse_duration)]
    pub max_name_staleness: Duration,

    /// Maximum time that a request waits for others to join its batch
    #[arg(long, env = "ESPALIER_MAX_BATCH_DELAY", value_name = "TIME", default_value = "2ms", value_parser = units::parse_duration)]
    pub max_batch_delay: Duration,

    /// Maximum number of tokens in one batch of predictions; a longer input is a batch of its own. The activations of larger batches exceed
    /// the caches of a CPU [default: 512 on a CPU, 4096 on a GPU]
    #[arg(long, env = "ESPALIER_MAX_BATCH_TOKENS", value_name = "N", value_parser = units::parse_count)]
    pub max_batch_tokens: Option<usize>,

    /// Maximum number of queued inputs of predictions; requests beyond it get 503 with Retry-After
    #[arg(long, env = "ESPALIER_MAX_QUEUED_INPUTS", value_name = "N", default_value = "4096", value_parser = units::parse_count)]
    pub max_queued_inputs: usize,

    /// Maximum expected wait of a prediction request in the queue, from the tokens before it and the measured throughput; requests beyond
    /// it get 503 with Retry-After at once
    #[arg(long, env = "ESPALIER_MAX_QUEUE_WAIT", value_name = "TIME", default_value = "10s", value_parser = units::parse_duration)]
    pub max_queue_wait: Duration,

    /// Maximum number of inputs or generated texts per request
    #[arg(long, env = "ESPALIER_MAX_INPUTS", value_name = "N", default_value = "1024", value_parser = units::parse_count)]
    pub max_inputs: usize,

    /// Maximum size of a text that must be tokenized as a whole. Longer texts are cut at a space before they are tokenized, with
    /// the same result; a text whose first words alone are longer, or whose tokenizer does not split at spaces, gets 422
    /// text_too_long
    #[arg(long, env = "ESPALIER_MAX_TEXT", value_name = "BYTES", default_value = "1MiB", value_parser = units::parse_bytes_in_memory)]
    pub max_text: usize,

    /// Memory for the KV cache of generation, prefix cache included
    #[arg(long, env = "ESPALIER_KV_CACHE_MEMORY", value_name = "BYTES", default_value = "1GiB", value_parser = units::parse_bytes)]
    pub kv_cache_memory: u64,

    /// Memory for structured output (response_format): half for compiled formats, which are cached, and half for the parsers of
    /// running sequences
    #[arg(long, env = "ESPALIER_CONSTRAINT_MEMORY", value_name = "BYTES", default_value = "256MiB", value_parser = units::parse_bytes)]
    pub constraint_memory: u64,

    /// Maximum number of sequences generated at once (continuous batching)
    #[arg(long, env = "ESPALIER_MAX_RUNNING_SEQUENCES", value_name = "N", default_value = "64", value_parser = units::parse_count)]
    pub max_running_sequences: usize,

    /// Maximum number of sequences queued for generation; requests beyond it get 503 with Retry-After
    #[arg(long, env = "ESPALIER_MAX_QUEUED_SEQUENCES", value_name = "N", default_value = "256", value_parser = units::parse_count)]
    pub max_queued_sequences: usize,

    /// Prefill chunk: number of prompt tokens computed per step while other sequences decode; grows with the ratio of prefilling to
    /// decoding sequences
    #[arg(long, env = "ESPALIER_PREFILL_CHUNK_TOKENS", value_name = "N", default_value = "64", value_parser = units::parse_count)]
    pub prefill_chunk_tokens: usize,

    /// Maximum number of tokens that are drafted by prompt lookup and verified in one step of generation, while few sequences run; 0 for
    /// none. The text is the same
    #[arg(long, env = "ESPALIER_PROMPT_LOOKUP_TOKENS", value_name = "N", default_value = "7")]
    pub prompt_lookup_tokens: usize,

    /// Fraction of CPU time that generation leaves to training while jobs run, from 0 to 0.9
    #[arg(long, env = "ESPALIER_TRAINING_CPU_SHARE", value_name = "FRACTION", default_value = "0.1", value_parser = units::parse_fraction)]
    pub training_cpu_share: f64,

    /// Activation format in products with the base model's weights while serving: f32, as in training, or int8 (with one scale per block
    /// of values, as in llama.cpp's Q8_1), which is faster and changes each product by up to 1 %. With int8, weights of 16 and 32 bits are
    /// kept a second time, in 8 bits, and generation multiplies LoRA matrices in int8, too
    #[arg(long, env = "ESPALIER_ACTIVATION_QUANTIZATION", value_name = "TYPE", default_value_t = ActivationQuantization::F32)]
    pub activation_quantization: ActivationQuantization,

    /// Maximum number of generated tokens of requests without max_tokens
    #[arg(long, env = "ESPALIER_DEFAULT_MAX_TOKENS", value_name = "N", default_value = "512", value_parser = units::parse_count)]
    pub default_max_tokens: usize,
}

impl Flags {
    pub fn resolve(&self, device: Device) -> Settings {
        let default_batch_tokens = match device {
            Device::Cpu => 512,
            Device::Cuda(_) => 4096,
        };
        Settings {
            threads: self.serving_threads.unwrap_or_else(available_cores),
            adapter_cache_bytes: self.adapter_cache_size,
            max_name_staleness: self.max_name_staleness,
            max_queued_inputs: self.max_queued_inputs,
            max_queue_wait: self.max_queue_wait,
            max_batch_delay: self.max_batch_delay,
            max_batch_tokens: self.max_batch_tokens.unwrap_or(default_batch_tokens),
            max_inputs_per_request: self.max_inputs,
            max_text_bytes: self.max_text,
            activation_quantization: self.activation_quantization,
            generation: generation::Settings {
                threads: self.serving_threads.unwrap_or_else(available_cores),
                kv_cache_bytes: self.kv_cache_memory,
                constraint_bytes: self.constraint_memory / 2,
                max_queued_sequences: self.max_queued_sequences,
                max_text_bytes: self.max_text,
                max_running_sequences: self.max_running_sequences,
                default_max_tokens: u32::try_from(self.default_max_tokens).unwrap_or(u32::MAX),
                prefill_chunk_tokens: self.prefill_chunk_tokens,
                prompt_lookup_tokens: self.prompt_lookup_tokens,
                training_cpu_share: self.training_cpu_share,
            },
        }
    }
}
