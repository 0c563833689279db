//! Switch for intra-op parallelism of the calling thread, for steps in which no other thread computes.

use super::pool::SpinThreadPool;
use crate::worker_pool::{Priority, spawn_compute_thread};
use std::cell::{Cell, RefCell};

thread_local! {
    /// Pool of this thread, created on first use.
    static THREAD_POOL: RefCell<Option<SpinThreadPool>> = const { RefCell::new(None) };
    static IS_POOL_ACTIVE: Cell<bool> = const { Cell::new(false) };
    /// Whether creating the pool failed; it is not tried again.
    static HAS_SPAWN_FAILED: Cell<bool> = const { Cell::new(false) };
}

/// Ends intra-op parallelism, also on panic.
struct PoolActiveGuard;

impl Drop for PoolActiveGuard {
    fn drop(&mut self) {
        IS_POOL_ACTIVE.set(false);
    }
}

/// Runs `work` with its products split over this many threads, the calling one included. If no threads can be started,
/// it runs on the calling thread alone.
pub fn with_intra_op_threads<T>(threads: usize, work: impl FnOnce() -> T) -> T {
    let is_ready = threads > 1
        && !HAS_SPAWN_FAILED.get()
        && THREAD_POOL.with_borrow_mut(|pool| {
            if pool.as_ref().is_none_or(|pool| pool.thread_count() != threads) {
                let new_pool = SpinThreadPool::new(threads, |index, work| {
                    spawn_compute_thread(&format!("intra-op-{index}"), Priority::Normal, work)
                });
                *pool = new_pool.inspect_err(|error| tracing::warn!(%error, "intra-op threads are not available")).ok();
            }
            HAS_SPAWN_FAILED.set(pool.is_none());
            pool.is_some()
        });
    IS_POOL_ACTIVE.set(is_ready);
    let _active = PoolActiveGuard;
    work()
}

/// Passes the active pool, if any.
pub fn with_current_pool<T>(work: impl FnOnce(Option<&mut SpinThreadPool>) -> T) -> T {
    match IS_POOL_ACTIVE.get() {
        true => THREAD_POOL.with_borrow_mut(|pool| work(pool.as_mut())),
        false => work(None),
    }
}
