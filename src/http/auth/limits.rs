//! Rate limits and limits on concurrent requests, of keys and of owners. They hold for this process.

use super::token_bucket::{BucketState, TokenBucket};
use crate::http::error::{ApiError, ApiResult};
use crate::store::{OwnerLimits, RequestLimits};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// `Retry-After` of a limit on concurrent requests, where the end of the others is not known.
const CONCURRENCY_RETRY_AFTER: Duration = Duration::from_secs(1);

type RequestRate = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;

/// Limits on the requests of one key or one owner, and what they have used of them.
#[derive(Default)]
pub struct RequestLimiter {
    pub limits: RequestLimits,
    requests: Option<RequestRate>,
    tokens: Option<TokenBucket>,
    concurrent: Option<Arc<Semaphore>>,
}

impl std::fmt::Debug for RequestLimiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.limits.fmt(f)
    }
}

/// An owner and its limits in this process.
#[derive(Debug, Default)]
pub struct OwnerState {
    pub name: String,
    pub limits: OwnerLimits,
    pub limiter: RequestLimiter,
}

/// What is left of a limit after a request.
#[derive(Debug, Clone, Copy)]
struct Remaining {
    limit: u32,
    remaining: u64,
    reset: Duration,
}

/// Admission of a request. It counts as concurrent until this is dropped.
#[derive(Debug, Default)]
pub struct Admission {
    requests: Option<Remaining>,
    tokens: Option<Remaining>,
    permits: Vec<OwnedSemaphorePermit>,
}

impl OwnerState {
    pub fn new(name: String, limits: OwnerLimits) -> Self {
        Self { name, limits, limiter: RequestLimiter::new(limits.requests()) }
    }
}

impl RequestLimiter {
    pub fn new(limits: RequestLimits) -> Self {
        let rate = limits.requests_per_minute.and_then(NonZeroU32::new);
        Self {
            limits,
            requests: rate.map(|rate| {
                RateLimiter::direct(Quota::per_minute(rate)).with_middleware::<StateInformationMiddleware>()
            }),
            tokens: limits.tokens_per_minute.map(TokenBucket::per_minute),
            concurrent: limits.concurrent_requests.map(|limit| Arc::new(Semaphore::new(limit as usize))),
        }
    }

    /// Counts what a request cost.
    pub fn charge_tokens(&self, tokens: u64) {
        if let Some(bucket) = &self.tokens {
            bucket.charge(tokens, Instant::now());
        }
    }
}

/// What a request counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestCost {
    /// It reads: only the limit on concurrent requests holds.
    Read,
    /// It counts as one request.
    Request,
    /// It counts as one request and costs tokens.
    Tokens,
}

/// Admits a request within the limits of its key and of its owner.
///
/// # Errors
/// 429 with `Retry-After` and OpenAI's rate limit headers: `requests_per_minute_exceeded`, `tokens_per_minute_exceeded`,
/// `concurrent_requests_exceeded`.
pub fn admit(key: &RequestLimiter, owner: &RequestLimiter, cost: RequestCost) -> ApiResult<Admission> {
    let mut admission = Admission::default();
    for (limiter, whose) in [(key, "this key"), (owner, "this owner")] {
        admission.take_permit(limiter, whose)?;
        if cost == RequestCost::Tokens {
            admission.check_tokens(limiter, whose)?;
        }
    }
    if cost != RequestCost::Read {
        for (limiter, whose) in [(key, "this key"), (owner, "this owner")] {
            admission.count_request(limiter, whose)?;
        }
    }
    Ok(admission)
}

impl Admission {
    fn take_permit(&mut self, limiter: &RequestLimiter, whose: &str) -> ApiResult<()> {
        let Some(semaphore) = &limiter.concurrent else { return Ok(()) };
        match Arc::clone(semaphore).try_acquire_owned() {
            Ok(permit) => self.permits.push(permit),
            Err(_) => {
                let limit = limiter.limits.concurrent_requests.unwrap_or_default();
                let detail =
                    format!("{whose} has {limit} requests in flight, which is its limit: wait for one of them");
                return Err(self.refuse("concurrent_requests_exceeded", detail, CONCURRENCY_RETRY_AFTER));
            }
        }
        Ok(())
    }

    fn check_tokens(&mut self, limiter: &RequestLimiter, whose: &str) -> ApiResult<()> {
        let (Some(bucket), Some(limit)) = (&limiter.tokens, limiter.limits.tokens_per_minute) else { return Ok(()) };
        let BucketState { remaining, wait, reset } = bucket.state(Instant::now());
        self.tokens = tighter(self.tokens, Remaining { limit, remaining, reset });
        match wait.is_zero() {
            true => Ok(()),
            false => {
                let detail = format!("{whose} has used its {limit} tokens per minute: try again later");
                Err(self.refuse("tokens_per_minute_exceeded", detail, wait))
            }
        }
    }

