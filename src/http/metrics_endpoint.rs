//! `GET /metrics`: request counters, and the current state of serving and jobs.

use super::metrics::{encode_metrics, to_prometheus_text};
use crate::http::error::ApiResult;
use crate::http::job_metrics::JobSnapshot;
use crate::http::process_metrics;
use crate::http::spawn::run_blocking;
use crate::http::state::AppState;
use crate::serving::{AdapterActivity, KV_BLOCK_SIZE, Stats};
use crate::store::Connections;
use crate::store::blobs::DiskSpace;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const OPENMETRICS: &str = "application/openmetrics-text";
const OPENMETRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

/// Labels that the endpoint picker of the Gateway API Inference Extension reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KvCacheLabels {
    block_size: usize,
    num_gpu_blocks: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoraLabels {
    max_lora: usize,
    running_lora_adapters: String,
    waiting_lora_adapters: String,
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
/// Counters and gauges for Prometheus: in the OpenMetrics text format if `Accept` names it, else in the text format 0.0.4. Job
/// counts are read from the database every few seconds; while it is unavailable, the last counts are returned.
#[utoipa::path(
    get, path = "/metrics", operation_id = "get_metrics", tag = "operations",
    responses((status = 200, description = "Metrics of this server.", content(
        (String = "text/plain", example = "espalier_http_requests_total{method=\"GET\",route=\"/jobs\",status=\"200\"} 1\n"),
        (String = "application/openmetrics-text",
            example = "espalier_http_requests_total{method=\"GET\",route=\"/jobs\",status=\"200\"} 1\n# EOF\n"),
    ))),
)]
async fn get_metrics(state: AppState, headers: HeaderMap) -> ApiResult<Response> {
    let mut snapshot = Registry::with_prefix("espalier");
    register_serving_metrics(&mut snapshot, state.serving.stats());
    register_gateway_metrics(&mut snapshot, state.serving.stats(), state.serving.adapter_activity());
    if let Some(jobs) = state.job_metrics.latest().await {
        register_job_metrics(&mut snapshot, &jobs);
    }
    register_database_metrics(&mut snapshot, state.store.connections());
    let machine = run_blocking("reading the metrics of the process", move || {
        let mut registry = Registry::default();
        process_metrics::register(&mut registry);
        if let Some(disk) = state.data_dir.disk_space() {
            register_disk_metrics(registry.sub_registry_with_prefix("espalier"), disk);
        }
        Ok(registry)
    });
    let machine = machine.await?;
    let text = encode_metrics(&[state.metrics.registry(), &snapshot, &machine])?;
    let accepts_open_metrics = headers
        .get_all(ACCEPT)
        .iter()
        .any(|accept| accept.to_str().is_ok_and(|accept| accept.to_ascii_lowercase().contains(OPENMETRICS)));
    Ok(match accepts_open_metrics {
        true => ([(CONTENT_TYPE, OPENMETRICS_CONTENT_TYPE)], text).into_response(),
        false => ([(CONTENT_TYPE, PROMETHEUS_CONTENT_TYPE)], to_prometheus_text(&text)).into_response(),
    })
}

/// Metrics of the model server protocol of the Gateway API Inference Extension.
fn register_gateway_metrics(registry: &mut Registry, stats: Stats, activity: AdapterActivity) {
    let generation = stats.generation;
    let waiting = generation.queued_sequences + generation.admitted_sequences + stats.queued_inputs;
    let running = generation.running_sequences + stats.running_inputs;
    registry.register("requests_waiting", "Sequences and inputs that wait", ConstGauge::new(to_i64(waiting)));
    registry.register("requests_running", "Sequences and inputs that are computed", ConstGauge::new(to_i64(running)));
    if generation.max_blocks > 0 {
        let usage = generation.used_blocks as f64 / generation.max_blocks as f64;
        registry.register("kv_cache_usage_ratio", "KV blocks in use of all KV blocks", ConstGauge::new(usage));
        let info = Family::<KvCacheLabels, Gauge>::default();
        let labels = KvCacheLabels { block_size: KV_BLOCK_SIZE, num_gpu_blocks: generation.max_blocks };
        info.get_or_create(&labels).set(1);
        registry.register("kv_cache_info", "Tokens per KV block, and number of KV blocks", info);
    }
    let lora = Family::<LoraLabels, Gauge>::default();
    let join = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(",");
    let labels = LoraLabels {
        max_lora: activity.max_running,
        running_lora_adapters: join(activity.running),
        waiting_lora_adapters: join(activity.waiting),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    lora.get_or_create(&labels).set(to_i64(now));
    registry.register(
        "lora_requests_info",
        "Time of the scrape, with the adapters of running and waiting requests",
        lora,
    );
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
    counter("generation_steps", "Scheduler steps of generation", generation.steps);
    counter("generation_prompt_tokens", "Prompt tokens", generation.prompt_tokens);
    counter("prefix_cache_hit_tokens", "Prompt tokens taken from the prefix cache", generation.prefix_cache_hit_tokens);
    counter("generation_tokens", "Generated tokens", generation.generated_tokens);
    counter("generation_draft_tokens", "Tokens drafted by prompt lookup", generation.draft_tokens);
    counter("generation_accepted_draft_tokens", "Drafted tokens that were generated", generation.accepted_draft_tokens);
}

fn register_database_metrics(registry: &mut Registry, connections: Connections) {
    let mut gauge = |name, help, value| registry.register(name, help, ConstGauge::new(i64::from(value)));
    gauge("database_connections", "Open connections to the database", connections.open);
    gauge("database_idle_connections", "Open connections that no statement uses", connections.idle);
    gauge("database_max_connections", "Limit on open connections", connections.max);
}

fn register_disk_metrics(registry: &mut Registry, disk: DiskSpace) {
    let mut gauge = |name, help, value| registry.register(name, help, ConstGauge::new(to_i64(value)));
    gauge("data_disk_free_bytes", "Free space on the disk of the data folder", disk.free_bytes);
    gauge("data_disk_size_bytes", "Size of the disk of the data folder", disk.size_bytes);
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
    use crate::serving::generation;

    #[test]
    fn gateway_metrics_have_the_labels_of_the_protocol() {
        let generation =
            generation::Stats { queued_sequences: 2, used_blocks: 3, max_blocks: 12, ..Default::default() };
        let stats = Stats { generation, queued_inputs: 5, running_inputs: 4, ..Stats::default() };
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let activity = AdapterActivity { running: names(&["b", "a"]), waiting: names(&["c"]), max_running: 8 };
        let mut registry = Registry::with_prefix("espalier");
        register_gateway_metrics(&mut registry, stats, activity);
        let text = encode_metrics(&[&registry]).unwrap();
        for line in [
            "espalier_requests_waiting 7",
            "espalier_requests_running 4",
            "espalier_kv_cache_usage_ratio 0.25",
            "espalier_kv_cache_info{block_size=\"32\",num_gpu_blocks=\"12\"} 1",
            "espalier_lora_requests_info{max_lora=\"8\",running_lora_adapters=\"a,b\",waiting_lora_adapters=\"c\"} ",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn serving_stats_are_exported() {
        let mut registry = Registry::with_prefix("espalier");
        register_serving_metrics(&mut registry, Stats { resident_adapters: 2, cache_hits: 5, ..Stats::default() });
        let text = encode_metrics(&[&registry]).unwrap();
        assert!(text.contains("espalier_adapter_cache_entries 2"), "{text}");
        assert!(text.contains("espalier_adapter_cache_hits_total 5"), "{text}");
    }
}
