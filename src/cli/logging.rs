//! The server's log: lines on standard error, for people or as JSON. A panic is a line like any other.

use super::error::{CliError, CliResult};
use crate::config::{LogFlags, LogFormat};
use std::io::{self, IsTerminal};
use tracing_subscriber::EnvFilter;

/// # Errors
/// `BadInput` where the level is none.
pub fn init_logging(logs: &LogFlags) -> CliResult {
    let filter = EnvFilter::try_new(&logs.log_level).map_err(|error| {
        let level = &logs.log_level;
        CliError::invalid_input(format!(
            "\"{level}\" is not a log level ({error}): use error, warn, info, debug or trace"
        ))
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match logs.log_format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let reason = panic.payload_as_str().unwrap_or("without a message");
        tracing::error!(reason, location, "panicked");
    }));
    Ok(())
}
