//! How the server writes its log.

use clap::{Args, ValueEnum};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line for people
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(next_help_heading = "Log")]
pub struct LogFlags {
    /// Form of the log
    #[arg(long, env = "ESPALIER_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug or trace, or by room (`info,espalier::worker=debug`)
    #[arg(long, env = "ESPALIER_LOG", value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
}
