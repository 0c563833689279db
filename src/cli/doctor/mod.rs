//! `espalier doctor`: checks whether a server with these settings would start and work on this machine.
//!
//! The checks change nothing: they report what a start would create or download.

mod checks;
mod telemetry;

use super::error::{CliError, CliResult};
use super::output::{Output, OutputFormat};
use super::serve::load_base_model;
use crate::config::{Config, Settings};
use clap::Args;
use espalier_core::error::Error;
use espalier_core::model::hub::{self, NetworkMode};
use serde::Serialize;
use std::time::Instant;

#[derive(Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    config: Config,

    /// Write the results as JSON to standard output
    #[arg(long)]
    json: bool,
}

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    Pass,
    /// The server works, but may be slow or incomplete.
    Warn,
    /// The server would not start or not work.
    Fail,
}

/// Status of a check with an explanation.
#[derive(Debug, Serialize)]
pub struct CheckResult {
    pub check: &'static str,
    pub status: CheckStatus,
    pub detail: String,
    /// How to fix the problem.
    pub hint: Option<String>,
}

impl CheckResult {
    pub fn pass(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, status: CheckStatus::Pass, detail: detail.into(), hint: None }
    }

    pub fn warn(check: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { check, status: CheckStatus::Warn, detail: detail.into(), hint: Some(hint.into()) }
    }

    pub fn fail(check: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { check, status: CheckStatus::Fail, detail: detail.into(), hint: Some(hint.into()) }
    }

    /// Failed check; the error's text says what to do.
    pub fn from_error(check: &'static str, error: &Error) -> Self {
        Self { check, status: CheckStatus::Fail, detail: error.to_string(), hint: None }
    }
}

pub fn run(args: &DoctorArgs) -> CliResult {
    let mut output = Output::new(if args.json { OutputFormat::Json } else { OutputFormat::Human });
    let results = run_checks(&args.config);
    for result in &results {
        let symbol = match result.status {
            CheckStatus::Pass => "ok   ",
            CheckStatus::Warn => "warn ",
            CheckStatus::Fail => "FAIL ",
        };
        output.write_line(format!("{symbol}  {:<12}{}", result.check, result.detail))?;
        if let Some(hint) = &result.hint {
            output.write_line(format!("{:19}→ {hint}", ""))?;
        }
    }
    output.write_json(&results)?;
    match results.iter().filter(|result| result.status == CheckStatus::Fail).count() {
        0 => Ok(()),
        1 => Err(CliError::failed("1 check failed: a server would not work here")),
        count => Err(CliError::failed(format!("{count} checks failed: a server would not work here"))),
    }
}

fn run_checks(config: &Config) -> Vec<CheckResult> {
    let settings = match config.resolve() {
        Ok(settings) => settings,
        Err(error) => return vec![CheckResult::from_error("settings", &error)],
    };
    let mut results = vec![check_base_model(&settings)];
    results.extend(checks::check_data_dir(&settings.data_dir));
    results.push(checks::check_database(&settings.database_url));
    results.extend(settings.object_storage.as_ref().map(checks::check_object_storage));
    results.push(checks::check_address(settings.listen));
    results.extend(telemetry::check_metrics(&settings));
    results.push(telemetry::check_traces(config.telemetry.otlp_settings()));
    results.extend(checks::check_cpu(&settings));
    results
}

/// Checks whether the base model exists and loads.
fn check_base_model(settings: &Settings) -> CheckResult {
    let check = "base model";
    let offline = hub::Settings { network: NetworkMode::Offline, ..settings.hub.clone() };
    if let Err(error) = hub::locate(&settings.model, &offline) {
        let downloadable = settings.hub.network == NetworkMode::Online && error.code() == "base_model_not_cached";
        return match downloadable {
            false => CheckResult::from_error(check, &error),
            true => CheckResult::warn(
                check,
                format!(
                    "{} is not on this machine: the first start downloads it from {}",
                    settings.model, settings.hub.endpoint
                ),
                "`make model` downloads the default model; --model also accepts a folder",
            ),
        };
    }
    let started = Instant::now();
    match load_base_model(&Settings { hub: offline, ..settings.clone() }) {
        Err(error) => CheckResult::from_error(check, &error),
        Ok(base) => {
            let info = base.info();
            CheckResult::pass(
                check,
                format!(
                    "{} ({}, {:.1} million parameters), loaded in {:.1} s, {}",
                    info.name,
                    info.model_type,
                    info.parameters as f64 / 1e6,
                    started.elapsed().as_secs_f64(),
                    info.fingerprint
                ),
            )
        }
    }
}
