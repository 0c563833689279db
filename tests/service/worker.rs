//! Worker tests on a tiny base, a real database and a real disk.
mod failures;
mod leases;
mod outcomes;
