//! `espalier doctor`: whether a server with these settings would start here, and what to do where it would not.
//!
//! It changes nothing: what a start would make or download is only said.

mod address;
mod base_model;
mod cpu;
mod storage;

use super::error::{CliError, CliResult};
use super::output::{Output, OutputFormat};
use crate::config::Config;
use clap::Args;
use espalier_core::error::Error;
use serde::Serialize;

#[derive(Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    config: Config,

    /// Write the findings as JSON on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    Pass,
    /// It works, but perhaps not as is wanted.
    Warn,
    /// A server would not start, or not work.
    Fail,
}

#[derive(Debug, Serialize)]
pub struct CheckResult {
    pub check: &'static str,
    pub status: CheckStatus,
    pub detail: String,
    /// What to do.
    pub hint: Option<String>,
}

impl CheckResult {
    pub fn pass(subject: &'static str, detail: impl Into<String>) -> Self {
        Self { check: subject, status: CheckStatus::Pass, detail: detail.into(), hint: None }
    }

    pub fn warn(subject: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check: subject, status: CheckStatus::Warn, detail: detail.into(), hint: Some(advice.into()) }
    }

    pub fn fail(subject: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check: subject, status: CheckStatus::Fail, detail: detail.into(), hint: Some(advice.into()) }
    }

    /// The rooms' own errors say what to do.
    pub fn from_error(subject: &'static str, error: &Error) -> Self {
        Self { check: subject, status: CheckStatus::Fail, detail: error.to_string(), hint: None }
    }
}

pub fn run(args: &DoctorArgs) -> CliResult {
    let mut output = Output::new(if args.json { OutputFormat::Json } else { OutputFormat::Human });
    let results = run_checks(&args.config);
    for finding in &results {
        let symbol = match finding.status {
            CheckStatus::Pass => "ok   ",
            CheckStatus::Warn => "hm   ",
            CheckStatus::Fail => "wrong",
        };
        output.write_line(format!("{symbol}  {:<12}{}", finding.check, finding.detail))?;
        if let Some(advice) = &finding.hint {
            output.write_line(format!("{:19}→ {advice}", ""))?;
        }
    }
    output.write_json(&results)?;
    match results.iter().filter(|finding| finding.status == CheckStatus::Fail).count() {
        0 => Ok(()),
        1 => Err(CliError::failed("one thing is wrong: a server would not work here")),
        count => Err(CliError::failed(format!("{count} things are wrong: a server would not work here"))),
    }
}

fn run_checks(config: &Config) -> Vec<CheckResult> {
    let settings = match config.resolve() {
        Ok(settings) => settings,
        Err(error) => return vec![CheckResult::from_error("settings", &error)],
    };
    let mut results = vec![base_model::check(&settings)];
    results.extend(storage::check_data_dir(&settings.data_dir));
    results.push(storage::check_database(&settings.database_url));
    results.push(address::check(settings.listen));
    results.extend(cpu::check(&settings));
    results
}
