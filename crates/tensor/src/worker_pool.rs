//! Compute threads with a scheduling priority, separate from the async runtime's.
//!
//! Each thread computes its products alone. The service sets `RAYON_NUM_THREADS=1`, so candle starts no threads of its own
//! for them.

use crate::error::{Context, Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Scheduling priority of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// The process's own priority, for serving.
    Normal,
    /// `nice 10`, for long requests: gets a tenth of a core beside a thread of normal priority, and the rest of the core when it is
    /// idle.
    Low,
    /// `nice 19`, for training: runs when the core would be idle.
    Background,
}

/// Starts a compute thread.
///
/// # Errors
/// `Internal` if the operating system refuses another thread.
pub fn spawn_compute_thread(
    name: &str,
    priority: Priority,
    task: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>> {
    let run = move || {
        apply_priority(priority);
        task();
    };
    std::thread::Builder::new().name(name.to_string()).spawn(run).context("starting a compute thread")
}

#[cfg(target_os = "linux")]
fn apply_priority(priority: Priority) {
    let nice = match priority {
        Priority::Normal => return,
        Priority::Low => 10,
        Priority::Background => 19,
    };
    // On Linux the nice value belongs to the thread, and `None` is the calling thread. Raising it needs no privilege.
    if let Err(error) = rustix::process::setpriority_process(None, nice) {
        tracing::warn!(%error, nice, "could not lower the priority of a compute thread");
    }
}

#[cfg(not(target_os = "linux"))]
fn apply_priority(priority: Priority) {
    if priority != Priority::Normal {
        tracing::debug!("thread priorities are only set on linux");
    }
}

/// Processor time that the calling thread has used since its start.
pub fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Number of background pools that have work.
static BUSY_BACKGROUND_POOLS: AtomicUsize = AtomicUsize::new(0);

/// Whether background threads have work.
pub fn background_work_pending() -> bool {
    BUSY_BACKGROUND_POOLS.load(Relaxed) > 0
}

/// Counts a background pool as busy until it is dropped.
struct BusyGuard(Priority);

impl BusyGuard {
    fn new(priority: Priority) -> Self {
        BUSY_BACKGROUND_POOLS.fetch_add(usize::from(priority == Priority::Background), Relaxed);
        Self(priority)
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        BUSY_BACKGROUND_POOLS.fetch_sub(usize::from(self.0 == Priority::Background), Relaxed);
    }
}

type WorkItem = Box<dyn FnOnce() + Send>;

/// Threads that map a function over items; results are in the order of the items.
pub struct WorkerPool {
    /// `None` while the pool is being dropped.
    sender: Option<Sender<WorkItem>>,
    threads: Vec<JoinHandle<()>>,
    priority: Priority,
}

/// Joins the threads.
impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.sender = None;
        for thread in self.threads.drain(..) {
            // A panic of a work item was already returned by `map`.
            let _ = thread.join();
        }
    }
}

impl WorkerPool {
    pub fn new(name: &str, priority: Priority, threads: usize) -> Result<Self> {
        let (sender, receiver) = channel::<WorkItem>();
        let receiver = Arc::new(Mutex::new(receiver));
        let start = |index: usize| {
            let receiver = Arc::clone(&receiver);
            spawn_compute_thread(&format!("{name}-{index}"), priority, move || worker_loop(&receiver))
        };
        let threads = (0..threads.max(1)).map(start).collect::<Result<_>>()?;
        Ok(Self { sender: Some(sender), threads, priority })
    }

    pub fn threads(&self) -> usize {
        self.threads.len().max(1)
    }

    /// Runs the work on the next free thread, and forgets a panic: the work has to return its result itself.
    ///
    /// # Errors
    /// `Internal` if the threads have ended.
    pub fn submit(&self, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let work = move || drop(catch_unwind(AssertUnwindSafe(work)));
        let is_sent = self.sender.as_ref().is_some_and(|sender| sender.send(Box::new(work)).is_ok());
        if is_sent { Ok(()) } else { Err(Error::internal("the compute threads have ended")) }
    }

    /// Returns `f` of every item, in the order of the items.
    ///
    /// # Errors
    /// The first error in that order; a panic becomes `Internal`.
    pub fn map<I, O, E, F>(&self, items: Vec<I>, f: &Arc<F>) -> Result<Vec<O>, E>
    where
        I: Send + 'static,
        O: Send + 'static,
        E: From<Error> + Send + 'static,
        F: Fn(I) -> Result<O, E> + Send + Sync + 'static,
    {
        let _busy = BusyGuard::new(self.priority);
        let (result_sender, results) = channel();
        let count = items.len();
        for (index, item) in items.into_iter().enumerate() {
            let (done, f) = (result_sender.clone(), Arc::clone(f));
            let task = move || {
                let result = catch_unwind(AssertUnwindSafe(|| f(item)));
                let result = result.unwrap_or_else(|_| Err(Error::internal("a compute thread panicked").into()));
                // The receiver is dropped only if an earlier error has ended the map.
                let _ = done.send((index, result));
            };
            self.submit(task)?;
        }
        drop(result_sender);
        let mut ordered: Vec<Option<Result<O, E>>> = (0..count).map(|_| None).collect();
        for (index, result) in results {
            ordered[index] = Some(result);
        }
        let missing = || Err(Error::internal("a compute thread ended early").into());
        ordered.into_iter().map(|result| result.unwrap_or_else(missing)).collect()
    }
}

fn worker_loop(receiver: &Mutex<Receiver<WorkItem>>) {
    loop {
        let job = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}
