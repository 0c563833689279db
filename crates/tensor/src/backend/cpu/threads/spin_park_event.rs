//! Event that a thread waits for: it spins for a moment, then parks.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Spin time before parking: longer than a single thread takes between two products of a forward pass.
const SPIN_DURATION: Duration = Duration::from_micros(100);
/// Checks of the condition between two reads of the clock.
const SPINS_PER_CLOCK_CHECK: u32 = 32;

/// Event with one waiting thread at a time.
#[derive(Default)]
pub struct SpinParkEvent {
    is_parked: AtomicBool,
    parked_thread: Mutex<Option<Thread>>,
}

impl SpinParkEvent {
    /// Waits until the condition holds, which other threads make true before they notify. All operations are `SeqCst`:
    /// either the notifier sees the parked thread, or the waiting thread sees the condition.
    pub fn wait(&self, is_met: impl Fn() -> bool) {
        while !spin_until(&is_met) {
            *self.parked_thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::thread::current());
            self.is_parked.store(true, SeqCst);
            if !is_met() {
                std::thread::park();
            }
            // Wake-ups may be spurious, and a late notification may end a later wait: the loop checks again.
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

/// Whether the condition became true while spinning.
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
