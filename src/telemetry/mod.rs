//! Telemetry: the JSON log, OpenTelemetry traces over OTLP, and W3C trace context.
//!
//! Spans are spans of `tracing`. Those below requests and job attempts have the level debug, so that without an OTLP endpoint and at the
//! usual log level none of them is created. Neither spans nor log lines contain texts, labels of users or API keys.

mod exporter;
mod json_log;
mod otlp;
mod trace_context;

pub use exporter::{ExportCounters, TraceExporter};
pub use json_log::JsonLog;
pub use otlp::{OtlpSettings, check_endpoint};
pub use trace_context::{TraceContext, continue_trace, sampled_context, set_attribute};
