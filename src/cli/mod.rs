//! Command line, one file per command.
//!
//! `serve`, `doctor`, `retention`, `backup` and `restore` run the server's modules; the other commands are blocking clients of the public API.

mod adapters;
mod api_types;
mod backup;
mod chat;
mod client;
mod dataset_report;
mod doctor;
mod error;
mod flag_advice;
mod health;
mod job_flags;
mod job_metrics;
mod job_watch;
mod jobs;
mod keys;
mod logging;
mod open_files;
mod output;
mod pagination;
mod predict;
mod retention;
mod serve;
mod sse;
mod train;
mod upload;
mod usage_hints;
mod webhooks;

use crate::config::Config;
use crate::http;
use clap::{Parser, Subcommand};
use error::CliResult;
use output::{Output, OutputFormat};
use std::io::Write;
use std::process::ExitCode;

/// Train small adapters on one frozen transformer and serve them all from one copy of its weights
///
/// Exit codes: 0 success, 1 failure, 2 invalid input.
#[derive(Parser)]
#[command(name = "espalier", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server: the API, a training worker, or both
    ///
    /// Every flag is also an environment variable; the flag takes precedence.
    Serve(Box<Config>),
    /// Train an adapter on a dataset file and watch the job
    Train(Box<train::TrainArgs>),
    /// Predict with an adapter or the base model
    Predict(predict::PredictArgs),
    /// Chat with an adapter or the base model
    Chat(chat::ChatArgs),
    /// List, watch and control training jobs
    Jobs(jobs::JobsArgs),
    /// List, download, import and delete adapters
    Adapters(adapters::AdaptersArgs),
    /// Create, list, rotate and revoke API keys (needs the key of an administrator)
    Keys(keys::KeysArgs),
    /// Create, test and delete webhooks, which are called when a job ends
    Webhooks(webhooks::WebhooksArgs),
    /// Check whether a server would start and work on this machine
    ///
    /// Takes the flags and environment variables of `serve`.
    Doctor(Box<doctor::DoctorArgs>),
    /// Delete what is no longer kept, or show what would be deleted
    ///
    /// A server does the same at every interval. Takes the storage flags and environment variables of `serve`; the server may run
    /// meanwhile.
    Retention(Box<retention::RetentionArgs>),
    /// Copy the database, datasets, adapters and checkpoints into a new folder
    ///
    /// The copy is consistent, also while servers run and jobs train. Takes the storage flags and environment variables of `serve`.
    Backup(Box<backup::BackupArgs>),
    /// Restore a backup into an empty database and its data folder
    ///
    /// The server must be stopped. A backup of SQLite can be restored into Postgres, and the other way round. Takes the storage flags and
    /// environment variables of `serve`.
    Restore(Box<backup::RestoreArgs>),
    /// Print the OpenAPI document of the API
    Openapi,
    /// Check whether the server is ready
    Health(health::HealthArgs),
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(message) = error.message() {
                // A closed standard error leaves nowhere to report the failure.
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
        Command::Keys(keys) => keys::run(&keys),
        Command::Webhooks(webhooks) => webhooks::run(&webhooks),
        Command::Doctor(doctor) => doctor::run(&doctor),
        Command::Retention(retention) => retention::run(&retention),
        Command::Backup(backup) => backup::create(&backup),
        Command::Restore(restore) => backup::restore(&restore),
        Command::Openapi => Output::new(OutputFormat::Human).write_line(http::openapi_yaml()?.trim_end()),
        Command::Health(health) => health::run(&health),
    }
}

#[cfg(test)]
mod tests;
