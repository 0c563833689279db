//! The worker on a real base, a real database and a real disk: whatever happens to an attempt, a job ends as it should.

#[path = "support/house.rs"]
mod house;
mod support;

#[path = "worker/endings.rs"]
mod endings;
#[path = "worker/faults.rs"]
mod faults;
#[path = "worker/leases.rs"]
mod leases;
