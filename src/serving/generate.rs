//! Texts that go on, for many requests at once: each step computes the next rows of all sequences, whatever their adapters.
//!
//! A request becomes sequences ([`sequence`]), which wait until there is room for what will be remembered of them ([`line`]).
//! At every step ([`engine`]) those that wait may join and those that are done leave; long prompts are read in pieces, so that
//! they do not hold up the others. Rows that many prompts begin with are computed once ([`shared`]). [`step`] is one forward
//! pass, [`sampling`] the choice of a token, [`text`] its way into words. Knows nothing of HTTP.

mod engine;
mod line;
mod request;
pub mod sampling;
mod sequence;
mod shared;
mod step;
pub mod text;

pub use engine::Generator;
pub use request::{Ask, Chosen, Generation, Prompt, Said};
pub use sequence::check;

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
    /// Tokens that are generated where a request does not say how many.
    pub usual_tokens: u32,
    /// Tokens of prompts that are read in a step while other sequences go on.
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
