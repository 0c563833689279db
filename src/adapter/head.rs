//! `head`: nothing but the task's head on the base's frozen features (a linear probe).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// There is nothing to set: the head itself belongs to the task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = HeadOnly)]
pub struct Config {}
