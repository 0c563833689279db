//! Faults, and the threads that inject them at random.

use crate::cluster::Cluster;
use crate::host::{Host, LEASE_SECONDS};
use crate::preload::ENOSPC;
use crate::s3_server;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::sync::atomic::Ordering;
use std::thread::Scope;
use std::time::{Duration, Instant};

const SIGTERM: i32 = 15;
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Kill,
    KillAndEmptyDisk,
    StopPastLease,
    Terminate,
    FullDisk,
    ClockJump,
    Partition,
    HalfOpenConnections,
    ResetConnections,
    SlowDatabase,
    PostgresRestart,
    StorageErrors,
    StorageSlowDown,
    CutBodies,
    WrongBytes,
    ReadAfterWriteDelay,
    SlowStorage,
    StorageDown,
}

impl Fault {
    pub const HOST: [Self; 6] =
        [Self::Kill, Self::KillAndEmptyDisk, Self::StopPastLease, Self::Terminate, Self::FullDisk, Self::ClockJump];
    pub const LINK: [Self; 4] =
        [Self::Partition, Self::HalfOpenConnections, Self::ResetConnections, Self::SlowDatabase];
    pub const STORAGE: [Self; 7] = [
        Self::StorageErrors,
        Self::StorageSlowDown,
        Self::CutBodies,
        Self::WrongBytes,
        Self::ReadAfterWriteDelay,
        Self::SlowStorage,
        Self::StorageDown,
    ];

    pub const fn description(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL",
            Self::KillAndEmptyDisk => "SIGKILL, restart with an empty disk",
            Self::StopPastLease => "SIGSTOP past the lease",
            Self::Terminate => "SIGTERM",
            Self::FullDisk => "disk full",
            Self::ClockJump => "clock jumps by an hour",
            Self::Partition => "partition of a host",
            Self::HalfOpenConnections => "half-open connections to PostgreSQL",
            Self::ResetConnections => "reset connections to PostgreSQL and S3",
            Self::SlowDatabase => "delay of 50 ms per message to PostgreSQL",
            Self::PostgresRestart => "immediate restart of PostgreSQL",
            Self::StorageErrors => "S3: every second request gets 500",
            Self::StorageSlowDown => "S3: every second request gets SlowDown",
            Self::CutBodies => "S3: cut bodies",
            Self::WrongBytes => "S3: wrong bytes",
            Self::ReadAfterWriteDelay => "S3: objects are readable after 1 s",
            Self::SlowStorage => "S3: delay of 200 ms",
            Self::StorageDown => "S3 down",
        }
    }
}

/// Injects faults until the deadline, one of each group at a time.
pub fn spawn<'scope>(scope: &'scope Scope<'scope, '_>, cluster: &'scope Cluster<'scope>, seed: u64, deadline: Instant) {
    let random = |thread: u64| SmallRng::seed_from_u64(seed.wrapping_mul(4).wrapping_add(thread));
    let (mut hosts, mut links, mut storage, mut postgres) = (random(0), random(1), random(2), random(3));
    scope.spawn(move || {
        repeat(deadline, || {
            let (fault, host) = (pick(&mut hosts, &Fault::HOST), pick_host(&mut hosts, cluster));
            inject_into_host(cluster, fault, host, &mut hosts);
            pause(&mut hosts, 1000..4000);
        });
    });
    scope.spawn(move || {
        repeat(deadline, || {
            let (fault, host) = (pick(&mut links, &Fault::LINK), pick_host(&mut links, cluster));
            inject_into_links(cluster, fault, host, &mut links);
            pause(&mut links, 1000..4000);
        });
    });
    scope.spawn(move || {
        repeat(deadline, || {
            inject_into_storage(cluster, pick(&mut storage, &Fault::STORAGE), &mut storage);
            pause(&mut storage, 1000..4000);
        });
    });
    // Half a minute of restarts, then half a minute without.
    scope.spawn(move || {
        repeat(deadline, || {
            for _ in 0..6 {
                during(cluster, Fault::PostgresRestart, None, Cluster::restart_postgres);
                pause(&mut postgres, 4500..5500);
                if Instant::now() >= deadline {
                    return;
                }
            }
            pause(&mut postgres, 25_000..35_000);
        });
    });
}

