//! Log and traces of the server.

use super::error::{CliError, CliResult};
use crate::config::{Config, LogFlags, LogFormat};
use crate::telemetry::{JsonLog, TraceExporter};
use espalier_core::error::panic_reason;
use std::io::{self, IsTerminal};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// Logs to standard error as text or JSON, panics included, and starts the exporter of traces if there is a collector.
///
/// # Errors
/// `InvalidInput` if the log level or the collector's address is invalid.
pub fn start(config: &Config) -> CliResult<Option<TraceExporter>> {
    let filter = log_filter(&config.logs)?;
    let traces = config.telemetry.otlp_settings().map(|settings| TraceExporter::start(&settings)).transpose()?;
    let log = log_layer(config.logs.log_format);
    match &traces {
        Some(traces) => tracing_subscriber::registry().with(log.with_filter(filter)).with(traces.layer()).init(),
        // A filter of the whole subscriber: a span or event that is not logged costs a load of an atomic.
        None => tracing_subscriber::registry().with(log).with(filter).init(),
    }
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let reason = panic_reason(panic.payload());
        tracing::error!(reason, location, "thread panicked");
    }));
    Ok(traces)
}

fn log_filter(logs: &LogFlags) -> CliResult<EnvFilter> {
    EnvFilter::try_new(&logs.log_level).map_err(|error| {
        let level = &logs.log_level;
        CliError::invalid_input(format!(
            "\"{level}\" is not a log level ({error}): use error, warn, info, debug or trace"
        ))
    })
}

/// A line that cannot be written (full disk, closed pipe) is lost. The library would report it on standard error, which is text among
/// JSON, and panics if that fails too.
fn log_layer(format: LogFormat) -> Box<dyn Layer<Registry> + Send + Sync> {
    match format {
        LogFormat::Text => {
            let text = tracing_subscriber::fmt::layer().with_writer(io::stderr).log_internal_errors(false);
            text.with_ansi(io::stderr().is_terminal()).boxed()
        }
        LogFormat::Json => JsonLog::new(io::stderr).boxed(),
    }
}
