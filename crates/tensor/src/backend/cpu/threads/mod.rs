//! Intra-op parallelism: threads that share the products of one calling thread.

mod intra_op;
mod pool;
mod spin_park_event;

pub use intra_op::{with_current_pool, with_intra_op_threads};
pub use pool::{SpinThreadPool, split_evenly};
