//! Products of a few rows on several threads: only while one thread computes alone, and others would have nothing to do.
//!
//! Knows nothing of products.

use super::pool::SpinThreadPool;
use crate::worker_pool::{Priority, spawn_compute_thread};
use std::cell::{Cell, RefCell};

thread_local! {
    /// Of this thread; made when it is first asked for.
    static THREAD_POOL: RefCell<Option<SpinThreadPool>> = const { RefCell::new(None) };
    static IS_POOL_ACTIVE: Cell<bool> = const { Cell::new(false) };
    /// No team could be started: it is not tried again.
    static HAS_SPAWN_FAILED: Cell<bool> = const { Cell::new(false) };
}

/// Ends the help, also where the work panics.
struct PoolActiveGuard;

impl Drop for PoolActiveGuard {
    fn drop(&mut self) {
        IS_POOL_ACTIVE.set(false);
    }
}

/// Runs the work; its products are shared among so many threads, this one among them. Where no others can be started, it runs
/// alone.
pub fn with_intra_op_threads<T>(threads: usize, work: impl FnOnce() -> T) -> T {
    let is_ready = threads > 1
        && !HAS_SPAWN_FAILED.get()
        && THREAD_POOL.with_borrow_mut(|pool| {
            if pool.as_ref().is_none_or(|team| team.thread_count() != threads) {
                let new_pool = SpinThreadPool::new(threads, |index, work| {
                    spawn_compute_thread(&format!("intra-op-{index}"), Priority::Normal, work)
                });
                *pool =
                    new_pool.inspect_err(|error| tracing::warn!(%error, "products are not shared among threads")).ok();
            }
            HAS_SPAWN_FAILED.set(pool.is_none());
            pool.is_some()
        });
    IS_POOL_ACTIVE.set(is_ready);
    let _active = PoolActiveGuard;
    work()
}

/// The team that helps now, if one does.
pub fn with_current_pool<T>(work: impl FnOnce(Option<&mut SpinThreadPool>) -> T) -> T {
    match IS_POOL_ACTIVE.get() {
        true => THREAD_POOL.with_borrow_mut(|pool| work(pool.as_mut())),
        false => work(None),
    }
}
