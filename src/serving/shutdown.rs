//! Shutdown of the inference service: which requests are still accepted, and the end of those in flight.

use super::errors::shutting_down;
use espalier_core::error::Result;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Requests in flight, and whether more are accepted.
#[derive(Default)]
pub struct Shutdown {
    active_requests: TaskTracker,
    refuses_generation: AtomicBool,
    refuses_requests: AtomicBool,
    aborted: CancellationToken,
}

/// Kind of a request; generation is refused first, because it takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    Prediction,
    Generation,
}

impl Shutdown {
    /// Counts a request as in flight until the token is dropped.
    ///
    /// # Errors
    /// `Busy` (`shutting_down`).
    pub fn track_request(&self, kind: RequestKind) -> Result<TaskTrackerToken> {
        // Taken before the check: either `wait` waits for this request, or the request is refused.
        let token = self.active_requests.token();
        let is_refused = self.refuses_requests.load(Ordering::SeqCst)
            || (kind == RequestKind::Generation && self.refuses_generation.load(Ordering::SeqCst));
        match is_refused {
            true => Err(shutting_down()),
            false => Ok(token),
        }
    }

    /// Refuses new generation requests.
    pub fn refuse_generation(&self) {
        self.refuses_generation.store(true, Ordering::SeqCst);
    }

    /// Refuses all new requests.
    pub fn refuse_new_requests(&self) {
        self.refuses_requests.store(true, Ordering::SeqCst);
    }

    /// Ends all requests in flight and refuses new ones.
    pub fn abort(&self) {
        self.refuse_new_requests();
        self.aborted.cancel();
    }

    /// Waits for the requests in flight, after [`Self::refuse_new_requests`].
    pub async fn wait(&self) {
        self.active_requests.close();
        self.active_requests.wait().await;
    }

    /// Runs a part of a request, which is dropped when requests are aborted.
    ///
    /// # Errors
    /// The error of the work, or `Busy` (`shutting_down`).
    pub async fn run_until_aborted<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            result = work => result,
            () = self.aborted.cancelled() => Err(shutting_down()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::future::pending;

    #[tokio::test]
    async fn generation_is_refused_before_predictions() {
        let shutdown = Shutdown::default();
        shutdown.refuse_generation();
        let code = |kind| shutdown.track_request(kind).err().map(|error| error.code());
        assert_eq!((code(RequestKind::Generation), code(RequestKind::Prediction)), (Some("shutting_down"), None));
        shutdown.refuse_new_requests();
        assert_eq!(code(RequestKind::Prediction), Some("shutting_down"));
    }

    #[tokio::test]
    async fn requests_in_flight_are_waited_for_until_they_are_aborted() {
        let shutdown = Shutdown::default();
        let token = shutdown.track_request(RequestKind::Generation).unwrap();
        let mut work = Box::pin(shutdown.run_until_aborted(pending::<Result<()>>()));
        assert!(work.as_mut().now_or_never().is_none());
        assert!(Box::pin(shutdown.wait()).now_or_never().is_none());
        shutdown.abort();
        assert_eq!(work.await.unwrap_err().code(), "shutting_down");
        drop(token);
        shutdown.wait().await;
    }
}
