//! The command line: one file per command.
//!
//! The client commands are plain blocking calls to a server's public API (`client`), and know nothing of the rooms
//! below; `serve` and `doctor` put the rooms together.

mod adapters;
mod api_types;
mod chat;
mod client;
mod dataset_report;
mod doctor;
mod error;
mod event_subscription;
mod health;
mod job_flags;
mod job_watch;
mod jobs;
mod logging;
mod metrics;
mod openapi;
mod output;
mod predict;
mod prediction_inputs;
mod problem;
mod progress_display;
mod serve;
mod signals;
mod sse;
mod train;
mod upload;
mod usage_hints;

use crate::config::Config;
use clap::{Parser, Subcommand};
use error::CliResult;
use std::io::Write;
use std::process::ExitCode;

/// Trains small adapters on one frozen transformer and serves them all from it
///
/// Exit codes: 0 done, 1 failed, 2 what was given is wrong.
#[derive(Parser)]
#[command(name = "espalier", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server: the API, the worker, or both
    ///
    /// Every flag is also an environment variable; a flag comes before its variable.
    Serve(Box<Config>),
    /// Train an adapter on a file and follow it to its end
    Train(Box<train::TrainArgs>),
    /// Ask an adapter, or the base model
    Predict(predict::PredictArgs),
    /// Talk to an adapter, or to the base model
    Chat(chat::ChatArgs),
    /// See and steer jobs
    Jobs(jobs::JobsArgs),
    /// See, take and bring adapters
    Adapters(adapters::AdaptersArgs),
    /// Say whether a server would work here, and what to do where not
    ///
    /// Takes the flags and variables of serve.
    Doctor(Box<doctor::DoctorArgs>),
    /// Print the API's description (OpenAPI), from the code
    Openapi,
    /// Ask whether the server is ready
    Health(health::HealthArgs),
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(message) = error.message() {
                // Where standard error is closed there is nobody left to tell.
                let _ = writeln!(std::io::stderr(), "{message}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(command: Command) -> CliResult {
    match command {
        Command::Serve(config) => serve::run(&config),
        Command::Train(train) => train::run(&train),
        Command::Predict(predict) => predict::run(&predict),
        Command::Chat(chat) => chat::run(&chat),
        Command::Jobs(jobs) => jobs::run(&jobs),
        Command::Adapters(adapters) => adapters::run(&adapters),
        Command::Doctor(doctor) => doctor::run(&doctor),
        Command::Openapi => openapi::run(),
        Command::Health(health) => health::run(&health),
    }
}

#[cfg(test)]
mod tests;
