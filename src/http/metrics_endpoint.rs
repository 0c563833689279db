//! `GET /metrics`: request counters, and the current state of serving and jobs.

use super::metrics::encode_metrics;
use crate::http::error::ApiResult;
use crate::http::state::AppState;
use crate::serving::Stats;
use crate::store::{DEFAULT_OWNER, Job, PageRequest, Status};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use espalier_core::error::Result;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const OPENMETRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Maximum number of running jobs with progress metrics.
const MAX_RUNNING_JOBS: u32 = 100;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabels {
    job: String,
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_metrics))
}

/// Get metrics
///
/// Counters and gauges in the OpenMetrics text format, for Prometheus.
#[utoipa::path(
    get, path = "/metrics", operation_id = "get_metrics", tag = "operations",
    responses((status = 200, description = "Metrics of this server.", body = String, content_type = "application/openmetrics-text",
        example = "espalier_http_requests_total{method=\"GET\",route=\"/jobs\",status=\"200\"} 1\n# EOF\n")),
)]
async fn get_metrics(state: AppState) -> ApiResult<Response> {
    let mut snapshot = Registry::with_prefix("espalier");
    register_serving_metrics(&mut snapshot, state.serving.stats());
    if let Err(error) = register_job_metrics(&mut snapshot, &state).await {
        tracing::warn!(error = %error, "job metrics left out");
    }
    let text = encode_metrics(&[state.metrics.registry(), &snapshot])?;
    Ok(([(CONTENT_TYPE, OPENMETRICS_CONTENT_TYPE)], text).into_response())
}

fn register_serving_metrics(registry: &mut Registry, stats: Stats) {
    let mut gauge = |name, help, value: u64| registry.register(name, help, ConstGauge::new(to_i64(value)));
    gauge("adapter_cache_entries", "Adapters in the cache", stats.resident_adapters);
    gauge("adapter_cache_bytes", "Size of the adapters in the cache, in bytes", stats.resident_bytes);
    gauge("queued_inputs", "Inputs queued for a batch", stats.queued_inputs);
    let generation = stats.generation;
    gauge("sequences_running", "Sequences being generated", generation.running_sequences);
    gauge("sequences_queued", "Sequences queued for generation", generation.queued_sequences);
    gauge(
        "kv_cache_reserved_bytes",
        "KV cache memory in use or reserved, in bytes",
        generation.kv_cache_reserved_bytes,
    );
    let mut counter = |name, help, value| registry.register(name, help, ConstCounter::new(value));
    counter("adapter_cache_hits", "Cache lookups that found the adapter", stats.cache_hits);
    counter("adapter_cache_misses", "Cache lookups that loaded the adapter from disk", stats.cache_misses);
    counter("adapter_cache_evictions", "Adapters evicted from the cache", stats.evictions);
    counter("serving_batches", "Batches computed", stats.batches);
    counter("serving_batched_inputs", "Inputs of the computed batches", stats.batched_inputs);
    counter("generation_steps", "Scheduler steps of generation", generation.steps);
    counter("generation_prompt_tokens", "Prompt tokens", generation.prompt_tokens);
    counter("prefix_cache_hit_tokens", "Prompt tokens taken from the prefix cache", generation.prefix_cache_hit_tokens);
    counter("generation_tokens", "Generated tokens", generation.generated_tokens);
}

async fn register_job_metrics(registry: &mut Registry, state: &AppState) -> Result<()> {
    let counts = Family::<StatusLabels, Gauge>::default();
    for (status, count) in state.store.count_jobs_by_status().await? {
        counts.get_or_create(&StatusLabels { status: status.as_str() }).set(to_i64(count));
    }
    registry.register("jobs", "Jobs by status", counts);
    let page = PageRequest { limit: MAX_RUNNING_JOBS, after: None };
    let running = state.store.jobs(DEFAULT_OWNER, Some(Status::Running), page).await?;
    let progress = Family::<JobLabels, Gauge<f64, AtomicU64>>::default();
    let speed = Family::<JobLabels, Gauge<f64, AtomicU64>>::default();
    for job in &running {
        let Some((ratio, examples_per_second)) = job_progress(job) else { continue };
        let label = JobLabels { job: job.id.to_string() };
        progress.get_or_create(&label).set(ratio);
        speed.get_or_create(&label).set(examples_per_second);
    }
    registry.register("job_progress_ratio", "Fraction of a running job's steps that are done", progress);
    registry.register("job_examples_per_second", "Training examples per second of a running job", speed);
    Ok(())
}

fn job_progress(job: &Job) -> Option<(f64, f64)> {
    let progress = job.progress.as_ref()?;
    let ratio = progress.step as f64 / progress.total_steps.max(1) as f64;
    Some((ratio, progress.examples_per_second))
}

fn to_i64(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serving_stats_are_exported() {
        let mut registry = Registry::with_prefix("espalier");
        register_serving_metrics(&mut registry, Stats { resident_adapters: 2, batches: 5, ..Stats::default() });
        let text = encode_metrics(&[&registry]).unwrap();
        assert!(text.contains("espalier_adapter_cache_entries 2"), "{text}");
        assert!(text.contains("espalier_serving_batches_total 5"), "{text}");
    }
}
