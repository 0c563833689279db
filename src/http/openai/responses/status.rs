//! Status of a response and of its items.

use serde::Serialize;
use utoipa::ToSchema;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ResponseStatus)]
pub enum Status {
    InProgress,
    Completed,
    /// `max_output_tokens` was reached.
    Incomplete,
    Failed,
}
