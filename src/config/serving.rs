//! How predictions are computed.

use super::{available_cores, units};
use crate::serving::{Settings, generation};
use clap::Args;
use espalier_tensor::ActivationQuantization;
use std::time::Duration;

#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Serving")]
pub struct Flags {
    /// Threads that compute predictions [default: one per core]
    #[arg(long, env = "ESPALIER_SERVING_THREADS", value_name = "N", value_parser = super::limits::parse_count)]
    pub serving_threads: Option<usize>,

    /// Memory for adapters that are kept ready
    #[arg(long, env = "ESPALIER_ADAPTER_CACHE_SIZE", value_name = "BYTES", default_value = "1GiB", value_parser = units::parse_bytes)]
    pub adapter_cache_size: u64,

    /// How long a request waits for others to share its batch
    #[arg(long, env = "ESPALIER_MAX_BATCH_DELAY", value_name = "TIME", default_value = "2ms", value_parser = units::parse_duration)]
    pub max_batch_delay: Duration,

    /// Tokens computed in one batch
    #[arg(long, env = "ESPALIER_MAX_BATCH_TOKENS", value_name = "N", default_value = "4096", value_parser = super::limits::parse_count)]
    pub max_batch_tokens: usize,

    /// Inputs that may wait; beyond them a request is told to come again (503)
    #[arg(long, env = "ESPALIER_MAX_QUEUED_INPUTS", value_name = "N", default_value = "4096", value_parser = super::limits::parse_count)]
    pub max_queued_inputs: usize,

    /// Inputs in one request, or texts that one request has generated
    #[arg(long, env = "ESPALIER_MAX_INPUTS", value_name = "N", default_value = "1024", value_parser = super::limits::parse_count)]
    pub max_inputs: usize,

    /// Memory for keys and values of texts that are generated, and of prompts that others may begin with
    #[arg(long, env = "ESPALIER_KV_CACHE_MEMORY", value_name = "BYTES", default_value = "1GiB", value_parser = units::parse_bytes)]
    pub kv_cache_memory: u64,

    /// Texts generated at once
    #[arg(long, env = "ESPALIER_MAX_RUNNING_SEQUENCES", value_name = "N", default_value = "64", value_parser = super::limits::parse_count)]
    pub max_running_sequences: usize,

    /// Texts that may wait to be generated; beyond them a request is told to come again (503)
    #[arg(long, env = "ESPALIER_MAX_QUEUED_SEQUENCES", value_name = "N", default_value = "256", value_parser = super::limits::parse_count)]
    pub max_queued_sequences: usize,

    /// Tokens of prompts read between two tokens of other texts; more where more texts wait to begin than go on
    #[arg(long, env = "ESPALIER_PREFILL_CHUNK_TOKENS", value_name = "N", default_value = "64", value_parser = super::limits::parse_count)]
    pub prefill_chunk_tokens: usize,

    /// Share of the time that generation leaves to training jobs, however much is asked for: 0 to 0.9
    #[arg(long, env = "ESPALIER_TRAINING_CPU_SHARE", value_name = "SHARE", default_value = "0.1", value_parser = units::parse_fraction)]
    pub training_cpu_share: f64,

    /// How generation multiplies base weights that are held in 8 or 4 bits: with numbers of 32 bits (f32), as training does, or with
    /// numbers rounded to 8 bits (int8), as llama.cpp does, which is faster and changes them by about half a percent; LoRA's
    /// matrices are then read in 8 bits, too
    #[arg(long, env = "ESPALIER_ACTIVATION_QUANTIZATION", value_name = "TYPE", default_value_t = ActivationQuantization::F32)]
    pub activation_quantization: ActivationQuantization,

    /// Tokens generated where a request does not say how many
    #[arg(long, env = "ESPALIER_DEFAULT_MAX_TOKENS", value_name = "N", default_value = "512", value_parser = super::limits::parse_count)]
    pub default_max_tokens: usize,
}

impl Flags {
    pub fn resolve(&self) -> Settings {
        Settings {
            threads: self.serving_threads.unwrap_or_else(available_cores),
            adapter_cache_bytes: self.adapter_cache_size,
            max_queued_inputs: self.max_queued_inputs,
            max_batch_delay: self.max_batch_delay,
            max_batch_tokens: self.max_batch_tokens,
            max_inputs_per_request: self.max_inputs,
            generation: generation::Settings {
                threads: self.serving_threads.unwrap_or_else(available_cores),
                kv_cache_bytes: self.kv_cache_memory,
                max_queued_sequences: self.max_queued_sequences,
                max_running_sequences: self.max_running_sequences,
                default_max_tokens: u32::try_from(self.default_max_tokens).unwrap_or(u32::MAX),
                prefill_chunk_tokens: self.prefill_chunk_tokens,
                activation_quantization: self.activation_quantization,
                training_cpu_share: self.training_cpu_share,
            },
        }
    }
}
