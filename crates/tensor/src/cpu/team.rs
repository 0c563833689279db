//! Threads that do one piece of work together, thousands of times a second: a product's columns are shared among them.
//!
//! The caller is one of them. Between rounds the others watch for the next for a moment, which costs a round about a
//! microsecond, and then sleep, so that a team without work costs nothing. A part whose thread has not come by the time
//! the caller has done its own, because it sleeps or others have its core, is the caller's too: nobody waits for a thread
//! that has not begun. Knows nothing of what is computed.

mod bell;

use bell::Bell;
use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// The same for all threads, each told its index.
type Work = dyn Fn(usize) + Sync;

/// A fixed number of threads, the caller's among them.
pub struct Team {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Counts up with every round.
    round: AtomicU32,
    /// What the current round is to do. It lives as long as the round does.
    work: UnsafeCell<Option<*const Work>>,
    members: Box<[Member]>,
    /// Rung by a member that is done, for the caller.
    done: Bell,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    is_over: AtomicBool,
}

/// A thread other than the caller's, on cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
struct Member {
    /// The last round whose part of the work somebody took: this thread, or the caller instead.
    taken: AtomicU32,
    /// The last round of which this thread needs nothing any more.
    done: AtomicU32,
    wake: Bell,
}

impl Member {
    /// Whether this round's part is now the one's who asks, and nobody else's.
    fn take(&self, round: u32) -> bool {
        self.taken.compare_exchange(round.wrapping_sub(1), round, SeqCst, SeqCst).is_ok()
    }
}

// SAFETY: `work` is written only by the one thread that has the team, and only between rounds: when every part of the last
// is taken, and done where a member took it. A member reads it only after it has taken its part of the round, so the next
// cannot begin before it is done. What it points to may be shared, for it is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

/// Ends when no member needs what the caller has borrowed, even when a part of the caller's panics.
struct Round<'a> {
    shared: &'a Shared,
    number: u32,
}

impl Round<'_> {
    /// The parts of those that have not come.
    fn take_over(&self, work: &Work) {
        for (index, member) in self.shared.members.iter().enumerate() {
            if member.take(self.number) {
                member.done.store(self.number, SeqCst);
                work(index + 1);
            }
        }
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        for member in &self.shared.members {
            if member.take(self.number) {
                // Only after a panic: nobody does it any more.
                member.done.store(self.number, SeqCst);
            }
            self.shared.done.wait(|| member.done.load(SeqCst) == self.number);
        }
    }
}

impl Team {
    /// Of so many threads with the caller's, the others started by `spawn`, each with its index and what it is to run.
    ///
    /// # Errors
    /// Those of `spawn`.
    pub fn new<E>(
        threads: usize,
        mut spawn: impl FnMut(usize, Box<dyn FnOnce() + Send>) -> Result<JoinHandle<()>, E>,
    ) -> Result<Self, E> {
        let members: Box<[Member]> = (1..threads).map(|_| Member::default()).collect();
        let shared = Arc::new(Shared {
            round: AtomicU32::new(0),
            work: UnsafeCell::new(None),
            members,
            done: Bell::default(),
            panic: Mutex::new(None),
            is_over: AtomicBool::new(false),
        });
        // Those that were started end with the team, should one not start.
        let mut team = Self { shared, threads: Vec::new() };
        for index in 1..threads {
            let shared = Arc::clone(&team.shared);
            team.threads.push(spawn(index, Box::new(move || serve(&shared, index)))?);
        }
        Ok(team)
    }

    /// With the caller's.
    pub fn threads(&self) -> usize {
        self.shared.members.len() + 1
    }

    /// Runs the work once for every index below the number of threads, 0 on the caller's; returns when all is done. A panic
    /// of any is the caller's.
    pub fn run(&mut self, work: impl Fn(usize) + Sync) {
        let work: &(dyn Fn(usize) + Sync + '_) = &work;
        // SAFETY: only the lifetime changes, and members read it only within this round, whose end `Round` waits for.
        let lasting = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const Work>(work) };
        let round = self.begin(lasting);
        work(0);
        // SAFETY: as above; it is the same work.
        round.take_over(unsafe { &*lasting });
        drop(round);
        let panic = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn begin(&mut self, work: *const Work) -> Round<'_> {
        // Of a round that ended by a panic of the caller's own.
        self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        // SAFETY: we have the team for us, and the last round is over.
        unsafe { *self.shared.work.get() = Some(work) };
        let number = self.shared.next();
        Round { shared: &self.shared, number }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.is_over.store(true, SeqCst);
        // SAFETY: we have the team for us, and the last round is over.
        unsafe { *self.shared.work.get() = None };
        self.shared.next();
        for thread in self.threads.drain(..) {
            // What it panicked of was the caller's.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The next round begins.
    fn next(&self) -> u32 {
        let number = self.round.fetch_add(1, SeqCst).wrapping_add(1);
        self.members.iter().for_each(|member| member.wake.ring());
        number
    }
}

fn serve(shared: &Shared, index: usize) {
    let member = &shared.members[index - 1];
    let mut last = 0;
    loop {
        member.wake.wait(|| shared.round.load(SeqCst) != last);
        // The round first: who sees the last one, which has no work, sees that it is over, too.
        last = shared.round.load(SeqCst);
        if shared.is_over.load(SeqCst) {
            return;
        }
        if !member.take(last) {
            continue;
        }
        // SAFETY: our part of the round is ours, so it goes on until we are done: what it is to do is there, and is not
        // written before.
        let work = unsafe { *shared.work.get() };
        if let Some(work) = work {
            // SAFETY: the caller waits for us before what it points to goes.
            let result = catch_unwind(AssertUnwindSafe(|| unsafe { (*work)(index) }));
            if let Err(panic) = result {
                *shared.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
        }
        member.done.store(last, SeqCst);
        shared.done.ring();
    }
}

/// The part of `0..count` that is a thread's, of so many threads: as even as whole numbers allow.
pub fn share(count: usize, index: usize, threads: usize) -> Range<usize> {
    count * index / threads..count * (index + 1) / threads
}

#[cfg(test)]
mod tests;
