//! Phases of a sequence (its wait in the queue, its prefill, and its decoding), as spans and as times for metrics.

use super::metrics::GenerationMetrics;
use std::time::Instant;
use tracing::Span;

/// The phase that a sequence is in. Disabled spans cost nothing.
pub struct Phases {
    /// Span of the request; none if the phases are not recorded.
    request: Span,
    current: Span,
    queued_at: Instant,
    first_token_at: Option<Instant>,
}

impl Phases {
    /// Begins the wait of a sequence of the current request.
    pub fn queued() -> Self {
        let current = tracing::debug_span!("queue");
        let request = if current.is_disabled() { Span::none() } else { Span::current() };
        Self { request, current, queued_at: Instant::now(), first_token_at: None }
    }

    /// Ends the wait. `cached_tokens` of the prompt are in the prefix cache.
    pub fn start_prefill(&mut self, prompt_tokens: usize, cached_tokens: usize, metrics: &GenerationMetrics) {
        self.current = tracing::debug_span!(parent: &self.request, "prefill", prompt_tokens, cached_tokens);
        metrics.queue_wait.observe(self.queued_at.elapsed().as_secs_f64());
    }

    /// Records the end of a step, after which the sequence has `tokens` generated tokens.
    pub fn end_step(&mut self, tokens: usize, metrics: &GenerationMetrics) {
        if tokens > 0 && self.first_token_at.is_none() {
            let now = Instant::now();
            self.first_token_at = Some(now);
            self.current = tracing::debug_span!(parent: &self.request, "decode", tokens = tracing::field::Empty);
            metrics.time_to_first_token.observe((now - self.queued_at).as_secs_f64());
        }
    }

    /// Ends the sequence after `tokens` generated tokens.
    pub fn finish(&mut self, tokens: usize, metrics: &GenerationMetrics) {
        self.current.record("tokens", tokens);
        (self.current, self.request) = (Span::none(), Span::none());
        if let (Some(first_token_at), 2..) = (self.first_token_at, tokens) {
            let seconds = first_token_at.elapsed().as_secs_f64() / (tokens - 1) as f64;
            metrics.time_per_output_token.observe(seconds);
        }
    }
}
