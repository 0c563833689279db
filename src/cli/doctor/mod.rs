//! `espalier doctor`: whether a server with these settings would start here, and what to do where it would not.
//!
//! It changes nothing: what a start would make or download is only said.

mod address;
mod base;
mod machine;
mod storage;

use super::failure::{Failure, Outcome};
use super::output::{Form, Output};
use crate::config::Config;
use clap::Args;
use espalier_core::error::Error;
use serde::Serialize;

#[derive(Args)]
pub struct Doctor {
    #[command(flatten)]
    config: Config,

    /// Write the findings as JSON on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Good,
    /// It works, but perhaps not as is wanted.
    Doubtful,
    /// A server would not start, or not work.
    Bad,
}

#[derive(Debug, Serialize)]
pub struct Finding {
    pub subject: &'static str,
    pub verdict: Verdict,
    pub detail: String,
    /// What to do.
    pub advice: Option<String>,
}

impl Finding {
    pub fn good(subject: &'static str, detail: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Good, detail: detail.into(), advice: None }
    }

    pub fn doubtful(subject: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Doubtful, detail: detail.into(), advice: Some(advice.into()) }
    }

    pub fn bad(subject: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Bad, detail: detail.into(), advice: Some(advice.into()) }
    }

    /// The rooms' own errors say what to do.
    pub fn failed(subject: &'static str, error: &Error) -> Self {
        Self { subject, verdict: Verdict::Bad, detail: error.to_string(), advice: None }
    }
}

pub fn run(doctor: &Doctor) -> Outcome {
    let mut output = Output::new(if doctor.json { Form::Json } else { Form::People });
    let findings = examine(&doctor.config);
    for finding in &findings {
        let mark = match finding.verdict {
            Verdict::Good => "ok   ",
            Verdict::Doubtful => "hm   ",
            Verdict::Bad => "wrong",
        };
        output.line(format!("{mark}  {:<12}{}", finding.subject, finding.detail))?;
        if let Some(advice) = &finding.advice {
            output.line(format!("{:19}→ {advice}", ""))?;
        }
    }
    output.result(&findings)?;
    match findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count() {
        0 => Ok(()),
        1 => Err(Failure::failed("one thing is wrong: a server would not work here")),
        count => Err(Failure::failed(format!("{count} things are wrong: a server would not work here"))),
    }
}

fn examine(config: &Config) -> Vec<Finding> {
    let settings = match config.settings() {
        Ok(settings) => settings,
        Err(error) => return vec![Finding::failed("settings", &error)],
    };
    let mut findings = vec![base::check(&settings)];
    findings.extend(storage::folder(&settings.data_dir));
    findings.push(storage::database(&settings.database_url));
    findings.push(address::check(settings.listen));
    findings.extend(machine::check(&settings));
    findings
}
