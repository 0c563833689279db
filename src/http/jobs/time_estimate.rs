//! Estimated time of a job that is not submitted yet.

use crate::http::spawn::run_blocking;
use crate::http::state::AppState;
use espalier_core::dataset::Report;
use espalier_core::training::Plan;
use espalier_core::training::time_estimate::{self, Workload};
use std::sync::Arc;
use std::time::Duration;

/// Longest time that a request waits for the measurement of the base. The measurement goes on, for the next request.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// Seconds that the job will train; `None` where the base is not measured yet, or cannot be.
pub async fn estimate_seconds(state: &AppState, plan: &Plan, report: &Report) -> Option<f64> {
    let examples = usize::try_from(report.examples).unwrap_or(usize::MAX);
    let longest = report.examples.saturating_mul(u64::from(plan.max_length()));
    let workload = Workload { examples, tokens: report.lengths.tokens.min(longest) };
    let speed = tokio::time::timeout(MAX_WAIT, state.serving.forward_tokens_per_second()).await.ok()??;
    let tokens_per_second = speed * state.settings.training_threads.max(1) as f64;
    let (base, plan) = (Arc::clone(&state.base), plan.clone());
    let estimate = run_blocking("estimating the time of a job", move || {
        time_estimate::estimate(&plan, &base, workload, tokens_per_second)
    });
    estimate
        .await
        .inspect_err(|error| tracing::warn!(%error, "the time of a job cannot be estimated"))
        .ok()
        .map(|time| time.as_secs_f64())
}
