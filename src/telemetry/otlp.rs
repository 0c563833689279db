//! OTLP over HTTP with protobuf: the connection to the collector.

use async_trait::async_trait;
use espalier_core::error::{Context, Error, Result};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::trace::SpanExporter as _;
use std::time::Duration;
use ureq::Agent;
use ureq::http::Uri;

/// Time limit of one export.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a collector's answer, which is a few bytes.
const MAX_RESPONSE_BYTES: u64 = 1 << 20;

/// Where traces are sent, and how many.
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpSettings {
    /// Base address of the collector, such as `http://localhost:4318`; traces go to `/v1/traces` below it.
    pub endpoint: String,
    pub service_name: String,
    /// Fraction of the traces that begin here, 0 to 1. A trace that began elsewhere keeps the decision of its first server.
    pub sample_ratio: f64,
}

impl OtlpSettings {
    fn traces_url(&self) -> String {
        format!("{}/v1/traces", self.endpoint.trim_end_matches('/'))
    }
}

/// Blocking client: exports run on a thread of their own.
#[derive(Debug)]
struct OtlpClient {
    agent: Agent,
}

#[async_trait]
impl HttpClient for OtlpClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let response = self.agent.run(Request::from_parts(head, body.as_ref()))?;
        let (head, body) = response.into_parts();
        let body = body.into_with_config().limit(MAX_RESPONSE_BYTES).read_to_vec()?;
        Ok(Response::from_parts(head, Bytes::from(body)))
    }
}

/// # Errors
/// `Invalid` (`invalid_otlp_endpoint`) for an address that is not HTTP.
pub(super) fn span_exporter(settings: &OtlpSettings) -> Result<SpanExporter> {
    let url = settings.traces_url();
    let host = match url.parse::<Uri>() {
        Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) => uri.host().map(str::to_string),
        _ => None,
    };
    let invalid = |reason: &str| {
        let detail = format!(
            "--otlp-endpoint (OTEL_EXPORTER_OTLP_ENDPOINT) is {:?}, which {reason}: give the HTTP address of a collector, such as \
             http://localhost:4318",
            settings.endpoint
        );
        Error::invalid("invalid_otlp_endpoint", detail)
    };
    let host = host.ok_or_else(|| invalid("is not an HTTP address"))?;
    let mut config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(EXPORT_TIMEOUT));
    if host == "localhost" || host == "[::1]" || host.starts_with("127.") {
        config = config.proxy(None);
    }
    let client = OtlpClient { agent: config.build().new_agent() };
    let builder = SpanExporter::builder().with_http().with_http_client(client);
    let exporter = builder.with_protocol(Protocol::HttpBinary).with_endpoint(url).with_timeout(EXPORT_TIMEOUT).build();
    exporter.map_err(|error| invalid(&format!("cannot be used ({error})")))
}

/// Sends an export without spans.
///
/// # Errors
/// `Invalid` for an address that is not HTTP; `Internal` if the collector does not accept the export.
pub async fn check_endpoint(settings: &OtlpSettings) -> Result<()> {
    let exporter = span_exporter(settings)?;
    exporter.export(Vec::new()).await.context("sending traces to the collector")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_base_addresses() {
        let settings = |endpoint: &str| OtlpSettings {
            endpoint: endpoint.to_string(),
            service_name: "espalier".to_string(),
            sample_ratio: 1.0,
        };
        assert_eq!(settings("http://collector:4318/").traces_url(), "http://collector:4318/v1/traces");
        assert!(span_exporter(&settings("https://collector/otlp")).is_ok());
        for endpoint in ["", "collector:4318", "grpc://collector:4317", "http://"] {
            assert_eq!(span_exporter(&settings(endpoint)).unwrap_err().code(), "invalid_otlp_endpoint", "{endpoint}");
        }
    }
}
