//! Blocking work on its own thread at the lowest scheduling priority.

use espalier_core::error::{Error, Result};
use espalier_tensor::worker_pool::{self, Priority};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::sync::oneshot;

/// Runs `work` on a new thread and returns its result. Dropping the future does not stop the thread.
///
/// # Errors
/// The error of the work; `Internal` if it panics.
pub async fn run<T, F>(name: &'static str, work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    let (result_tx, result_rx) = oneshot::channel();
    // Log lines of the work carry the job's span.
    let span = tracing::Span::current();
    let catch_panic_and_send = move || {
        let _in_span = span.enter();
        let panicked = |payload: Box<_>| Err(Error::from_panic(name, &*payload));
        // The receiver is gone if the attempt was dropped.
        let _ = result_tx.send(catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(panicked));
    };
    worker_pool::spawn_compute_thread(name, Priority::Background, catch_panic_and_send)?;
    result_rx.await.unwrap_or_else(|_| Err(Error::internal(format!("the thread \"{name}\" ended without a result"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_with_its_message() {
        let outcome: Result<()> = run("train", || panic!("out of {}", "luck")).await;
        assert_eq!(outcome.unwrap_err().to_string(), "train panicked: out of luck");
        assert_eq!(run("train", || Ok(7)).await.unwrap(), 7);
    }
}
