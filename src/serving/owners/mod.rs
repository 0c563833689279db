//! Sharing of serving between owners: who has requests in flight and how much each has used, and turns at what is scarce.

mod loads;
mod semaphore;

pub use loads::OwnerLoads;
pub use semaphore::OwnerSemaphore;

use std::sync::Arc;

/// Owner of a request.
pub type Owner = Arc<str>;
