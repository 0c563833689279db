//! Thread pool for short parallel tasks, thousands per second: the columns of a product are split over it.
//!
//! The calling thread takes part. Between epochs the workers spin for a moment, which makes an epoch cost about a
//! microsecond, then park, so an idle pool costs nothing. If a worker has not started by the time the caller has
//! finished its own index, because it is parked or preempted, the caller runs that index too: it never waits for a
//! thread that has not started.
//!
//! [`with_intra_op_threads`] activates the pool for steps in which no other thread computes.

use super::spin_park_event::SpinParkEvent;
use crate::worker_pool::{Priority, spawn_compute_thread};
use std::any::Any;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

/// Task that every thread runs with its index.
type ParallelTask = dyn Fn(usize) + Sync;

/// Fixed number of threads, the calling one included.
pub struct SpinThreadPool {
    state: Arc<PoolState>,
    handles: Vec<JoinHandle<()>>,
}

struct PoolState {
    /// Incremented at the start of every epoch.
    epoch: AtomicU32,
    /// Task of the current epoch, valid until its end.
    task: UnsafeCell<Option<*const ParallelTask>>,
    workers: Box<[WorkerSlot]>,
    /// Notified by a worker that has finished, for the caller.
    worker_done: SpinParkEvent,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    is_shutting_down: AtomicBool,
}

/// State of one worker, on cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
struct WorkerSlot {
    /// Last epoch whose index was claimed, by the worker or by the caller.
    claimed_epoch: AtomicU32,
    /// Last epoch that no longer uses the task for this index.
    finished_epoch: AtomicU32,
    wake: SpinParkEvent,
}

impl WorkerSlot {
    /// Claims the index of this epoch; succeeds for one thread only.
    fn try_claim(&self, epoch: u32) -> bool {
        self.claimed_epoch.compare_exchange(epoch.wrapping_sub(1), epoch, SeqCst, SeqCst).is_ok()
    }
}

// SAFETY: `task` is written only by the thread that owns the pool, and only between epochs: when every index of the
// last epoch is claimed, and finished if a worker claimed it. A worker reads it only after claiming its index of the
// epoch, so the next epoch cannot begin before the worker has finished. The task itself is `Sync`.
unsafe impl Sync for PoolState {}
// SAFETY: the raw task pointer is only dereferenced during its epoch, for which the caller keeps the task borrowed, so
// moving the state to another thread is safe.
unsafe impl Send for PoolState {}

/// Waits on drop until no worker uses the borrowed task, also if the caller's own index panics.
struct EpochGuard<'a> {
    state: &'a PoolState,
    epoch: u32,
}

impl EpochGuard<'_> {
    /// Runs the indices that no worker has claimed.
    fn steal_unstarted(&self, task: &ParallelTask) {
        for (index, worker) in self.state.workers.iter().enumerate() {
            if worker.try_claim(self.epoch) {
                worker.finished_epoch.store(self.epoch, SeqCst);
                task(index + 1);
            }
        }
    }
}

impl Drop for EpochGuard<'_> {
    fn drop(&mut self) {
        for worker in &self.state.workers {
            if worker.try_claim(self.epoch) {
                // Only after a panic of the caller: the index is not run.
                worker.finished_epoch.store(self.epoch, SeqCst);
            }
            self.state.worker_done.wait(|| worker.finished_epoch.load(SeqCst) == self.epoch);
        }
    }
}

