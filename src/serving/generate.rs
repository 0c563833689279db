//! Texts that go on, for many requests at once: each step computes the next rows of all sequences, whatever their adapters.
//!
//! A request becomes sequences ([`sequence`]), which wait until there is room for what will be remembered of them ([`line`]).
//! At every step ([`engine`]) those that wait may join and those that are done leave; long prompts are read in pieces, so that
//! they do not hold up the others ([`turns`]). Rows that many prompts begin with are computed once ([`shared`]). [`step`] is one forward
//! pass, [`sampling`] the choice of a token, [`grammar`] what it may be, [`text`] its way into words. Knows nothing of HTTP.

mod engine;
pub mod grammar;
mod line;
mod request;
pub mod sampling;
mod sequence;
mod shared;
mod step;
pub mod text;
mod turns;

pub use engine::Generator;
pub use request::{Ask, Chosen, Generation, Prompt, Said};
pub use sequence::check;

use espalier_tensor::held::Activations;

/// Limits of generation.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Threads that compute.
    pub threads: usize,
    /// Memory for keys and values.
    pub memory_bytes: u64,
    /// Sequences that may wait; beyond them a request is `Busy`.
    pub max_waiting: usize,
    /// Sequences that are computed at once.
    pub max_running: usize,
    /// Of the time, what is left to jobs where there are any: from 0 to below 1.
    pub training_share: f64,
    /// How the base's weights of 8 and 4 bits are multiplied.
    pub activations: Activations,
    /// Tokens that are generated where a request does not say how many.
    pub usual_tokens: u32,
    /// Tokens of prompts that are read in a step for each sequence that reads beside one that goes on.
    pub prompt_tokens: usize,
}

/// Counters and gauges for `/metrics`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub running: u64,
    pub waiting: u64,
    /// Pages that are promised to those that run.
    pub promised_pages: u64,
    /// Bytes of keys and values in memory or promised.
    pub memory_bytes: u64,
    pub prompt_tokens: u64,
    /// Of them, those that were not computed because others began alike.
    pub shared_tokens: u64,
    pub generated_tokens: u64,
    pub steps: u64,
}
