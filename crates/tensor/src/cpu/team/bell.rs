//! Waiting for another thread: first awake, as that takes no more than a microsecond, then asleep.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How long one watches before it sleeps: longer than what a single thread does between two products of a forward pass.
const AWAKE: Duration = Duration::from_micros(100);
/// Looks between two at the clock.
const LOOKS: u32 = 32;

/// What one thread at a time waits at.
#[derive(Default)]
pub struct Bell {
    asleep: AtomicBool,
    sleeper: Mutex<Option<Thread>>,
}

impl Bell {
    /// Until the condition holds, which others make true before they ring. Both sides' steps have one order (`SeqCst`):
    /// whoever rings sees the sleeper, or the sleeper has seen the condition.
    pub fn wait(&self, is_met: impl Fn() -> bool) {
        while !watched(&is_met) {
            *self.sleeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::thread::current());
            self.asleep.store(true, SeqCst);
            if !is_met() {
                std::thread::park();
            }
            // It may have been woken by something else, and a late ring wakes it from a later sleep: it looks again.
            self.asleep.store(false, SeqCst);
        }
    }

    pub fn ring(&self) {
        if self.asleep.load(SeqCst) && self.asleep.swap(false, SeqCst) {
            let sleeper = self.sleeper.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(sleeper) = sleeper {
                sleeper.unpark();
            }
        }
    }
}

/// Whether the condition held within a while.
fn watched(is_met: &impl Fn() -> bool) -> bool {
    if is_met() {
        return true;
    }
    let start = Instant::now();
    loop {
        for _ in 0..LOOKS {
            spin_loop();
            if is_met() {
                return true;
            }
        }
        if start.elapsed() > AWAKE {
            return false;
        }
    }
}
