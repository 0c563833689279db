//! Settings of OpenTelemetry traces. The `OTEL_…` variables mean the same as in OpenTelemetry's SDKs.

use super::units;
use crate::telemetry::OtlpSettings;
use clap::Args;

#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Traces")]
pub struct Flags {
    /// Base address of a collector of OpenTelemetry traces, such as `http://localhost:4318` (OTLP over HTTP with protobuf, below
    /// /v1/traces). OTEL_EXPORTER_OTLP_HEADERS and OTEL_RESOURCE_ATTRIBUTES mean the same as in OpenTelemetry's SDKs [default: none]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,

    /// Name of this service in traces
    #[arg(long, env = "OTEL_SERVICE_NAME", value_name = "NAME", default_value = "espalier")]
    pub otel_service_name: String,

    /// Fraction of the requests that are traced, 0 to 1. A request whose traceparent header says whether it is sampled keeps that
    #[arg(long, env = "ESPALIER_TRACE_SAMPLE_RATIO", value_name = "RATIO", default_value = "1", value_parser = units::parse_ratio)]
    pub trace_sample_ratio: f64,
}

impl Flags {
    /// `None` without an endpoint: no traces are recorded.
    pub fn otlp_settings(&self) -> Option<OtlpSettings> {
        let endpoint = self.otlp_endpoint.as_deref().map(str::trim).filter(|endpoint| !endpoint.is_empty())?;
        Some(OtlpSettings {
            endpoint: endpoint.to_string(),
            service_name: self.otel_service_name.clone(),
            sample_ratio: self.trace_sample_ratio,
        })
    }
}
