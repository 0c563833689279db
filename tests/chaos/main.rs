//! Chaos test: two API replicas and three workers, hosts with a disk and network links of their own, share PostgreSQL and an S3 server. They train
//! and predict while processes are killed and stopped, disks fill up, clocks jump, links break and both servers fail, at random.
//!
//! `ESPALIER_CHAOS_SECONDS` (300) is the time with faults, `ESPALIER_CHAOS_SEED` (1) determines what happens when. `make chaos` runs it for
//! half an hour with a random seed. The hosts are network namespaces where the test runs as root, and loopback addresses elsewhere.

#[path = "../service/support/database.rs"]
#[allow(dead_code, reason = "a driver of other tests too")]
mod database;
#[path = "../service/support/preload.rs"]
#[allow(dead_code, reason = "a driver of other tests too")]
mod preload;
#[path = "../service/support/s3_server.rs"]
#[allow(dead_code, reason = "a driver of other tests too")]
mod s3_server;
#[path = "../service/api/server_process.rs"]
#[allow(dead_code, reason = "a driver of other tests too")]
mod server_process;
#[path = "../service/support/tcp_proxy.rs"]
#[allow(dead_code, reason = "a driver of other tests too")]
mod tcp_proxy;

mod client;
mod cluster;
mod final_checks;
mod host;
mod injection;
mod load;
mod network;
mod reference;
mod report;

use cluster::Cluster;
use load::Load;
use reference::Reference;
use report::Report;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Jobs, predictions and adapter names of half an hour.
const JOBS: u64 = 500;
const PREDICTIONS: u64 = 100_000;
const NAMES: u64 = 300;
const FULL_LENGTH: u64 = 1800;

const PREDICTING_CLIENTS: u64 = 8;

/// Amount of work and its time.
pub struct Plan {
    pub seed: u64,
    pub duration: Duration,
    pub jobs: u64,
    pub predictions: u64,
    pub names: u64,
}

impl Plan {
    fn from_environment() -> Self {
        let number = |name: &str, default: u64| match std::env::var(name) {
            Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name} is a number, not {value}")),
            Err(_) => default,
        };
        let seconds = number("ESPALIER_CHAOS_SECONDS", 300);
        let share = |full: u64| (full * seconds / FULL_LENGTH).max(1);
        Self {
            seed: number("ESPALIER_CHAOS_SEED", 1),
            duration: Duration::from_secs(seconds),
            jobs: share(JOBS),
            predictions: share(PREDICTIONS),
            names: share(NAMES),
        }
    }
}

#[test]
fn every_job_ends_once_and_every_answer_is_right_whatever_fails() {
    let plan = Plan::from_environment();
    println!("seed {}, {} s", plan.seed, plan.duration.as_secs());
    let reference = Reference::train();
    let report = Report::new();
    let cluster = Cluster::start(&report);
    println!("hosts: {}", cluster.network_kind());
    let load = Load::new(&plan, &cluster, &reference, &report);
    let has_ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let supervisor = scope.spawn(|| cluster.supervise(&has_ended));
        std::thread::scope(|scope| {
            let (deadline, load) = (Instant::now() + plan.duration, &load);
            injection::spawn(scope, &cluster, plan.seed, deadline);
            scope.spawn(move || load.submit_jobs(deadline));
            scope.spawn(move || load.follow_jobs(deadline));
            for number in 0..PREDICTING_CLIENTS {
                scope.spawn(move || load.predict(number, deadline));
            }
        });
        cluster.end_all_faults();
        final_checks::run(&cluster, &load, &reference, &report);
        has_ended.store(true, Ordering::SeqCst);
        supervisor.join().unwrap();
    });
    cluster.stop();
    report.print();
    report.assert_no_violation();
}