fn repeat(deadline: Instant, mut round: impl FnMut()) {
    while Instant::now() < deadline {
        round();
    }
}

fn pick<T: Copy>(random: &mut SmallRng, all: &[T]) -> T {
    all[random.random_range(0..all.len())]
}

fn pick_host<'cluster>(random: &mut SmallRng, cluster: &'cluster Cluster<'_>) -> &'cluster Host {
    &cluster.hosts[random.random_range(0..cluster.hosts.len())]
}

fn pause(random: &mut SmallRng, milliseconds: std::ops::Range<u64>) {
    std::thread::sleep(Duration::from_millis(random.random_range(milliseconds)));
}

fn during(cluster: &Cluster, fault: Fault, host: Option<usize>, act: impl FnOnce()) {
    cluster.begin(fault, host);
    act();
    cluster.end(fault, host);
}

fn inject_into_host(cluster: &Cluster, fault: Fault, host: &Host, random: &mut SmallRng) {
    during(cluster, fault, Some(host.number), || match fault {
        Fault::Kill | Fault::KillAndEmptyDisk => {
            host.is_held.store(true, Ordering::SeqCst);
            host.kill();
            pause(random, 0..2000);
            if fault == Fault::KillAndEmptyDisk {
                host.empty_disk();
            }
            host.is_held.store(false, Ordering::SeqCst);
            // The start.
            pause(random, 2000..3000);
        }
        Fault::StopPastLease => {
            host.signal(SIGSTOP);
            std::thread::sleep(Duration::from_secs(LEASE_SECONDS + 2));
            host.signal(SIGCONT);
        }
        Fault::Terminate => {
            host.signal(SIGTERM);
            // The end and the next start.
            pause(random, 3000..5000);
        }
        Fault::FullDisk => {
            host.disk.set(1, u64::MAX / 2, ENOSPC);
            pause(random, 1000..6000);
            host.disk.set(0, 0, 0);
        }
        Fault::ClockJump => {
            host.disk.set_clock_offset(if random.random() { 3600 } else { -3600 });
            pause(random, 2000..8000);
            host.disk.set_clock_offset(0);
        }
        _ => unreachable!("{fault:?} is no fault of a host"),
    });
}

fn inject_into_links(cluster: &Cluster, fault: Fault, host: &Host, random: &mut SmallRng) {
    during(cluster, fault, Some(host.number), || match fault {
        Fault::Partition => {
            if !host.interface.set_link(false) {
                host.database.stall();
                host.storage.stall();
            }
            pause(random, 1000..12_000);
            host.database.restore();
            host.storage.restore();
            host.interface.set_link(true);
        }
        Fault::HalfOpenConnections => {
            host.database.make_half_open();
            pause(random, 1000..8000);
        }
        Fault::ResetConnections => {
            host.database.reset_connections();
            host.storage.reset_connections();
            // The new connections.
            pause(random, 500..1500);
        }
        Fault::SlowDatabase => {
            host.database.set_delay(Duration::from_millis(50));
            pause(random, 1000..6000);
            host.database.restore();
        }
        _ => unreachable!("{fault:?} is no fault of links"),
    });
}

fn inject_into_storage(cluster: &Cluster, fault: Fault, random: &mut SmallRng) {
    let injected = match fault {
        Fault::StorageErrors => s3_server::Fault::InternalError(2),
        Fault::StorageSlowDown => s3_server::Fault::SlowDown(2),
        Fault::CutBodies => s3_server::Fault::CutBody(3),
        Fault::WrongBytes => s3_server::Fault::WrongByte(3),
        Fault::ReadAfterWriteDelay => s3_server::Fault::ReadAfterWriteDelay(Duration::from_secs(1)),
        Fault::SlowStorage => s3_server::Fault::Delay(Duration::from_millis(200)),
        Fault::StorageDown => s3_server::Fault::Down,
        _ => unreachable!("{fault:?} is no fault of the storage"),
    };
    during(cluster, fault, None, || {
        cluster.s3.set_fault(injected);
        pause(random, 1000..8000);
        cluster.s3.set_fault(s3_server::Fault::None);
    });
}
