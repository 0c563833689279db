//! `GET /metrics`: request counters, and the current state of serving and jobs.

use super::metrics::encode_metrics;
use crate::http::error::ApiResult;
use crate::http::job_metrics::JobSnapshot;
use crate::http::state::AppState;
use crate::serving::Stats;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const OPENMETRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
/// Counters and gauges in the OpenMetrics text format, for Prometheus. The numbers of jobs are read from the database every few
/// seconds; while it is unavailable, the last ones stay.
#[utoipa::path(
    get, path = "/metrics", operation_id = "get_metrics", tag = "operations",
    responses((status = 200, description = "Metrics of this server.", body = String, content_type = "application/openmetrics-text",
        example = "espalier_http_requests_total{method=\"GET\",route=\"/jobs\",status=\"200\"} 1\n# EOF\n")),
)]
async fn get_metrics(state: AppState) -> ApiResult<Response> {
    let mut snapshot = Registry::with_prefix("espalier");
    register_serving_metrics(&mut snapshot, state.serving.stats());
    if let Some(jobs) = state.job_metrics.latest().await {
        register_job_metrics(&mut snapshot, &jobs);
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

fn register_job_metrics(registry: &mut Registry, snapshot: &JobSnapshot) {
    let counts = Family::<StatusLabels, Gauge>::default();
    for (status, count) in &snapshot.counts {
        counts.get_or_create(&StatusLabels { status: status.as_str() }).set(to_i64(*count));
    }
    registry.register("jobs", "Jobs by status", counts);
    let progress = Family::<JobLabels, Gauge<f64, AtomicU64>>::default();
    let speed = Family::<JobLabels, Gauge<f64, AtomicU64>>::default();
    for job in &snapshot.running {
        let label = JobLabels { job: job.id.to_string() };
        progress.get_or_create(&label).set(job.progress);
        speed.get_or_create(&label).set(job.examples_per_second);
    }
    registry.register("job_progress_ratio", "Fraction of a running job's steps that are done", progress);
    registry.register("job_examples_per_second", "Training examples per second of a running job", speed);
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
