//! Threads that do one piece of work together, thousands of times a second: a product's columns are shared among them.
//!
//! The caller is one of them. Between rounds the others watch for the next for a moment, which costs a round about a
//! microsecond, and then sleep, so that a team without work costs nothing. A part whose thread has not come by the time
//! the caller has done its own, because it sleeps or others have its core, is the caller's too: nobody waits for a thread
//! that has not begun. Knows nothing of what is computed.

use super::spin_park_event::SpinParkEvent;
use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// The same for all threads, each told its index.
type ParallelTask = dyn Fn(usize) + Sync;

/// A fixed number of threads, the caller's among them.
pub struct SpinThreadPool {
    state: Arc<PoolState>,
    handles: Vec<JoinHandle<()>>,
}

struct PoolState {
    /// Counts up with every round.
    epoch: AtomicU32,
    /// What the current round is to do. It lives as long as the round does.
    task: UnsafeCell<Option<*const ParallelTask>>,
    workers: Box<[WorkerSlot]>,
    /// Rung by a member that is done, for the caller.
    worker_done: SpinParkEvent,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    is_shutting_down: AtomicBool,
}

/// A thread other than the caller's, on cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
struct WorkerSlot {
    /// The last round whose part of the work somebody took: this thread, or the caller instead.
    claimed_epoch: AtomicU32,
    /// The last round of which this thread needs nothing any more.
    finished_epoch: AtomicU32,
    wake: SpinParkEvent,
}

impl WorkerSlot {
    /// Whether this round's part is now the one's who asks, and nobody else's.
    fn try_claim(&self, epoch: u32) -> bool {
        self.claimed_epoch.compare_exchange(epoch.wrapping_sub(1), epoch, SeqCst, SeqCst).is_ok()
    }
}

// SAFETY: `work` is written only by the one thread that has the team, and only between rounds: when every part of the last
// is taken, and done where a member took it. A member reads it only after it has taken its part of the round, so the next
// cannot begin before it is done. What it points to may be shared, for it is `Sync`.
unsafe impl Sync for PoolState {}
// SAFETY: as above.
unsafe impl Send for PoolState {}

/// Ends when no member needs what the caller has borrowed, even when a part of the caller's panics.
struct EpochGuard<'a> {
    state: &'a PoolState,
    epoch: u32,
}

impl EpochGuard<'_> {
    /// The parts of those that have not come.
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
                // Only after a panic: nobody does it any more.
                worker.finished_epoch.store(self.epoch, SeqCst);
            }
            self.state.worker_done.wait(|| worker.finished_epoch.load(SeqCst) == self.epoch);
        }
    }
}

impl SpinThreadPool {
    /// Of so many threads with the caller's, the others started by `spawn`, each with its index and what it is to run.
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
        // Those that were started end with the team, should one not start.
        let mut pool = Self { state, handles: Vec::new() };
        for index in 1..threads {
            let state = Arc::clone(&pool.state);
            pool.handles.push(spawn(index, Box::new(move || worker_loop(&state, index)))?);
        }
        Ok(pool)
    }

    /// With the caller's.
    pub fn thread_count(&self) -> usize {
        self.state.workers.len() + 1
    }

    /// Runs the work once for every index below the number of threads, 0 on the caller's; returns when all is done. A panic
    /// of any is the caller's.
    pub fn run(&mut self, task: impl Fn(usize) + Sync) {
        let task: &(dyn Fn(usize) + Sync + '_) = &task;
        // SAFETY: only the lifetime changes, and members read it only within this round, whose end `Round` waits for.
        let erased_task =
            unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const ParallelTask>(task) };
        let epoch_guard = self.start_epoch(erased_task);
        task(0);
        // SAFETY: as above; it is the same work.
        epoch_guard.steal_unstarted(unsafe { &*erased_task });
        drop(epoch_guard);
        let panic = self.state.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn start_epoch(&mut self, task: *const ParallelTask) -> EpochGuard<'_> {
        // Of a round that ended by a panic of the caller's own.
        self.state.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        // SAFETY: we have the team for us, and the last round is over.
        unsafe { *self.state.task.get() = Some(task) };
        let epoch = self.state.advance_epoch();
        EpochGuard { state: &self.state, epoch }
    }
}

impl Drop for SpinThreadPool {
    fn drop(&mut self) {
        self.state.is_shutting_down.store(true, SeqCst);
        // SAFETY: we have the team for us, and the last round is over.
        unsafe { *self.state.task.get() = None };
        self.state.advance_epoch();
        for thread in self.handles.drain(..) {
            // What it panicked of was the caller's.
            let _ = thread.join();
        }
    }
}

impl PoolState {
    /// The next round begins.
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
        // The round first: who sees the last one, which has no work, sees that it is over, too.
        last_epoch = state.epoch.load(SeqCst);
        if state.is_shutting_down.load(SeqCst) {
            return;
        }
        if !worker.try_claim(last_epoch) {
            continue;
        }
        // SAFETY: our part of the round is ours, so it goes on until we are done: what it is to do is there, and is not
        // written before.
        let task = unsafe { *state.task.get() };
        if let Some(task) = task {
            // SAFETY: the caller waits for us before what it points to goes.
            let result = catch_unwind(AssertUnwindSafe(|| unsafe { (*task)(index) }));
            if let Err(panic) = result {
                *state.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
        }
        worker.finished_epoch.store(last_epoch, SeqCst);
        state.worker_done.notify();
    }
}

/// The part of `0..count` that is a thread's, of so many threads: as even as whole numbers allow.
pub fn split_evenly(count: usize, index: usize, threads: usize) -> Range<usize> {
    count * index / threads..count * (index + 1) / threads
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
