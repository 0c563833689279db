//! Bounds the memory of large JSON bodies. A body counts from its arrival until the response starts, because the request that was parsed
//! from it holds its texts.

use super::error::{ApiError, ApiResult};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The budget is counted in units of this size.
const UNIT_BYTES: usize = 1024;

/// Memory budget of large JSON bodies; clones share it.
#[derive(Clone)]
pub struct BodyMemory {
    free_units: Arc<Semaphore>,
}

impl BodyMemory {
    pub fn new(bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        Self { free_units: Arc::new(Semaphore::new(units)) }
    }

    /// Starts an empty reservation.
    pub fn reserve(&self) -> BodyReservation {
        BodyReservation { memory: self.clone(), permit: Arc::default() }
    }
}

/// Memory of one request's body, freed with its last clone; an extension of requests.
#[derive(Clone)]
pub struct BodyReservation {
    memory: BodyMemory,
    permit: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl BodyReservation {
    /// Checks that a body of `bytes` bytes would fit now.
    ///
    /// # Errors
    /// 503 `body_memory_full`.
    pub fn check(&self, bytes: usize) -> ApiResult<()> {
        match bytes.div_ceil(UNIT_BYTES) <= self.memory.free_units.available_permits() {
            true => Ok(()),
            false => Err(memory_full()),
        }
    }

    /// Grows the reservation to `bytes` bytes in total.
    ///
    /// # Errors
    /// 503 `body_memory_full`.
    pub fn grow_to(&self, bytes: usize) -> ApiResult<()> {
        let mut permit = self.permit.lock().unwrap_or_else(PoisonError::into_inner);
        let held = permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = bytes.div_ceil(UNIT_BYTES).saturating_sub(held);
        if missing == 0 {
            return Ok(());
        }
        let free_units = Arc::clone(&self.memory.free_units);
        let missing = u32::try_from(missing).map_err(|_| memory_full())?;
        let added = free_units.try_acquire_many_owned(missing).map_err(|_| memory_full())?;
        match permit.as_mut() {
            Some(permit) => permit.merge(added),
            None => *permit = Some(added),
        }
        Ok(())
    }
}

fn memory_full() -> ApiError {
    let detail = "large request bodies fill the memory that they may use (--max-body-memory): try again later";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "body_memory_full", detail).with_retry_after(Duration::from_secs(1))
}

/// Middleware that holds the reservation of a request until its response starts.
pub async fn hold_body_memory(State(memory): State<BodyMemory>, mut request: Request, next: Next) -> Response {
    let reservation = memory.reserve();
    request.extensions_mut().insert(reservation.clone());
    let response = next.run(request).await;
    drop(reservation);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_beyond_the_budget_are_refused_until_another_is_freed() {
        let memory = BodyMemory::new(10 * UNIT_BYTES);
        let (first, second) = (memory.reserve(), memory.reserve());
        first.grow_to(1).unwrap();
        first.grow_to(6 * UNIT_BYTES).unwrap();
        first.grow_to(2).unwrap();
        second.check(4 * UNIT_BYTES).unwrap();
        assert_eq!(second.check(4 * UNIT_BYTES + 1).unwrap_err().code, "body_memory_full");
        second.grow_to(4 * UNIT_BYTES).unwrap();
        assert_eq!(second.grow_to(5 * UNIT_BYTES).unwrap_err().status, StatusCode::SERVICE_UNAVAILABLE);
        drop(first);
        second.grow_to(10 * UNIT_BYTES).unwrap();
    }
}
