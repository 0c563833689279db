//! Lists in OpenAI's format, newest first.

use crate::http::state::Settings;
use espalier_core::error::{Error, Result};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
pub struct OpenAiList<T> {
    /// `list`
    pub object: &'static str,
    pub data: Vec<T>,
    pub first_id: Option<String>,
    /// Value of `after` for the next page.
    pub last_id: Option<String>,
    pub has_more: bool,
}

/// Order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    Asc,
    Desc,
}

/// Requested page.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    pub limit: u32,
}

impl<T> Default for OpenAiList<T> {
    fn default() -> Self {
        Self { object: "list", data: Vec::new(), first_id: None, last_id: None, has_more: false }
    }
}

impl Page {
    /// A page of at most the server's `--max-page-size`: OpenAI's clients ask for up to 10,000 rows and follow `has_more`.
    ///
    /// # Errors
    /// `Invalid` for a limit of 0, and for the order `asc`.
    pub fn new(limit: Option<u32>, order: Option<Order>, settings: &Settings) -> Result<Self> {
        if order == Some(Order::Asc) {
            return Err(Error::invalid_field("/order", "only \"desc\" is supported: leave it out"));
        }
        match limit {
            Some(0) => Err(Error::invalid_field("/limit", "must be 1 or more")),
            limit => Ok(Self { limit: limit.unwrap_or(settings.default_page_size).min(settings.max_page_size) }),
        }
    }

    /// List of the first `limit` of these rows, of which there may be more.
    pub fn into_list<T>(self, mut rows: Vec<T>, id: impl Fn(&T) -> String) -> OpenAiList<T> {
        let limit = self.limit as usize;
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let (first_id, last_id) = (rows.first().map(&id), rows.last().map(&id));
        OpenAiList { object: "list", data: rows, first_id, last_id, has_more }
    }
}
