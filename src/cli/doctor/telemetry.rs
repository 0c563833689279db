//! Checks of the metrics of a server that runs, and of the collector of traces.

use super::CheckResult;
use crate::cli::client::{Client, ClientArgs};
use crate::cli::health::loopback_if_unspecified;
use crate::config::{Secret, Settings};
use crate::telemetry::{self, OtlpSettings};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Checks whether Prometheus could read the metrics of the server that runs at the address; nothing if none runs there.
pub fn check_metrics(settings: &Settings) -> Option<CheckResult> {
    let subject = "metrics";
    let server = format!("http://{}", loopback_if_unspecified(settings.listen));
    let keys = settings.admin_keys.iter().chain(&settings.api_keys);
    let api_key = keys.map(Secret::expose).map(str::to_string).next();
    let client = Client::new(&ClientArgs { server: Some(server.clone()), api_key, ..ClientArgs::default() }).ok()?;
    client.server_version()?;
    Some(match client.get_text("/metrics", TIMEOUT) {
        Ok((200, text)) if text.contains("espalier_build_info") => {
            let series = text.lines().filter(|line| !line.starts_with('#')).count();
            CheckResult::pass(subject, format!("{server}/metrics answers with {series} series"))
        }
        Ok((401 | 403, _)) => CheckResult::fail(
            subject,
            format!("{server}/metrics refuses the key of these settings"),
            "give doctor the server's settings, or set a key that may read metrics",
        ),
        Ok((status, _)) => CheckResult::fail(
            subject,
            format!("{server}/metrics answers with status {status}"),
            "read the server's log",
        ),
        Err(error) => CheckResult::fail(subject, error.message().unwrap_or_default(), "read the server's log"),
    })
}

/// Checks whether the collector accepts traces.
pub fn check_traces(settings: Option<OtlpSettings>) -> CheckResult {
    let subject = "traces";
    let Some(settings) = settings else {
        return CheckResult::pass(subject, "not exported: --otlp-endpoint is not set");
    };
    if settings.sample_ratio == 0.0 {
        return CheckResult::warn(
            subject,
            "no request is traced unless its client asks for it",
            "raise --trace-sample-ratio",
        );
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return CheckResult::fail(
                subject,
                format!("cannot start a thread: {error}"),
                "reduce the number of threads on this machine",
            );
        }
    };
    let endpoint = &settings.endpoint;
    match runtime.block_on(telemetry::check_endpoint(&settings)) {
        Ok(()) => {
            let percent = settings.sample_ratio * 100.0;
            CheckResult::pass(subject, format!("{endpoint} accepts traces; {percent} % of the requests are traced"))
        }
        Err(error) => CheckResult::fail(
            subject,
            format!("{endpoint} does not accept traces: {error}"),
            "--otlp-endpoint is the base address of a collector that accepts OTLP over HTTP, usually with the port 4318, not 4317",
        ),
    }
}