    fn count_request(&mut self, limiter: &RequestLimiter, whose: &str) -> ApiResult<()> {
        let (Some(rate), Some(limit)) = (&limiter.requests, limiter.limits.requests_per_minute) else { return Ok(()) };
        let interval = Duration::from_secs(60) / limit.max(1);
        match rate.check() {
            Ok(state) => {
                let remaining = u64::from(state.remaining_burst_capacity());
                let reset = interval * limit.saturating_sub(state.remaining_burst_capacity());
                self.requests = tighter(self.requests, Remaining { limit, remaining, reset });
                Ok(())
            }
            Err(not_until) => {
                let wait = not_until.wait_time_from(DefaultClock::default().now());
                self.requests = Some(Remaining { limit, remaining: 0, reset: interval * limit });
                let detail = format!("{whose} has sent its {limit} requests per minute: try again later");
                Err(self.refuse("requests_per_minute_exceeded", detail, wait))
            }
        }
    }

    fn refuse(&self, code: &'static str, detail: String, wait: Duration) -> ApiError {
        let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, code, detail).with_retry_after(wait);
        self.headers().into_iter().fold(error, |error, (name, value)| error.with_header(name, value))
    }

    /// OpenAI's rate limit headers, for the limits that hold.
    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let of = |state: Option<Remaining>, names: [&'static str; 3]| {
            state.into_iter().flat_map(move |state| {
                let [limit, remaining, reset] = names.map(HeaderName::from_static);
                [
                    (limit, HeaderValue::from(state.limit)),
                    (remaining, HeaderValue::from(state.remaining)),
                    (reset, duration_value(state.reset)),
                ]
            })
        };
        let requests = ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"];
        let tokens = ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"];
        of(self.requests, requests).chain(of(self.tokens, tokens)).collect()
    }

    /// Whether the response has to keep this until its body ends.
    pub fn holds_permits(&self) -> bool {
        !self.permits.is_empty()
    }
}

fn tighter(one: Option<Remaining>, other: Remaining) -> Option<Remaining> {
    Some(one.filter(|one| one.remaining <= other.remaining).unwrap_or(other))
}

/// Duration as OpenAI writes it, such as `6m0s` or `20ms`.
fn duration_value(duration: Duration) -> HeaderValue {
    let milliseconds = duration.as_millis();
    let text = match (milliseconds / 60_000, milliseconds % 60_000) {
        (0, milliseconds) if milliseconds < 1000 => format!("{milliseconds}ms"),
        (0, milliseconds) => format!("{}s", milliseconds.div_ceil(1000)),
        (minutes, milliseconds) => format!("{minutes}m{}s", milliseconds / 1000),
    };
    HeaderValue::from_str(&text).expect("digits and letters are valid in a header")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(limits: RequestLimits) -> RequestLimiter {
        RequestLimiter::new(limits)
    }

    fn header(headers: &[(HeaderName, HeaderValue)], name: &str) -> String {
        let value = headers.iter().find(|(candidate, _)| candidate == name).map(|(_, value)| value);
        value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_string()
    }

    #[test]
    fn requests_are_limited_by_key_and_by_owner() {
        let key = limiter(RequestLimits { requests_per_minute: Some(5), ..RequestLimits::default() });
        let owner = limiter(RequestLimits { requests_per_minute: Some(2), ..RequestLimits::default() });
        let first = admit(&key, &owner, RequestCost::Request).unwrap();
        assert_eq!(header(&first.headers(), "x-ratelimit-remaining-requests"), "1");
        admit(&key, &owner, RequestCost::Tokens).unwrap();
        let error = admit(&key, &owner, RequestCost::Request).unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (429, "requests_per_minute_exceeded"));
        assert_eq!(header(&error.headers, "x-ratelimit-limit-requests"), "2");
        assert_ne!(header(&error.headers, "retry-after"), "");
        assert!(admit(&key, &owner, RequestCost::Read).is_ok());
    }

    #[test]
    fn tokens_are_charged_after_the_request() {
        let key = limiter(RequestLimits { tokens_per_minute: Some(600), ..RequestLimits::default() });
        let owner = RequestLimiter::default();
        let admission = admit(&key, &owner, RequestCost::Tokens).unwrap();
        assert_eq!(header(&admission.headers(), "x-ratelimit-remaining-tokens"), "600");
        key.charge_tokens(650);
        let error = admit(&key, &owner, RequestCost::Tokens).unwrap_err();
        assert_eq!(error.code, "tokens_per_minute_exceeded");
        assert_eq!(header(&error.headers, "retry-after"), "6");
        assert!(admit(&key, &owner, RequestCost::Request).is_ok(), "calls without tokens are not limited by them");
    }

    #[test]
    fn a_request_is_in_flight_until_its_admission_is_dropped() {
        let key = limiter(RequestLimits { concurrent_requests: Some(1), ..RequestLimits::default() });
        let owner = RequestLimiter::default();
        let first = admit(&key, &owner, RequestCost::Read).unwrap();
        assert!(first.holds_permits());
        assert_eq!(admit(&key, &owner, RequestCost::Read).unwrap_err().code, "concurrent_requests_exceeded");
        drop(first);
        assert!(admit(&key, &owner, RequestCost::Read).is_ok());
    }

    #[test]
    fn durations_are_written_as_by_openai() {
        for (milliseconds, text) in [(20, "20ms"), (1000, "1s"), (59_001, "60s"), (360_000, "6m0s")] {
            assert_eq!(duration_value(Duration::from_millis(milliseconds)), text);
        }
    }
}
