//! Successive halving (Jamieson & Talwalkar 2016; a bracket of Hyperband, Li et al. 2018): several candidate methods train on the
//! same examples, the worse half is dropped at each rung, and one adapter results.
//!
//! The resource is the number of examples. A candidate trains with the batches and the learning rate schedule of a job of its own, so
//! the winner is bit-identical to the adapter of that job.

pub mod auto;
mod bracket;
mod leaderboard;
mod spec;

pub use auto::{Auto, Budget, Candidate, CandidateHyperparameters, Method};
pub use bracket::run;
pub use spec::{DEFAULT_CANDIDATE_COUNT, ResolvedAuto, SuccessiveHalvingSpec};
