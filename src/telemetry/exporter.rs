//! Exporter of traces: which spans are recorded, how they are named, and how they get to the collector.

use super::otlp::{OtlpSettings, span_exporter};
use espalier_core::error::Result;
use opentelemetry::trace::{Link, SpanKind, Status, TraceId, TracerProvider};
use opentelemetry::{Context, Key, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SamplingResult, SdkTracerProvider, ShouldSample, SpanData, SpanExporter};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use std::borrow::Cow;
use std::time::Duration;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;
use uuid::Uuid;

/// Spans that begin a trace. Other spans without a parent, such as a worker's look into the empty queue, are not recorded.
const ROOT_SPANS: [&str; 2] = ["request", "job"];

/// Time limit of the last export when the server stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Numbers of spans that were sent to the collector, and of those that it did not accept; clones share them.
#[derive(Debug, Clone, Default)]
pub struct ExportCounters {
    exported: Counter,
    failed: Counter,
}

impl ExportCounters {
    pub fn register(&self, registry: &mut Registry) {
        registry.register("trace_spans_exported", "Spans that the collector has accepted", self.exported.clone());
        registry.register("trace_spans_failed", "Spans that the collector has not accepted", self.failed.clone());
    }
}

/// Collects spans and sends them in batches from a thread of its own. A collector that does not answer costs spans, never a request.
pub struct TraceExporter {
    provider: SdkTracerProvider,
    counters: ExportCounters,
}

impl TraceExporter {
    /// # Errors
    /// `Invalid` (`invalid_otlp_endpoint`).
    pub fn start(settings: &OtlpSettings) -> Result<Self> {
        let counters = ExportCounters::default();
        let exporter = NamedSpans { inner: span_exporter(settings)?, counters: counters.clone() };
        let resource = Resource::builder()
            .with_service_name(settings.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("service.instance.id", Uuid::now_v7().to_string()))
            .build();
        let roots = RootSampler(Sampler::TraceIdRatioBased(settings.sample_ratio));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(roots)))
            .with_resource(resource)
            .build();
        Ok(Self { provider, counters })
    }

    pub fn counters(&self) -> &ExportCounters {
        &self.counters
    }

    /// Layer that records the spans of this program. Events are in the log only.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let own_spans = filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with("espalier"));
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("espalier"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            .with_filter(own_spans.with_max_level_hint(LevelFilter::DEBUG))
    }

    /// Sends the spans that are left.
    pub fn shutdown(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(SHUTDOWN_TIMEOUT) {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

/// Samples spans that begin a trace by their name, then by the ratio.
#[derive(Debug, Clone)]
struct RootSampler(Sampler);

impl ShouldSample for RootSampler {
    fn should_sample(
        &self,
        parent_context: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        span_kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let ratio = if ROOT_SPANS.contains(&name) { &self.0 } else { &Sampler::AlwaysOff };
        ratio.should_sample(parent_context, trace_id, name, span_kind, attributes, links)
    }
}

/// Exporter that gives the spans of requests and jobs the names and attributes of OpenTelemetry's conventions, and counts.
#[derive(Debug)]
struct NamedSpans<E> {
    inner: E,
    counters: ExportCounters,
}

impl<E: SpanExporter> SpanExporter for NamedSpans<E> {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        batch.iter_mut().for_each(apply_conventions);
        let count = batch.len() as u64;
        let exported = self.inner.export(batch).await;
        let counter = if exported.is_ok() { &self.counters.exported } else { &self.counters.failed };
        counter.inc_by(count);
        if let Err(error) = &exported {
            tracing::warn!(%error, spans = count, "spans were not exported");
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Names of log fields and of the attributes that they become.
const ATTRIBUTES: [(&str, &str); 7] = [
    ("method", "http.request.method"),
    ("route", "http.route"),
    ("request_id", "espalier.request_id"),
    ("owner", "espalier.owner"),
    ("job", "espalier.job"),
    ("attempt", "espalier.attempt"),
    ("statement", "db.query.text"),
];

fn apply_conventions(span: &mut SpanData) {
    span.attributes.retain(|attribute| attribute.key.as_str() != "trace_id");
    for attribute in &mut span.attributes {
        if let Some((_, name)) = ATTRIBUTES.iter().find(|(field, _)| attribute.key.as_str() == *field) {
            attribute.key = Key::from_static_str(name);
        }
    }
    match span.name.as_ref() {
        "request" => {
            span.span_kind = SpanKind::Server;
            if let (Some(method), Some(route)) = (text(span, "http.request.method"), text(span, "http.route")) {
                span.name = Cow::Owned(format!("{method} {route}"));
            }
            let status = span.attributes.iter().find(|one| one.key.as_str() == "http.response.status_code");
            if matches!(status.map(|one| &one.value), Some(Value::I64(500..))) {
                span.status = Status::error("");
            }
        }
        "job" => span.span_kind = SpanKind::Consumer,
        "database" => span.span_kind = SpanKind::Client,
        _ => {}
    }
}

fn text<'a>(span: &'a SpanData, key: &str) -> Option<Cow<'a, str>> {
    span.attributes.iter().find(|attribute| attribute.key.as_str() == key).map(|attribute| attribute.value.as_str())
}
