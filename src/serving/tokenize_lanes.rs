//! Bounds the threads that tokenize. Short requests have threads of their own, so that they do not wait for long ones.

use espalier_core::error::{Context, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tracing::Span;

/// Requests with more bytes of text are long; tokenizing this much takes about 10 ms.
const MAX_SHORT_TEXT_BYTES: usize = 16 << 10;

pub struct TokenizeLanes {
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

impl TokenizeLanes {
    /// `threads` for short requests, and half as many for long ones.
    pub fn new(threads: usize) -> Self {
        let lane = |threads: usize| Arc::new(Semaphore::new(threads.max(1)));
        Self { short: lane(threads), long: lane(threads / 2) }
    }

    /// Whether a request with `text_bytes` of text is short.
    pub fn is_short(text_bytes: usize) -> bool {
        text_bytes <= MAX_SHORT_TEXT_BYTES
    }

    /// Runs the work of a request with `text_bytes` of text on a blocking thread, as soon as its lane has a free one. Dropping
    /// the future before that drops the work; later it sets the flag that the work gets.
    ///
    /// # Errors
    /// The error of the work; `Internal` if it panics.
    pub async fn run<T: Send + 'static>(
        &self,
        text_bytes: usize,
        work: impl FnOnce(&AtomicBool) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let lane = if Self::is_short(text_bytes) { &self.short } else { &self.long };
        let permit = Arc::clone(lane).acquire_owned().await.context("waiting for a thread that tokenizes")?;
        let (cancel, span) = (CancelOnDrop::default(), Span::current());
        let is_cancelled = Arc::clone(&cancel.0);
        let task = spawn_blocking(move || {
            let _permit = permit;
            span.in_scope(|| work(&is_cancelled))
        });
        task.await.context("tokenizing")?
    }
}

/// Sets the flag when it is dropped.
#[derive(Default)]
struct CancelOnDrop(Arc<AtomicBool>);

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
    use tokio::sync::oneshot;

    const LONG: usize = MAX_SHORT_TEXT_BYTES + 1;

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
        let lanes = Arc::new(TokenizeLanes::new(2));
        let (work, is_started, finish) = blocking_work();
        let running = tokio::spawn({
            let lanes = Arc::clone(&lanes);
            async move { lanes.run(LONG, work).await }
        });
        is_started.await.unwrap();
        let mut second = Box::pin(lanes.run(LONG, |_| Ok("second")));
        assert!(futures_util::poll!(&mut second).is_pending(), "the lane of long requests has one thread");
        assert_eq!(lanes.run(LONG - 1, |_| Ok("short")).await.unwrap(), "short");
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(finish);
        assert_eq!(second.await.unwrap(), "second");
        running.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_dropped_request_cancels_its_work_and_keeps_its_thread_until_it_ends() {
        let lanes = TokenizeLanes::new(1);
        let (started, is_started) = oneshot::channel();
        let (ended, has_ended) = oneshot::channel();
        let mut request = Box::pin(lanes.run(1, move |is_cancelled| {
            started.send(()).unwrap();
            while !is_cancelled.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            ended.send(()).unwrap();
            Err::<(), _>(Error::internal("cancelled"))
        }));
        assert!(futures_util::poll!(&mut request).is_pending());
        is_started.await.unwrap();
        let mut next = Box::pin(lanes.run(1, |_| Ok(())));
        assert!(futures_util::poll!(&mut next).is_pending());
        drop(request);
        has_ended.await.unwrap();
        next.await.unwrap();
    }

    #[tokio::test]
    async fn work_of_a_request_dropped_while_it_waits_never_runs() {
        let lanes = TokenizeLanes::new(1);
        let (work, is_started, finish) = blocking_work();
        let mut running = Box::pin(lanes.run(1, work));
        assert!(futures_util::poll!(&mut running).is_pending());
        is_started.await.unwrap();
        let mut waiting = Box::pin(lanes.run(1, |_| -> Result<()> { panic!("must not run") }));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(waiting);
        drop(finish);
        running.await.unwrap();
        lanes.run(1, |_| Ok(())).await.unwrap();
    }
}
