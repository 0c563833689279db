//! Work that a handler must not do itself: what blocks, and what may not stop half way.
//!
//! Both keep the request's span, so that what they log carries its id. Knows nothing of what is done.

use espalier_core::error::{Context, Result};
use tracing::{Instrument, Span};

/// Does what computes or waits for the disk on a thread where nobody else waits behind it.
///
/// # Errors
/// The work's own; `Internal` where it panicked.
pub async fn run_blocking<T: Send + 'static>(
    action: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let span = Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work)).await.context(action)?
}

/// Goes on to the end even if the client is gone: a file and its row belong together.
///
/// # Errors
/// The work's own; `Internal` where it panicked.
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
