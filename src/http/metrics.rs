//! Counters of HTTP requests, and encoding of metrics as text, in OpenMetrics' format or Prometheus' older one.

use axum::http::StatusCode;
use espalier_core::error::{Context, Result};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

/// Upper bounds in seconds, up to the default request timeout.
const LATENCY_BUCKETS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

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

/// Codes of errors are words of the program, never of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: &'static str,
}

/// Metrics of HTTP requests, and those that other modules register.
pub struct Metrics {
    registry: Registry,
    requests: Family<ResponseLabels, Counter>,
    latency: Family<RouteLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    errors: Family<CodeLabels, Counter>,
}

/// Counts one request as in flight until it is dropped.
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
        let errors = Family::default();
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("http_requests", "Requests answered", Family::clone(&requests));
        registry.register_with_unit(
            "http_request_duration",
            "Time until the response starts",
            Unit::Seconds,
            Family::clone(&latency),
        );
        registry.register("http_requests_in_flight", "Requests being answered", Gauge::clone(&in_flight));
        registry.register("http_errors", "Errors answered, by code", Family::clone(&errors));
        registry.register("build", "Version of the server", build);
        Self { registry, requests, latency, in_flight, errors }
    }
}

impl Metrics {
    pub fn start_request(&self) -> InFlightGuard {
        self.in_flight.inc();
        InFlightGuard(self.in_flight.clone())
    }

    /// Counts a response. `route` is the route's pattern, not the path, so that the number of series is bounded.
    pub fn observe(&self, method: &str, route: &str, status: StatusCode, latency: Duration) {
        let method = method_label(method);
        let route_labels = RouteLabels { method: method.to_string(), route: route.to_string() };
        self.latency.get_or_create(&route_labels).observe(latency.as_secs_f64());
        let response_labels =
            ResponseLabels { method: route_labels.method, route: route_labels.route, status: status.as_u16() };
        self.requests.get_or_create(&response_labels).inc();
    }

    /// Counts an error response.
    pub fn observe_error(&self, code: &'static str) {
        self.errors.get_or_create(&CodeLabels { code }).inc();
    }

    /// Registry for the metrics of other modules, before the server starts.
    pub fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}

/// Maps methods outside the standard ones to `other`, because clients choose them freely and each label is a series.
fn method_label(method: &str) -> &str {
    match method {
        "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" => method,
        _ => "other",
    }
}

/// Encodes the registries as one OpenMetrics document.
pub fn encode_metrics(registries: &[&Registry]) -> Result<String> {
    let mut text = String::new();
    for registry in registries {
        encode_registry(&mut text, registry).context("encoding the metrics")?;
    }
    encode_eof(&mut text).context("encoding the metrics")?;
    Ok(text)
}

/// Converts an OpenMetrics document to the older text format of Prometheus (0.0.4), in which `info` is not a type, and a counter is
/// declared under the name of its samples.
pub fn to_prometheus_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut line_before = "";
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("EOF" | "UNIT"), ..) => continue,
            (Some("#"), Some("TYPE"), Some(name), Some(kind @ ("counter" | "info"))) => {
                let (suffix, kind) = if kind == "counter" { ("_total", kind) } else { ("_info", "gauge") };
                // The line of help before it names the metric too.
                if let Some(help) = line_before.strip_prefix(&format!("# HELP {name} ")) {
                    text.truncate(text.len() - line_before.len() - 1);
                    text.push_str(&format!("# HELP {name}{suffix} {help}\n"));
                }
                text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
            }
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
        line_before = line;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_convert_to_the_older_text_format() {
        let metrics = Metrics::default();
        metrics.observe("GET", "/jobs", StatusCode::OK, Duration::from_millis(3));
        let text = to_prometheus_text(&encode_metrics(&[&metrics.registry]).unwrap());
        for line in [
            "# HELP espalier_http_requests_total Requests answered.",
            "# TYPE espalier_http_requests_total counter",
            "# TYPE espalier_build_info gauge",
            "# TYPE espalier_http_request_duration_seconds histogram",
            "# TYPE espalier_http_requests_in_flight gauge",
            "espalier_http_requests_total{method=\"GET\",route=\"/jobs\",status=\"200\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(
            !text.contains("# EOF") && !text.contains("# UNIT") && !text.contains("# HELP espalier_http_requests R")
        );
    }

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
}
