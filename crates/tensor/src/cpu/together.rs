//! Products of a few rows on several threads: only while one thread computes alone, and others would have nothing to do.
//!
//! Knows nothing of products.

use super::team::Team;
use crate::pool::{Priority, spawn};
use std::cell::{Cell, RefCell};

thread_local! {
    /// Of this thread; made when it is first asked for.
    static TEAM: RefCell<Option<Team>> = const { RefCell::new(None) };
    static IS_HELPED: Cell<bool> = const { Cell::new(false) };
    /// No team could be started: it is not tried again.
    static IS_ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Ends the help, also where the work panics.
struct Helped;

impl Drop for Helped {
    fn drop(&mut self) {
        IS_HELPED.set(false);
    }
}

/// Runs the work; its products are shared among so many threads, this one among them. Where no others can be started, it runs
/// alone.
pub fn together<T>(threads: usize, work: impl FnOnce() -> T) -> T {
    let is_ready = threads > 1
        && !IS_ALONE.get()
        && TEAM.with_borrow_mut(|team| {
            if team.as_ref().is_none_or(|team| team.threads() != threads) {
                let made = Team::new(threads, |index, work| spawn(&format!("help-{index}"), Priority::Normal, work));
                *team = made.inspect_err(|error| tracing::warn!(%error, "products are not shared among threads")).ok();
            }
            IS_ALONE.set(team.is_none());
            team.is_some()
        });
    IS_HELPED.set(is_ready);
    let _helped = Helped;
    work()
}

/// The team that helps now, if one does.
pub fn with_team<T>(work: impl FnOnce(Option<&mut Team>) -> T) -> T {
    match IS_HELPED.get() {
        true => TEAM.with_borrow_mut(|team| work(team.as_mut())),
        false => work(None),
    }
}
