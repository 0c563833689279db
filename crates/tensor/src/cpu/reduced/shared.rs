//! A product whose columns are shared among the threads of a team.

use super::forms::STRIP;
use super::output::Output;
use super::weights::Reduced;
use crate::cpu::team::{Team, share};
use std::sync::{Mutex, PoisonError};

impl Reduced {
    /// A product of all columns, on all threads of the team: each multiplies for some of them.
    pub fn share(&self, team: &mut Team, output: Output, multiply: impl Fn(&mut Output) + Sync) {
        assert_eq!(output.columns(), 0..self.output(), "all columns are shared");
        let threads = team.threads();
        let mut rest = Some(output);
        let cut = |index| {
            let end = share(self.strips(), index, threads).end * STRIP;
            let (part, other) = rest.take()?.split_at(end.min(self.output()));
            rest = Some(other);
            // Each is taken once, by the thread with its index: nobody ever waits here.
            Some(Mutex::new(part))
        };
        let parts: Vec<_> = (0..threads).filter_map(cut).collect();
        team.run(|index| {
            let mut part = parts[index].lock().unwrap_or_else(PoisonError::into_inner);
            multiply(&mut part);
        });
    }
}
