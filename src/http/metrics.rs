//! `GET /metrics`: counters and gauges as OpenMetrics text.
//!
//! What happens per request is counted here; everything else is asked of its owner when the page is asked for.

use super::error::ApiResult;
use super::state::AppState;
use crate::serving::Stats;
use crate::store::{DEFAULT_OWNER, Job, PageRequest, Status};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use espalier_core::error::{Context, Result};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const OPENMETRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// From a cached lookup to the longest a request may take.
const LATENCY_BUCKETS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Running jobs whose progress is shown.
const MAX_RUNNING_JOBS: u32 = 100;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
    method: String,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: String,
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabels {
    job: String,
}

/// What is counted while requests are answered.
pub struct Metrics {
    registry: Registry,
    requests: Family<ResponseLabels, Counter>,
    latency: Family<RouteLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
}

/// One request under way, until it is dropped.
pub struct InFlightGuard(Gauge);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("espalier");
        let requests = Family::default();
        let latency = Family::new_with_constructor((|| Histogram::new(LATENCY_BUCKETS)) as fn() -> Histogram);
        let in_flight = Gauge::default();
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("http_requests", "Requests answered", Family::clone(&requests));
        registry.register_with_unit(
            "http_request_duration",
            "Time to an answer's first byte",
            Unit::Seconds,
            Family::clone(&latency),
        );
        registry.register("http_requests_in_flight", "Requests being answered", Gauge::clone(&in_flight));
        registry.register("build", "What is running", build);
        Self { registry, requests, latency, in_flight }
    }
}

impl Metrics {
    pub fn start_request(&self) -> InFlightGuard {
        self.in_flight.inc();
        InFlightGuard(self.in_flight.clone())
    }

    /// `route` is the route's pattern, never the path: the number of series stays bounded.
    pub fn observe(&self, method: &str, route: &str, status: StatusCode, latency: Duration) {
        let method = method_label(method);
        let route_labels = RouteLabels { method: method.to_string(), route: route.to_string() };
        self.latency.get_or_create(&route_labels).observe(latency.as_secs_f64());
        let response_labels =
            ResponseLabels { method: route_labels.method, route: route_labels.route, status: status.as_u16() };
        self.requests.get_or_create(&response_labels).inc();
    }
}

/// Methods are free text for a client: only the usual ones become series.
fn method_label(method: &str) -> &str {
    match method {
        "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" => method,
        _ => "other",
    }
}

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_metrics))
}

/// Metrics
///
/// Counters and gauges in the OpenMetrics text format, for Prometheus.
#[utoipa::path(
    get, path = "/metrics", operation_id = "get_metrics", tag = "operations",
    responses((status = 200, description = "The metrics.", body = String, content_type = "application/openmetrics-text",
        example = "espalier_http_requests_total{method=\"GET\",route=\"/jobs\",status=\"200\"} 1\n# EOF\n")),
)]
async fn get_metrics(state: AppState) -> ApiResult<Response> {
    let mut snapshot = Registry::with_prefix("espalier");
    register_serving_metrics(&mut snapshot, state.serving.stats());
    if let Err(error) = register_job_metrics(&mut snapshot, &state).await {
        tracing::warn!(error = %error, "metrics without jobs");
    }
    let text = encode_metrics(&[&state.metrics.registry, &snapshot])?;
    Ok(([(CONTENT_TYPE, OPENMETRICS_CONTENT_TYPE)], text).into_response())
}

fn encode_metrics(registries: &[&Registry]) -> Result<String> {
    let mut text = String::new();
    for registry in registries {
        encode_registry(&mut text, registry).context("writing the metrics")?;
    }
    encode_eof(&mut text).context("writing the metrics")?;
    Ok(text)
}

fn register_serving_metrics(registry: &mut Registry, stats: Stats) {
    let mut gauge = |name, help, value: u64| registry.register(name, help, ConstGauge::new(to_i64(value)));
    gauge("adapter_cache_entries", "Adapters in memory", stats.resident_adapters);
    gauge("adapter_cache_bytes", "Bytes of the adapters in memory", stats.resident_bytes);
    gauge("queued_inputs", "Inputs waiting for a batch", stats.queued_inputs);
    let generation = stats.generation;
    gauge("sequences_running", "Texts that are generated", generation.running_sequences);
    gauge("sequences_queued", "Texts that wait to be generated", generation.queued_sequences);
    gauge(
        "kv_cache_reserved_bytes",
        "Bytes of keys and values, in use or promised",
        generation.kv_cache_reserved_bytes,
    );
    let mut counter = |name, help, value| registry.register(name, help, ConstCounter::new(value));
    counter("adapter_cache_hits", "Adapters found in memory", stats.cache_hits);
    counter("adapter_cache_misses", "Adapters read from disk", stats.cache_misses);
    counter("adapter_cache_evictions", "Adapters put out of memory", stats.evictions);
    counter("serving_batches", "Batches computed", stats.batches);
    counter("serving_batched_inputs", "Inputs computed in batches", stats.batched_inputs);
    counter("generation_steps", "Steps of generation", generation.steps);
    counter("generation_prompt_tokens", "Tokens of prompts", generation.prompt_tokens);
    counter(
        "prefix_cache_hit_tokens",
        "Of them, not computed because others began alike",
        generation.prefix_cache_hit_tokens,
    );
    counter("generation_tokens", "Tokens generated", generation.generated_tokens);
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
    registry.register("job_progress_ratio", "Steps done of a running job's steps", progress);
    registry.register("job_examples_per_second", "Speed of a running job", speed);
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
    fn requests_are_counted_by_route_method_and_status() {
        let metrics = Metrics::default();
        let in_flight = metrics.start_request();
        metrics.observe("GET", "/jobs/{id}", StatusCode::OK, Duration::from_millis(3));
        metrics.observe("BREW", "unmatched", StatusCode::NOT_FOUND, Duration::from_millis(3));
        let text = encode_metrics(&[&metrics.registry]).unwrap();
        for line in [
            "espalier_http_requests_total{method=\"GET\",route=\"/jobs/{id}\",status=\"200\"} 1",
            "espalier_http_requests_total{method=\"other\",route=\"unmatched\",status=\"404\"} 1",
            "espalier_http_request_duration_seconds_bucket{le=\"0.005\",method=\"GET\",route=\"/jobs/{id}\"} 1",
            "espalier_http_requests_in_flight 1",
            concat!("espalier_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        drop(in_flight);
        assert!(encode_metrics(&[&metrics.registry]).unwrap().contains("espalier_http_requests_in_flight 0"));
    }

    #[test]
    fn serving_stats_are_exported() {
        let mut registry = Registry::with_prefix("espalier");
        register_serving_metrics(&mut registry, Stats { resident_adapters: 2, batches: 5, ..Stats::default() });
        let text = encode_metrics(&[&registry]).unwrap();
        assert!(text.contains("espalier_adapter_cache_entries 2"), "{text}");
        assert!(text.contains("espalier_serving_batches_total 5"), "{text}");
    }
}
