//! `espalier openapi`: the API's description, from the code.

use super::error::CliResult;
use super::output::{Output, OutputFormat};
use crate::http;

pub fn run() -> CliResult {
    Output::new(OutputFormat::Human).write_line(http::openapi_yaml()?.trim_end())
}
