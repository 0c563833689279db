//! Semaphore whose waiting owners get permits in turn.

use super::Owner;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Permits for a number of requests at once. Of several owners that wait, each gets a permit in its turn; of one owner's requests, the
/// oldest.
pub struct OwnerSemaphore {
    state: Arc<Mutex<State>>,
}

struct State {
    free: usize,
    /// Owners with waiting requests, the next one first.
    turns: VecDeque<Owner>,
    waiting: HashMap<Owner, VecDeque<oneshot::Sender<OwnerPermit>>>,
}

/// Right to run; dropping it gives it to the next request.
pub struct OwnerPermit {
    /// `None` once the permit is given back.
    state: Option<Arc<Mutex<State>>>,
}

impl OwnerSemaphore {
    pub fn new(permits: usize) -> Self {
        let state = State { free: permits.max(1), turns: VecDeque::new(), waiting: HashMap::new() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Waits for a permit. Dropping the future gives up the place.
    pub async fn acquire(&self, owner: &Owner) -> OwnerPermit {
        let permit = {
            let mut state = lock(&self.state);
            match state.free {
                0 => state.enqueue(owner),
                _ => {
                    state.free -= 1;
                    return OwnerPermit { state: Some(Arc::clone(&self.state)) };
                }
            }
        };
        permit.await.expect("a waiting request is only removed from the queue with a permit")
    }
}

impl State {
    fn enqueue(&mut self, owner: &Owner) -> oneshot::Receiver<OwnerPermit> {
        let (sender, receiver) = oneshot::channel();
        let waiting = self.waiting.entry(Owner::clone(owner)).or_default();
        if waiting.is_empty() {
            self.turns.push_back(Owner::clone(owner));
        }
        waiting.push_back(sender);
        receiver
    }

    /// The next request that waits.
    fn next(&mut self) -> Option<oneshot::Sender<OwnerPermit>> {
        let owner = self.turns.pop_front()?;
        let waiting = self.waiting.get_mut(&owner)?;
        let sender = waiting.pop_front();
        match waiting.is_empty() {
            true => drop(self.waiting.remove(&owner)),
            false => self.turns.push_back(owner),
        }
        sender
    }
}

impl Drop for OwnerPermit {
    fn drop(&mut self) {
        let Some(state) = self.state.take() else { return };
        let mut permit = Self { state: Some(Arc::clone(&state)) };
        let mut state = lock(&state);
        while let Some(sender) = state.next() {
            match sender.send(permit) {
                Ok(()) => return,
                // The request was cancelled while it waited.
                Err(returned) => permit = returned,
            }
        }
        state.free += 1;
        permit.state = None;
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn owners_that_wait_get_permits_in_turn() {
        let semaphore = OwnerSemaphore::new(1);
        let (a, b) = (Owner::from("a"), Owner::from("b"));
        let mut permit = semaphore.acquire(&a).await;
        let mut waiting: Vec<_> = [&a, &a, &a, &b, &b].map(|owner| Box::pin(semaphore.acquire(owner))).into();
        assert!(waiting.iter_mut().all(|one| one.as_mut().now_or_never().is_none()));
        for next in [0, 3, 1, 4, 2] {
            drop(permit);
            permit = waiting[next].as_mut().now_or_never().expect("it is the turn of this request");
        }
        drop(permit);
        assert_eq!(lock(&semaphore.state).free, 1);
    }

    #[tokio::test]
    async fn cancelled_requests_are_passed_over() {
        let semaphore = OwnerSemaphore::new(1);
        let (a, b) = (Owner::from("a"), Owner::from("b"));
        let permit = semaphore.acquire(&a).await;
        let (mut cancelled, mut next) = (Box::pin(semaphore.acquire(&a)), Box::pin(semaphore.acquire(&b)));
        assert!(cancelled.as_mut().now_or_never().is_none() && next.as_mut().now_or_never().is_none());
        drop(cancelled);
        drop(permit);
        drop(next.as_mut().now_or_never().expect("the other request is cancelled"));
        assert_eq!(lock(&semaphore.state).free, 1);
    }

    #[tokio::test]
    async fn a_permit_that_nobody_takes_is_free_again() {
        let semaphore = OwnerSemaphore::new(1);
        let owner = Owner::from("a");
        let permit = semaphore.acquire(&owner).await;
        let mut waiting = Box::pin(semaphore.acquire(&owner));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(permit);
        drop(waiting);
        assert!(semaphore.acquire(&owner).now_or_never().is_some());
    }
}
