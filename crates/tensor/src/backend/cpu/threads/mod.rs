//! Intra-op parallelism: threads that share the products of one calling thread.

mod chunks;
mod pool;
mod spin_park_event;

pub use chunks::par_for_each_chunk;
pub use pool::{SpinThreadPool, split_evenly, with_current_pool, with_intra_op_threads};
