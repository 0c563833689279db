//! Limit on open connections. When it is reached, the connection that has been idle longest is closed, and where all are busy the
//! new one is accepted to be refused.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Open connections of the server. A connection is idle while it has no request in flight.
pub struct ConnectionLimiter {
    max_connections: usize,
    next_id: AtomicU64,
    state: Mutex<State>,
    /// Notified when a connection is closed or becomes idle.
    changed: Notify,
    /// Places for connections beyond the limit.
    refusals: Arc<Semaphore>,
}

/// Maximum number of connections beyond the limit that are open at once; more wait in the listener's backlog.
pub const MAX_REFUSED_CONNECTIONS: usize = 32;

#[derive(Default)]
struct State {
    next_idle_order: u64,
    connections: HashMap<u64, Entry>,
    /// Ids of the idle connections, in the order in which they became idle.
    idle: BTreeMap<u64, u64>,
}

struct Entry {
    /// Key in `State::idle` while no request is in flight.
    idle_order: Option<u64>,
    close: CancellationToken,
}

impl ConnectionLimiter {
    pub fn new(max_connections: usize) -> Arc<Self> {
        Arc::new(Self {
            max_connections,
            next_id: AtomicU64::new(0),
            state: Mutex::default(),
            changed: Notify::new(),
            refusals: Arc::new(Semaphore::new(MAX_REFUSED_CONNECTIONS)),
        })
    }

    /// Registers a new connection, beyond the limit if all others are busy. Waits while there are too many beyond the limit.
    pub async fn open(self: &Arc<Self>) -> ConnectionSlot {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(slot) = self.try_open() {
                return slot;
            }
            if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
                return self.slot(Some(permit));
            }
            changed.await;
        }
    }

    /// Registers a new connection. At the limit, closes the connection that has been idle longest; `None` if all are busy.
    fn try_open(self: &Arc<Self>) -> Option<ConnectionSlot> {
        let mut state = self.lock();
        if state.connections.len() >= self.max_connections && !state.close_longest_idle() {
            return None;
        }
        let slot = self.slot(None);
        state.connections.insert(slot.id, Entry { idle_order: None, close: slot.close.clone() });
        state.mark_idle(slot.id);
        Some(slot)
    }

    fn slot(self: &Arc<Self>, refusal: Option<OwnedSemaphorePermit>) -> ConnectionSlot {
        ConnectionSlot {
            limiter: Arc::clone(self),
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            requests_in_flight: AtomicUsize::new(0),
            close: CancellationToken::new(),
            refusal,
        }
    }

    /// Closes the connection that has been idle longest and waits for it; returns whether there was one.
    pub async fn close_longest_idle(&self) -> bool {
        let mut changed = pin!(self.changed.notified());
        changed.as_mut().enable();
        let was_closed = self.lock().close_longest_idle();
        if was_closed {
            changed.await;
        }
        was_closed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn mark_idle(&mut self, id: u64) {
        let order = self.next_idle_order;
        self.next_idle_order += 1;
        if let Some(entry) = self.connections.get_mut(&id) {
            entry.idle_order = Some(order);
            self.idle.insert(order, id);
        }
    }

    fn close_longest_idle(&mut self) -> bool {
        let Some((_, id)) = self.idle.pop_first() else { return false };
        if let Some(entry) = self.connections.remove(&id) {
            entry.close.cancel();
        }
        true
    }
}

/// Place of one connection within the limit, until it is dropped.
pub struct ConnectionSlot {
    limiter: Arc<ConnectionLimiter>,
    id: u64,
    /// Changes while `ConnectionLimiter::state` is locked.
    requests_in_flight: AtomicUsize,
    close: CancellationToken,
    /// Place of a connection beyond the limit.
    refusal: Option<OwnedSemaphorePermit>,
}

impl ConnectionSlot {
    /// Returns whether the connection is beyond the limit: its requests are refused.
    pub fn is_beyond_limit(&self) -> bool {
        self.refusal.is_some()
    }

    /// Cancelled when the connection must be closed in favour of a new one. It is no longer counted then.
    pub fn close_requested(&self) -> &CancellationToken {
        &self.close
    }

    pub fn is_idle(&self) -> bool {
        self.requests_in_flight.load(Ordering::Relaxed) == 0
    }

    /// Counts a request as in flight until the guard is dropped.
    pub fn start_request(self: &Arc<Self>) -> RequestGuard {
        let mut state = self.limiter.lock();
        self.requests_in_flight.fetch_add(1, Ordering::Relaxed);
        if let Some(order) = state.connections.get_mut(&self.id).and_then(|entry| entry.idle_order.take()) {
            state.idle.remove(&order);
        }
        RequestGuard(Arc::clone(self))
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut state = self.limiter.lock();
        let entry = state.connections.remove(&self.id);
        if let Some(order) = entry.and_then(|entry| entry.idle_order) {
            state.idle.remove(&order);
        }
        drop(state);
        // Before the notification, which lets a waiting connection take the place.
        drop(self.refusal.take());
        self.limiter.changed.notify_waiters();
    }
}

/// Keeps a connection from being idle.
pub struct RequestGuard(Arc<ConnectionSlot>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let limiter = &self.0.limiter;
        let mut state = limiter.lock();
        if self.0.requests_in_flight.fetch_sub(1, Ordering::Relaxed) == 1 {
            state.mark_idle(self.0.id);
            drop(state);
            limiter.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(limiter: &Arc<ConnectionLimiter>) -> Arc<ConnectionSlot> {
        Arc::new(limiter.try_open().expect("an idle connection gives way"))
    }

    #[test]
    fn longest_idle_connection_gives_way() {
        let limiter = ConnectionLimiter::new(3);
        let [first, second, third] = [open(&limiter), open(&limiter), open(&limiter)];
        // The first becomes idle last.
        drop(first.start_request());
        let fourth = open(&limiter);
        let closed = [&first, &second, &third, &fourth].map(|slot| slot.close_requested().is_cancelled());
        assert_eq!(closed, [false, true, false, false]);
    }

    #[test]
    fn busy_connections_are_not_closed() {
        let limiter = ConnectionLimiter::new(2);
        let [first, second] = [open(&limiter), open(&limiter)];
        let (_request, request) = (first.start_request(), second.start_request());
        assert!(limiter.try_open().is_none());
        drop(request);
        let third = open(&limiter);
        assert!(second.close_requested().is_cancelled() && !first.close_requested().is_cancelled());
        drop(third);
        assert!(limiter.try_open().is_some());
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_are_few_and_wait_for_a_place() {
        let limiter = ConnectionLimiter::new(1);
        let slot = open(&limiter);
        let request = slot.start_request();
        let mut refused = Vec::new();
        for _ in 0..MAX_REFUSED_CONNECTIONS {
            refused.push(limiter.open().await);
        }
        assert!(refused.iter().all(ConnectionSlot::is_beyond_limit));
        let mut waiting = Box::pin(limiter.open());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        refused.pop();
        assert!(waiting.await.is_beyond_limit());
        let mut waiting = Box::pin(limiter.open());
        refused.push(limiter.slot(Arc::clone(&limiter.refusals).try_acquire_owned().ok()));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(request);
        assert!(!waiting.await.is_beyond_limit());
    }
}
