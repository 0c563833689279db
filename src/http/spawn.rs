//! Blocking work and detached tasks of handlers, run in the request's tracing span.

use espalier_core::error::{Context, Result};
use tracing::{Instrument, Span};

/// Runs computation or file access on the blocking thread pool.
///
/// # Errors
/// The error of the work; `Internal` if it panics.
pub async fn run_blocking<T: Send + 'static>(
    action: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let span = Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work)).await.context(action)?
}

/// Runs to completion even if the client disconnects, so that a file and its row are written together.
///
/// # Errors
/// The error of the work; `Internal` if it panics.
pub async fn spawn_detached<T: Send + 'static>(
    action: &str,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work.in_current_span()).await.context(action)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_core::error::Error;
    use std::sync::Arc;
    use tokio::sync::Notify;

    #[tokio::test]
    async fn detached_task_survives_its_request() {
        let (resume, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (wait, notify_done) = (Arc::clone(&resume), Arc::clone(&done));
        let mut request = Box::pin(spawn_detached("testing", async move {
            wait.notified().await;
            notify_done.notify_one();
            Ok(())
        }));
        assert!(futures_util::poll!(&mut request).is_pending());
        drop(request);
        resume.notify_one();
        done.notified().await;
    }

    #[tokio::test]
    async fn panic_in_blocking_task_is_an_internal_error() {
        let outcome: Result<()> = run_blocking("testing", || panic!("on purpose")).await;
        assert!(matches!(outcome, Err(Error::Internal(_))));
    }
}
