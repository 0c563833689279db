//! Threads that compute: our own, each at its scheduling priority, never the async runtime's.
//!
//! candle threads its matrix products through the rayon pool of the calling thread. Every thread here is a pool of
//! one, so a product stays on the thread that asked for it, at that thread's priority.

use crate::error::{Context, Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// How the operating system is to schedule a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// As any other: serving.
    Normal,
    /// Runs when nobody else wants the core (`nice 19`): training.
    Background,
}

/// Starts a thread that computes.
///
/// # Errors
/// `Internal` where the operating system refuses another thread.
pub fn spawn_compute_thread(
    name: &str,
    priority: Priority,
    task: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>> {
    let thread_name = name.to_string();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .thread_name(move |_| thread_name.clone())
        .start_handler(move |_| apply_priority(priority))
        .build()
        .context("starting a computing thread")?;
    // The outer thread only waits: what runs inside the pool is single-threaded wherever candle calls rayon.
    std::thread::Builder::new()
        .name(format!("{name}-wait"))
        .spawn(move || pool.install(task))
        .context("starting a computing thread")
}

#[cfg(target_os = "linux")]
fn apply_priority(priority: Priority) {
    if priority == Priority::Background {
        // On Linux niceness belongs to the thread; 0 means the calling one. Raising it needs no privilege.
        // SAFETY: the call takes plain numbers and touches no memory of ours.
        #[allow(unsafe_code, reason = "no safe wrapper sets one thread's niceness")]
        let status = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
        if status != 0 {
            tracing::warn!(error = %std::io::Error::last_os_error(), "could not lower a training thread's priority");
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn lower(priority: Priority) {
    if priority == Priority::Background {
        tracing::debug!("thread priorities are only set on linux");
    }
}

/// Crews of the lowest priority that have work now.
static BUSY_BACKGROUND_POOLS: AtomicUsize = AtomicUsize::new(0);

/// Whether threads of the lowest priority would use a core that is left to them.
pub fn background_work_pending() -> bool {
    BUSY_BACKGROUND_POOLS.load(Relaxed) > 0
}

/// Counted as long as it lives.
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

/// Threads that take pieces of work and give the results back in order, whoever computed them.
pub struct WorkerPool {
    /// `None` only while it is dropped.
    sender: Option<Sender<WorkItem>>,
    threads: Vec<JoinHandle<()>>,
    priority: Priority,
}

/// The threads end, and what they kept for the next piece of work goes back to the operating system: a server trains many
/// jobs, each with threads of its own.
impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.sender = None;
        for thread in self.threads.drain(..) {
            // What a thread panicked of was an error of the work, and was told.
            let _ = thread.join();
        }
        trim_allocator();
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim_allocator() {
    // glibc keeps the freed memory of ended threads in arenas that nobody uses again.
    // SAFETY: the call takes a plain number and may come from any thread.
    #[allow(unsafe_code, reason = "no safe wrapper trims the allocator's arenas")]
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_memory_back() {}

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

    /// `f` of every item, in the order of the items.
    ///
    /// # Errors
    /// The first error in that order; a panic is `Internal`.
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
                let result = result.unwrap_or_else(|_| Err(Error::internal("a computing thread panicked").into()));
                // The receiver is gone only when an earlier error has ended the whole map.
                let _ = done.send((index, result));
            };
            let sent = self.sender.as_ref().is_some_and(|work| work.send(Box::new(task)).is_ok());
            if !sent {
                return Err(Error::internal("the computing threads are gone").into());
            }
        }
        drop(result_sender);
        let mut ordered: Vec<Option<Result<O, E>>> = (0..count).map(|_| None).collect();
        for (index, result) in results {
            ordered[index] = Some(result);
        }
        let missing = || Err(Error::internal("a computing thread ended early").into());
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
