//! Waiting for another thread: first awake, as that takes no more than a microsecond, then asleep.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How long one watches before it sleeps: longer than what a single thread does between two products of a forward pass.
const SPIN_DURATION: Duration = Duration::from_micros(100);
/// Looks between two at the clock.
const SPINS_PER_CLOCK_CHECK: u32 = 32;

/// What one thread at a time waits at.
#[derive(Default)]
pub struct SpinParkEvent {
    is_parked: AtomicBool,
    parked_thread: Mutex<Option<Thread>>,
}

impl SpinParkEvent {
    /// Until the condition holds, which others make true before they ring. Both sides' steps have one order (`SeqCst`):
    /// whoever rings sees the sleeper, or the sleeper has seen the condition.
    pub fn wait(&self, is_met: impl Fn() -> bool) {
        while !spin_until(&is_met) {
            *self.parked_thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::thread::current());
            self.is_parked.store(true, SeqCst);
            if !is_met() {
                std::thread::park();
            }
            // It may have been woken by something else, and a late ring wakes it from a later sleep: it looks again.
            self.is_parked.store(false, SeqCst);
        }
    }

    pub fn notify(&self) {
        if self.is_parked.load(SeqCst) && self.is_parked.swap(false, SeqCst) {
            let parked_thread = self.parked_thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(parked_thread) = parked_thread {
                parked_thread.unpark();
            }
        }
    }
}

/// Whether the condition held within a while.
fn spin_until(is_met: &impl Fn() -> bool) -> bool {
    if is_met() {
        return true;
    }
    let start = Instant::now();
    loop {
        for _ in 0..SPINS_PER_CLOCK_CHECK {
            spin_loop();
            if is_met() {
                return true;
            }
        }
        if start.elapsed() > SPIN_DURATION {
            return false;
        }
    }
}
