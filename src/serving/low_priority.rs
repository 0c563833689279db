//! Threads of low priority, for work that must not delay short requests.

use espalier_core::error::{Context, Result};
use espalier_tensor::worker_pool::{Priority, WorkerPool};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::oneshot;
use tracing::Span;

/// A fixed number of threads of low priority; work waits for a free one.
pub struct LowPriorityThreads {
    pool: WorkerPool,
}

impl LowPriorityThreads {
    /// # Errors
    /// `Internal` if the operating system refuses another thread.
    pub fn start(threads: usize) -> Result<Self> {
        Ok(Self { pool: WorkerPool::new("low-priority", Priority::Low, threads)? })
    }

    /// Runs the work on a thread of the pool. Dropping the future before that drops the work; later it sets the flag that the work gets.
    ///
    /// # Errors
    /// The error of the work; `Internal` if it panics.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&AtomicBool) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (cancel, span, (response, output)) = (CancelOnDrop::default(), Span::current(), oneshot::channel());
        let is_cancelled = Arc::clone(&cancel.0);
        self.pool.submit(move || {
            if !is_cancelled.load(Ordering::Relaxed) {
                // Fails if nobody waits for the output any more.
                let _ = response.send(span.in_scope(|| work(&is_cancelled)));
            }
        })?;
        output.await.context("working on a thread of low priority")?
    }
}

/// Sets the flag when it is dropped.
#[derive(Default)]
pub struct CancelOnDrop(pub Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_core::error::Error;
    use std::sync::mpsc;

    #[tokio::test]
    async fn work_of_a_request_dropped_while_it_waits_never_runs() {
        let threads = LowPriorityThreads::start(1).unwrap();
        let ((started, is_started), (finish, is_finished)) = (oneshot::channel(), mpsc::channel::<()>());
        let mut running = Box::pin(threads.run(move |_| {
            started.send(()).unwrap();
            // The sender is dropped at the end of the test.
            let _ = is_finished.recv();
            Ok(())
        }));
        assert!(futures_util::poll!(&mut running).is_pending());
        is_started.await.unwrap();
        let mut waiting = Box::pin(threads.run(|_| -> Result<()> { panic!("must not run") }));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(waiting);
        drop(finish);
        running.await.unwrap();
        assert_eq!(threads.run(|_| Ok("next")).await.unwrap(), "next");
    }

    #[tokio::test]
    async fn a_dropped_request_cancels_its_running_work() {
        let threads = LowPriorityThreads::start(1).unwrap();
        let ((started, is_started), (ended, has_ended)) = (oneshot::channel(), oneshot::channel());
        let mut request = Box::pin(threads.run(move |is_cancelled| {
            started.send(()).unwrap();
            while !is_cancelled.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            ended.send(()).unwrap();
            Err::<(), _>(Error::internal("cancelled"))
        }));
        assert!(futures_util::poll!(&mut request).is_pending());
        is_started.await.unwrap();
        drop(request);
        has_ended.await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error_and_the_thread_goes_on() {
        let threads = LowPriorityThreads::start(1).unwrap();
        let error = threads.run(|_| -> Result<()> { panic!("on purpose") }).await.unwrap_err();
        assert_eq!(error.code(), "internal");
        assert_eq!(threads.run(|_| Ok(1)).await.unwrap(), 1);
    }
}
