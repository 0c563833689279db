//! A race: several methods on the same examples, the worse half dropped at each rung, one adapter in the end.
//!
//! Successive halving (Jamieson & Talwalkar 2016; as in a bracket of Li et al. 2018), with examples as the resource. A
//! candidate trains as a job with it alone would: the same batches, and the learning rate of its whole run. So the winner is
//! to the bit the adapter that its own job would have published.

pub mod auto;
mod bracket;
mod leaderboard;
mod rungs;
mod spec;

pub use auto::{Auto, Budget, Candidate, CandidateHyperparameters, Method};
pub use bracket::run;
pub use spec::{DEFAULT_CANDIDATE_COUNT, ResolvedAuto, SuccessiveHalvingSpec};

use serde_json::Value;

/// How a race ended.
#[derive(Debug, Clone, PartialEq)]
pub struct HalvingResult {
    /// The place of the best candidate in the race's list.
    pub winner: usize,
    /// Every verdict: candidate, rung, examples seen, figures, and whether it was dropped.
    pub table: Value,
}