impl SpinThreadPool {
    /// Creates a pool of this many threads, the calling one included. `spawn` starts a worker, given its index and its
    /// main function.
    ///
    /// # Errors
    /// Those of `spawn`.
    pub fn new<E>(
        threads: usize,
        mut spawn: impl FnMut(usize, Box<dyn FnOnce() + Send>) -> Result<JoinHandle<()>, E>,
    ) -> Result<Self, E> {
        let workers: Box<[WorkerSlot]> = (1..threads).map(|_| WorkerSlot::default()).collect();
        let state = Arc::new(PoolState {
            epoch: AtomicU32::new(0),
            task: UnsafeCell::new(None),
            workers,
            worker_done: SpinParkEvent::default(),
            panic: Mutex::new(None),
            is_shutting_down: AtomicBool::new(false),
        });
        // If one worker fails to start, dropping the pool ends the others.
        let mut pool = Self { state, handles: Vec::new() };
        for index in 1..threads {
            let state = Arc::clone(&pool.state);
            pool.handles.push(spawn(index, Box::new(move || worker_loop(&state, index)))?);
        }
        Ok(pool)
    }

    /// Number of threads, the calling one included.
    pub fn thread_count(&self) -> usize {
        self.state.workers.len() + 1
    }

    /// Runs the task once for every index below the number of threads, index 0 on the calling thread, and returns when
    /// all are done. A panic of any index resumes on the calling thread.
    pub fn run(&mut self, task: impl Fn(usize) + Sync) {
        let task: &(dyn Fn(usize) + Sync + '_) = &task;
        // SAFETY: only the lifetime changes. Workers read the pointer only within this epoch, whose end `EpochGuard`
        // waits for.
        let erased_task =
            unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const ParallelTask>(task) };
        let epoch_guard = self.start_epoch(erased_task);
        task(0);
        // SAFETY: the pointer was made from `task`, which is borrowed until the end of this function.
        epoch_guard.steal_unstarted(unsafe { &*erased_task });
        drop(epoch_guard);
        let panic = self.state.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn start_epoch(&mut self, task: *const ParallelTask) -> EpochGuard<'_> {
        // Clears the panic of an earlier epoch in which the caller panicked, too.
        self.state.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        // SAFETY: `&mut self` excludes other callers, and the last epoch has ended, so no worker reads the task.
        unsafe { *self.state.task.get() = Some(task) };
        let epoch = self.state.advance_epoch();
        EpochGuard { state: &self.state, epoch }
    }
}

impl Drop for SpinThreadPool {
    fn drop(&mut self) {
        self.state.is_shutting_down.store(true, SeqCst);
        // SAFETY: `&mut self` excludes other callers, and the last epoch has ended, so no worker reads the task.
        unsafe { *self.state.task.get() = None };
        self.state.advance_epoch();
        for thread in self.handles.drain(..) {
            // Panics of tasks were already resumed on the calling thread.
            let _ = thread.join();
        }
    }
}

impl PoolState {
    /// Starts the next epoch.
    fn advance_epoch(&self) -> u32 {
        let epoch = self.epoch.fetch_add(1, SeqCst).wrapping_add(1);
        self.workers.iter().for_each(|worker| worker.wake.notify());
        epoch
    }
}

fn worker_loop(state: &PoolState, index: usize) {
    let worker = &state.workers[index - 1];
    let mut last_epoch = 0;
    loop {
        worker.wake.wait(|| state.epoch.load(SeqCst) != last_epoch);
        // The epoch is read before the flag: a worker that sees the last epoch, which has no task, also sees the flag.
        last_epoch = state.epoch.load(SeqCst);
        if state.is_shutting_down.load(SeqCst) {
            return;
        }
        if !worker.try_claim(last_epoch) {
            continue;
        }
        // SAFETY: this worker has claimed its index, so the epoch cannot end, and the task is not written, before it
        // has finished.
        let task = unsafe { *state.task.get() };
        if let Some(task) = task {
            // SAFETY: the caller keeps the task borrowed until this worker has finished.
            let result = catch_unwind(AssertUnwindSafe(|| unsafe { (*task)(index) }));
            if let Err(panic) = result {
                *state.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
        }
        worker.finished_epoch.store(last_epoch, SeqCst);
        state.worker_done.notify();
    }
}

/// The range of `0..count` that belongs to a thread, as even as integers allow.
pub fn split_evenly(count: usize, index: usize, threads: usize) -> Range<usize> {
    count * index / threads..count * (index + 1) / threads
}

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
