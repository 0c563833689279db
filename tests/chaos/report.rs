//! What was observed: figures per fault, and violations of the invariants.

use crate::host::Host;
use crate::injection::Fault;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Violations that are printed.
const MAX_PRINTED: usize = 30;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Answered,
    /// 503 or 507 with `Retry-After`.
    Unavailable,
    /// No complete response.
    Disconnected,
}

#[derive(Default)]
struct FaultFigures {
    times: u64,
    answered: u64,
    unavailable: u64,
    disconnected: u64,
    durations: Vec<Duration>,
}

pub struct Report {
    state: Mutex<State>,
}

struct State {
    started: Instant,
    faults: BTreeMap<Option<Fault>, FaultFigures>,
    lines: Vec<String>,
    violations: Vec<String>,
    processes: Vec<String>,
}

impl Report {
    pub fn new() -> Self {
        let (faults, lines, violations, processes) = Default::default();
        Self { state: Mutex::new(State { started: Instant::now(), faults, lines, violations, processes }) }
    }

    pub fn set_start(&self) {
        self.state.lock().unwrap().started = Instant::now();
    }

    pub fn count_fault(&self, fault: Fault) {
        self.state.lock().unwrap().faults.entry(Some(fault)).or_default().times += 1;
    }

    /// Records an attempt beside these faults.
    pub fn record(&self, faults: &[Fault], outcome: Outcome, duration: Duration) {
        let mut keys: Vec<Option<Fault>> = faults.iter().copied().map(Some).collect();
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() {
            keys.push(None);
        }
        let mut state = self.state.lock().unwrap();
        for key in keys {
            let figures = state.faults.entry(key).or_default();
            match outcome {
                Outcome::Answered => figures.answered += 1,
                Outcome::Unavailable => figures.unavailable += 1,
                Outcome::Disconnected => figures.disconnected += 1,
            }
            figures.durations.push(duration);
        }
    }

    pub fn add_line(&self, line: String) {
        self.state.lock().unwrap().lines.push(line);
    }

    pub fn add_process(&self, host: &Host) {
        use std::sync::atomic::Ordering::SeqCst;
        let (starts, failed) = (host.starts.load(SeqCst), host.failed_exits.load(SeqCst));
        let line = format!("{} {}: {starts} starts, {failed} exits with an error", host.role, host.number);
        self.state.lock().unwrap().processes.push(line);
    }

    pub fn add_violation(&self, violation: String) {
        let mut state = self.state.lock().unwrap();
        let at = state.started.elapsed().as_secs_f64();
        state.violations.push(format!("at {at:.1} s: {violation}"));
    }

    pub fn check(&self, holds: bool, violation: impl FnOnce() -> String) {
        if !holds {
            self.add_violation(violation());
        }
    }

    pub fn has_no_violation(&self) -> bool {
        self.state.lock().unwrap().violations.is_empty()
    }

    /// Keeps the log of a host for the analysis of violations.
    pub fn keep_log(&self, host: &Host) {
        if !self.has_no_violation() {
            let path = std::env::temp_dir().join(format!("chaos-{}-{}.log", host.role, host.number));
            std::fs::copy(host.log_file(), &path).unwrap();
            self.add_line(format!("log: {}", path.display()));
        }
    }

    /// Prints the figures as a table.
    pub fn print(&self) {
        let mut state = self.state.lock().unwrap();
        println!("\n| fault | times | answered | 503 or 507, retried | disconnected, retried | median ms | p99 ms |");
        println!("|---|---|---|---|---|---|---|");
        for (fault, figures) in &mut state.faults {
            figures.durations.sort_unstable();
            let quantile = |share: f64| {
                let index = (figures.durations.len() as f64 * share) as usize;
                figures.durations.get(index).map_or(f64::NAN, |duration| duration.as_secs_f64() * 1e3)
            };
            let FaultFigures { times, answered, unavailable, disconnected, .. } = figures;
            let name = fault.map_or("none", Fault::description);
            let (median, p99) = (quantile(0.5), quantile(0.99));
            println!("| {name} | {times} | {answered} | {unavailable} | {disconnected} | {median:.0} | {p99:.0} |");
        }
        println!();
        for line in state.lines.iter().chain(&state.processes) {
            println!("{line}");
        }
    }

    pub fn assert_no_violation(&self) {
        let state = self.state.lock().unwrap();
        let printed: Vec<&str> = state.violations.iter().take(MAX_PRINTED).map(String::as_str).collect();
        assert!(printed.is_empty(), "{} violations:\n{}", state.violations.len(), printed.join("\n"));
    }
}
