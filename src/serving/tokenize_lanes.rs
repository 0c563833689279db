//! Threads that tokenize: short requests on a bounded number of blocking threads, long ones on threads of low priority. Owners whose
//! requests wait for a thread get one in turn.

use super::low_priority::{CancelOnDrop, LowPriorityThreads};
use super::owners::{Owner, OwnerSemaphore};
use espalier_core::error::{Context, Result};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::task::spawn_blocking;
use tracing::Span;

/// Requests with more bytes of text are long; tokenizing this much takes about 10 ms.
const MAX_SHORT_TEXT_BYTES: usize = 16 << 10;

pub struct TokenizeLanes {
    short: OwnerSemaphore,
    long: OwnerSemaphore,
    long_threads: LowPriorityThreads,
}

impl TokenizeLanes {
    /// `threads` for short requests, and half as many for long ones.
    ///
    /// # Errors
    /// `Internal` if the operating system refuses another thread.
    pub fn start(threads: usize) -> Result<Self> {
        let long_threads = LowPriorityThreads::start(threads / 2)?;
        Ok(Self { short: OwnerSemaphore::new(threads), long: OwnerSemaphore::new(threads / 2), long_threads })
    }

    /// Whether a request with `text_bytes` of text is short.
    pub fn is_short(text_bytes: usize) -> bool {
        text_bytes <= MAX_SHORT_TEXT_BYTES
    }

    /// Runs the work of an owner's request with `text_bytes` of text as soon as its lane has a free thread. Dropping the future before that
    /// drops the work; later it sets the flag that the work gets.
    ///
    /// # Errors
    /// The error of the work; `Internal` if it panics.
    pub async fn run<T: Send + 'static>(
        &self,
        owner: &Owner,
        text_bytes: usize,
        work: impl FnOnce(&AtomicBool) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if !Self::is_short(text_bytes) {
            let permit = self.long.acquire(owner).await;
            // The work keeps the permit when its client disconnects.
            let work = move |is_cancelled: &AtomicBool| {
                let _permit = permit;
                work(is_cancelled)
            };
            return self.long_threads.run(work).await;
        }
        let permit = self.short.acquire(owner).await;
        let (cancel, span) = (CancelOnDrop::default(), Span::current());
        let is_cancelled = Arc::clone(&cancel.0);
        let task = spawn_blocking(move || {
            let _permit = permit;
            span.in_scope(|| work(&is_cancelled))
        });
        task.await.context("tokenizing")?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{LazyLock, mpsc};
    use tokio::sync::oneshot;

    const LONG: usize = MAX_SHORT_TEXT_BYTES + 1;

    static OWNER: LazyLock<Owner> = LazyLock::new(|| Owner::from("a"));

    /// Work that reports its start and ends with the second channel.
    fn blocking_work() -> (impl FnOnce(&AtomicBool) -> Result<()> + Send, oneshot::Receiver<()>, mpsc::Sender<()>) {
        let ((started, is_started), (finish, is_finished)) = (oneshot::channel(), mpsc::channel::<()>());
        let work = move |_: &AtomicBool| {
            started.send(()).unwrap();
            // The sender is dropped at the end of the test.
            let _ = is_finished.recv();
            Ok(())
        };
        (work, is_started, finish)
    }

    #[tokio::test]
    async fn short_requests_do_not_wait_for_long_ones() {
        let lanes = TokenizeLanes::start(2).unwrap();
        let (work, is_started, finish) = blocking_work();
        let mut running = Box::pin(lanes.run(&OWNER, LONG, work));
        assert!(futures_util::poll!(&mut running).is_pending());
        is_started.await.unwrap();
        let mut second = Box::pin(lanes.run(&OWNER, LONG, |_| Ok("second")));
        assert!(futures_util::poll!(&mut second).is_pending(), "there is one thread for long requests");
        assert_eq!(lanes.run(&OWNER, LONG - 1, |_| Ok("short")).await.unwrap(), "short");
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(finish);
        running.await.unwrap();
        assert_eq!(second.await.unwrap(), "second");
    }

    #[tokio::test]
    async fn a_dropped_short_request_keeps_its_thread_until_its_work_ends() {
        let lanes = TokenizeLanes::start(1).unwrap();
        let (work, is_started, finish) = blocking_work();
        let mut request = Box::pin(lanes.run(&OWNER, 1, work));
        assert!(futures_util::poll!(&mut request).is_pending());
        is_started.await.unwrap();
        let mut next = Box::pin(lanes.run(&OWNER, 1, |_| Ok(())));
        drop(request);
        assert!(futures_util::poll!(&mut next).is_pending());
        drop(finish);
        next.await.unwrap();
    }

    #[tokio::test]
    async fn work_of_a_short_request_dropped_while_it_waits_never_runs() {
        let lanes = TokenizeLanes::start(1).unwrap();
        let (work, is_started, finish) = blocking_work();
        let mut running = Box::pin(lanes.run(&OWNER, 1, work));
        assert!(futures_util::poll!(&mut running).is_pending());
        is_started.await.unwrap();
        let mut waiting = Box::pin(lanes.run(&OWNER, 1, |_| -> Result<()> { panic!("must not run") }));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(waiting);
        drop(finish);
        running.await.unwrap();
        lanes.run(&OWNER, 1, |_| Ok(())).await.unwrap();
    }
}
