//! Pages of list commands.

use super::client::encode_path_segment;
use super::error::CliResult;
use super::output::Output;
use clap::Args;
use serde::Deserialize;

#[derive(Args)]
pub struct PageArgs {
    /// Maximum number of rows
    #[arg(long, default_value = "20")]
    limit: u32,

    /// Show rows older than the one with this id: the next page
    #[arg(long, value_name = "ID")]
    after: Option<String>,
}

/// Page of a list response.
#[derive(Debug, Clone, Deserialize)]
pub struct ListResponse<T> {
    pub data: Vec<T>,
    pub next: Option<String>,
}

impl PageArgs {
    /// Query parameters of the page.
    pub fn to_query(&self) -> String {
        let after = self.after.as_deref().map(|id| format!("&after={}", encode_path_segment(id)));
        format!("limit={}{}", self.limit, after.unwrap_or_default())
    }
}

/// Prints the command that shows the next page, if there is one.
pub fn print_next_page_hint(list: &str, next: Option<&str>, output: &mut Output) -> CliResult {
    match next {
        Some(next) => output.write_line(format!("there are more: espalier {list} list --after {next}")),
        None => Ok(()),
    }
}
