//! Work that a handler must not do itself: what blocks, and what may not stop half way.
//!
//! Both keep the request's span, so that what they log carries its id. Knows nothing of what is done.

use espalier_core::error::{Context, Result};
use tracing::{Instrument, Span};

/// Does what computes or waits for the disk on a thread where nobody else waits behind it.
///
/// # Errors
/// The work's own; `Internal` where it panicked.
pub async fn aside<T: Send + 'static>(doing: &str, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let span = Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work)).await.context(doing)?
}

/// Goes on to the end even if the client is gone: a file and its row belong together.
///
/// # Errors
/// The work's own; `Internal` where it panicked.
pub async fn to_the_end<T: Send + 'static>(
    doing: &str,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work.in_current_span()).await.context(doing)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_core::error::Error;
    use std::sync::Arc;
    use tokio::sync::Notify;

    #[tokio::test]
    async fn work_goes_on_when_its_request_is_dropped() {
        let (go_on, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (wait, tell) = (Arc::clone(&go_on), Arc::clone(&done));
        let mut request = Box::pin(to_the_end("testing", async move {
            wait.notified().await;
            tell.notify_one();
            Ok(())
        }));
        assert!(futures_util::poll!(&mut request).is_pending());
        drop(request);
        go_on.notify_one();
        done.notified().await;
    }

    #[tokio::test]
    async fn a_panic_aside_is_an_internal_error() {
        let outcome: Result<()> = aside("testing", || panic!("on purpose")).await;
        assert!(matches!(outcome, Err(Error::Internal(_))));
    }
}
