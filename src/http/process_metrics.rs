//! Metrics of this process under the names of Prometheus' client libraries, read from `/proc` on Linux; elsewhere there are none.

use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use rustix::process::Resource;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// Fields of `/proc/self/stat` after the name, which is in parentheses; times are in ticks.
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;
const THREADS: usize = 17;
const START_TIME: usize = 19;
const VIRTUAL_BYTES: usize = 20;

/// Ticks per second in `/proc`, on every architecture (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Registers the metrics, without a prefix.
pub fn register(registry: &mut Registry) {
    let mut gauge = |name, help, value: Option<f64>| {
        if let Some(value) = value {
            registry.register(name, help, ConstGauge::new(value));
        }
    };
    let limits = rustix::process::getrlimit(Resource::Nofile);
    gauge("process_max_fds", "Limit on open files", limits.current.map(|limit| limit as f64));
    // The folder itself is open while it is read.
    let open_files = fs::read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1) as f64);
    gauge("process_open_fds", "Open files", open_files);
    let Some(stat) = read_stat() else { return };
    let field = |index: usize| stat.get(index).and_then(|field| field.parse::<f64>().ok());
    gauge("process_resident_memory_bytes", "Physical memory of the process (RSS)", resident_bytes());
    gauge("process_virtual_memory_bytes", "Virtual memory", field(VIRTUAL_BYTES));
    gauge("process_threads", "Threads", field(THREADS));
    gauge("process_start_time_seconds", "Start of the process in seconds since 1970", start_time(field(START_TIME)));
    if let (Some(user), Some(system)) = (field(USER_TIME), field(SYSTEM_TIME)) {
        let seconds = (user + system) / TICKS_PER_SECOND;
        registry.register("process_cpu_seconds", "Processor time of the process", ConstCounter::new(seconds));
    }
}

fn read_stat() -> Option<Vec<String>> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_string).collect())
}

/// Time of the start, from its clock ticks after the start of the machine.
fn start_time(ticks: Option<f64>) -> Option<f64> {
    let uptime: f64 = fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
    Some(now - uptime + ticks? / TICKS_PER_SECOND)
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    kibibytes.trim().trim_end_matches("kB").trim().parse().ok().map(|kibibytes: f64| kibibytes * 1024.0)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use crate::http::metrics::encode_metrics;

    #[test]
    fn values_of_this_process_are_plausible() {
        let mut registry = Registry::default();
        register(&mut registry);
        let text = encode_metrics(&[&registry]).unwrap();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse::<f64>().unwrap()
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - 3600.0..now + 1.0).contains(&value("process_start_time_seconds")), "{text}");
        assert!(value("process_resident_memory_bytes") > 1e6 && value("process_cpu_seconds_total") >= 0.0, "{text}");
        assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") > 3.0 && value("process_threads") >= 1.0);
    }
}
