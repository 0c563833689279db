//! How predictions are computed.

use super::{cores, values};
use crate::serving::{Settings, generate};
use clap::Args;
use espalier_tensor::held::Activations;
use std::time::Duration;

#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Serving")]
pub struct Flags {
    /// Threads that compute predictions [default: one per core]
    #[arg(long, env = "ESPALIER_SERVING_THREADS", value_name = "N", value_parser = super::limits::count)]
    pub serving_threads: Option<usize>,

    /// Memory for adapters that are kept ready
    #[arg(long, env = "ESPALIER_ADAPTER_CACHE", value_name = "BYTES", default_value = "1GiB", value_parser = values::bytes)]
    pub adapter_cache: u64,

    /// How long a request waits for others to share its batch
    #[arg(long, env = "ESPALIER_BATCH_WINDOW", value_name = "TIME", default_value = "2ms", value_parser = values::duration)]
    pub batch_window: Duration,

    /// Tokens computed in one batch
    #[arg(long, env = "ESPALIER_BATCH_TOKENS", value_name = "N", default_value = "4096", value_parser = super::limits::count)]
    pub batch_tokens: usize,

    /// Inputs that may wait; beyond them a request is told to come again (503)
    #[arg(long, env = "ESPALIER_MAX_WAITING", value_name = "N", default_value = "4096", value_parser = super::limits::count)]
    pub max_waiting: usize,

    /// Inputs in one request, or texts that one request has generated
    #[arg(long, env = "ESPALIER_MAX_INPUTS", value_name = "N", default_value = "1024", value_parser = super::limits::count)]
    pub max_inputs: usize,

    /// Memory for keys and values of texts that are generated, and of prompts that others may begin with
    #[arg(long, env = "ESPALIER_GENERATION_MEMORY", value_name = "BYTES", default_value = "1GiB", value_parser = values::bytes)]
    pub generation_memory: u64,

    /// Texts generated at once
    #[arg(long, env = "ESPALIER_MAX_GENERATIONS", value_name = "N", default_value = "64", value_parser = super::limits::count)]
    pub max_generations: usize,

    /// Texts that may wait to be generated; beyond them a request is told to come again (503)
    #[arg(long, env = "ESPALIER_MAX_WAITING_GENERATIONS", value_name = "N", default_value = "256", value_parser = super::limits::count)]
    pub max_waiting_generations: usize,

    /// Tokens of prompts read between two tokens of other texts; more where more texts wait to begin than go on
    #[arg(long, env = "ESPALIER_PROMPT_TOKENS", value_name = "N", default_value = "64", value_parser = super::limits::count)]
    pub prompt_tokens: usize,

    /// Share of the time that generation leaves to training jobs, however much is asked for: 0 to 0.9
    #[arg(long, env = "ESPALIER_TRAINING_SHARE", value_name = "SHARE", default_value = "0.1", value_parser = values::share)]
    pub training_share: f64,

    /// How generation multiplies base weights that are held in 8 or 4 bits: with numbers of 32 bits (f32), as training does, or with
    /// numbers rounded to 8 bits (int8), as llama.cpp does, which is faster and changes them by about half a percent; LoRA's
    /// matrices are then read in 8 bits, too
    #[arg(long, env = "ESPALIER_GENERATION_ACTIVATIONS", value_name = "TYPE", default_value_t = Activations::F32)]
    pub generation_activations: Activations,

    /// Tokens generated where a request does not say how many
    #[arg(long, env = "ESPALIER_GENERATED_TOKENS", value_name = "N", default_value = "512", value_parser = super::limits::count)]
    pub generated_tokens: usize,
}

impl Flags {
    pub fn resolve(&self) -> Settings {
        Settings {
            threads: self.serving_threads.unwrap_or_else(cores),
            cache_bytes: self.adapter_cache,
            max_waiting: self.max_waiting,
            batch_window: self.batch_window,
            batch_tokens: self.batch_tokens,
            max_inputs: self.max_inputs,
            generation: generate::Settings {
                threads: self.serving_threads.unwrap_or_else(cores),
                memory_bytes: self.generation_memory,
                max_waiting: self.max_waiting_generations,
                max_running: self.max_generations,
                usual_tokens: u32::try_from(self.generated_tokens).unwrap_or(u32::MAX),
                prompt_tokens: self.prompt_tokens,
                activations: self.generation_activations,
                training_share: self.training_share,
            },
        }
    }
}
