//! Time limits for receiving a request body: a minimum data rate, and a total time.

use super::error::{ApiError, ApiResult};
use super::state::Settings;
use axum::body::Bytes;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Time limits of one request body.
///
/// Every `window` of waiting must bring `bytes_per_window` bytes, or the end of the body. Only the time spent waiting for the
/// client counts, so a slow disk of the server does not refuse an upload.
#[derive(Debug)]
pub struct BodyTimeouts {
    window: Duration,
    bytes_per_window: u64,
    total_timeout: Duration,
    /// End of the total timeout.
    deadline: Instant,
    /// Waiting time since the last full window of data.
    waited: Duration,
    /// Bytes received since the last full window of data.
    received: u64,
}

impl BodyTimeouts {
    /// Starts the timeouts of the server's settings now.
    pub fn start(settings: &Settings) -> Self {
        Self::new(settings.body_idle_timeout, settings.min_body_rate, settings.body_total_timeout)
    }

    /// Starts the timeouts now; `min_rate` is in bytes per second, averaged over `window`.
    pub fn new(window: Duration, min_rate: u64, total_timeout: Duration) -> Self {
        let bytes_per_window = u128::from(min_rate) * window.as_millis() / 1000;
        Self {
            window,
            bytes_per_window: u64::try_from(bytes_per_window).unwrap_or(u64::MAX).max(1),
            total_timeout,
            deadline: Instant::now() + total_timeout,
            waited: Duration::ZERO,
            received: 0,
        }
    }

    /// Waits for the next chunk of a body; `None` at its end, 408 if the body arrives too slowly.
    pub async fn next_chunk(
        &mut self,
        chunk: impl Future<Output = Option<ApiResult<Bytes>>>,
    ) -> ApiResult<Option<Bytes>> {
        let Some(chunk) = self.wait_for(chunk).await? else { return Ok(None) };
        let chunk = chunk?;
        self.received = self.received.saturating_add(chunk.len() as u64);
        if self.received >= self.bytes_per_window {
            (self.waited, self.received) = (Duration::ZERO, 0);
        }
        Ok(Some(chunk))
    }

    /// Waits for a part of the body; 408 if it does not arrive in time.
    pub async fn wait_for<T>(&mut self, part: impl Future<Output = T>) -> ApiResult<T> {
        let started_at = Instant::now();
        let window_left = self.window.saturating_sub(self.waited);
        let total_left = self.deadline.saturating_duration_since(started_at);
        let arrived = timeout(window_left.min(total_left), part).await;
        self.waited += started_at.elapsed();
        arrived.map_err(|_| match total_left < window_left {
            true => ApiError::request_timeout(self.total_timeout),
            false => ApiError::body_too_slow(self.window, self.bytes_per_window),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{Stream, StreamExt, stream};

    const WINDOW: Duration = Duration::from_millis(200);
    /// 100 bytes per window.
    const MIN_RATE: u64 = 500;
    const LONG: Duration = Duration::from_secs(3600);

    /// Chunks of `bytes` bytes, one every 5 ms.
    fn chunks(bytes: usize) -> impl Stream<Item = ApiResult<Bytes>> {
        stream::repeat(()).then(move |()| async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok(Bytes::from(vec![0; bytes]))
        })
    }

    /// Receives chunks until the error; returns its detail and the time that passed.
    async fn receive(chunks: impl Stream<Item = ApiResult<Bytes>>, total_timeout: Duration) -> (String, Duration) {
        let mut chunks = std::pin::pin!(chunks);
        let (mut timeouts, started_at) = (BodyTimeouts::new(WINDOW, MIN_RATE, total_timeout), Instant::now());
        loop {
            if let Err(error) = timeouts.next_chunk(chunks.next()).await {
                assert_eq!((error.status.as_u16(), error.code), (408, "request_timeout"));
                return (error.detail, started_at.elapsed());
            }
        }
    }

    #[tokio::test]
    async fn body_below_the_minimum_rate_is_refused_after_one_window() {
        let (detail, took) = receive(chunks(1), LONG).await;
        assert!(detail.contains("100 bytes, the minimum"), "{detail}");
        assert!((WINDOW..10 * WINDOW).contains(&took), "{took:?}");
    }

    #[tokio::test]
    async fn fast_start_does_not_pay_for_a_slow_rest() {
        let fast = stream::iter([Ok(Bytes::from(vec![0; 1 << 20]))]);
        let (_, took) = receive(fast.chain(chunks(1)), LONG).await;
        assert!((WINDOW..10 * WINDOW).contains(&took), "{took:?}");
    }

    #[tokio::test]
    async fn body_at_the_minimum_rate_is_received_until_the_total_timeout() {
        let (detail, took) = receive(chunks(100), 3 * WINDOW).await;
        assert!(detail.contains("within 0.6 seconds"), "{detail}");
        assert!(took >= 3 * WINDOW, "{took:?}");
    }

    #[tokio::test]
    async fn time_spent_on_other_work_does_not_count() {
        let mut chunks = std::pin::pin!(chunks(1).take(3));
        let mut timeouts = BodyTimeouts::new(WINDOW, MIN_RATE, LONG);
        while timeouts.next_chunk(chunks.next()).await.unwrap().is_some() {
            tokio::time::sleep(WINDOW).await;
        }
    }
}
