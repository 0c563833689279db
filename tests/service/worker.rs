//! The worker on a real base, a real database and a real disk: whatever happens to an attempt, a job ends as it should.
mod failures;
mod leases;
mod outcomes;
