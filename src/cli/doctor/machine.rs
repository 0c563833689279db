//! Checks of the listen address, the number of threads and thread priorities.

use super::CheckResult;
use crate::cli::client::{Client, ClientArgs};
use crate::cli::health::loopback_if_unspecified;
use crate::config::{Role, Settings, available_cores};
use espalier_tensor::worker_pool::{Priority, spawn_compute_thread};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

/// Checks whether the address is free or a server already runs there.
pub fn check_address(listen: SocketAddr) -> CheckResult {
    match TcpListener::bind(listen) {
        Ok(_) => CheckResult::pass("address", format!("{listen} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => check_occupied(listen),
        Err(error) => {
            CheckResult::fail("address", format!("cannot listen on {listen}: {error}"), "choose another with --listen")
        }
    }
}

fn check_occupied(listen: SocketAddr) -> CheckResult {
    let server = format!("http://{}", loopback_if_unspecified(listen));
    let args = ClientArgs { server: Some(server.clone()), ..ClientArgs::default() };
    match Client::new(&args).ok().and_then(|client| client.server_version()) {
        Some(version) => CheckResult::pass("address", format!("espalier {version} is running at {server}")),
        None => CheckResult::fail(
            "address",
            format!("{listen} is in use by another program"),
            "stop that program, or listen elsewhere with --listen",
        ),
    }
}

/// Checks the number of threads and the priority of training threads.
pub fn check_cpu(settings: &Settings) -> Vec<CheckResult> {
    let (serving, training) = (settings.serving.threads, settings.worker.training.threads);
    let detail = format!("{} cores: serving on {serving} threads, training on {training}", available_cores());
    let threads = match serving.max(training * settings.worker.slots) > 2 * available_cores() {
        false => CheckResult::pass("threads", detail),
        true => CheckResult::warn(
            "threads",
            detail,
            "threads beyond the number of cores slow each other down: lower --serving-threads, --training-threads or --slots",
        ),
    };
    match settings.role {
        Role::Api => vec![threads],
        Role::All | Role::Worker => vec![threads, check_priority()],
    }
}

fn check_priority() -> CheckResult {
    let subject = "priority";
    let (sender, receiver) = std::sync::mpsc::channel();
    let started = spawn_compute_thread("doctor", Priority::Background, move || {
        let _ = sender.send(thread_niceness());
    });
    let niceness = started.ok().and_then(|_| receiver.recv().ok()).flatten();
    match niceness {
        Some(19) => CheckResult::pass(subject, "training threads run at the lowest priority"),
        _ => CheckResult::warn(
            subject,
            "the priority of training threads cannot be lowered: predictions may be slower while a job trains",
            "leave a core to serving with --training-threads, or train in a separate process with --role",
        ),
    }
}

/// Returns the niceness of the calling thread: field 19 of its `stat` on Linux, the 17th after the name in parentheses.
fn thread_niceness() -> Option<i32> {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(16)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::CheckStatus;
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn training_threads_have_the_lowest_priority() {
        assert_eq!(check_priority().status, CheckStatus::Pass);
        assert_eq!(thread_niceness(), Some(0), "other threads keep their priority");
    }

    #[test]
    fn free_address_passes_and_occupied_address_fails() {
        let occupied = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = occupied.local_addr().unwrap();
        let other_program = std::thread::spawn(move || drop(occupied.accept()));
        let result = check_address(address);
        assert_eq!(result.status, CheckStatus::Fail);
        assert!(result.detail.contains("another program"), "{}", result.detail);
        other_program.join().unwrap();
        assert_eq!(check_address(address).status, CheckStatus::Pass);
    }
}
