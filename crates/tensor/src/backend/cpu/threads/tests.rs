//! Each thread runs its index once per epoch, and no thread uses borrowed data after the epoch.

use super::{SpinThreadPool, split_evenly};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Miri is a thousand times slower.
const REPETITIONS: usize = if cfg!(miri) { 20 } else { 5000 };

fn thread_pool(threads: usize) -> SpinThreadPool {
    SpinThreadPool::new(threads, |index, work| std::thread::Builder::new().name(format!("worker-{index}")).spawn(work))
        .unwrap()
}

#[test]
fn every_index_runs_once_in_every_epoch() {
    for threads in [1, 2, 3] {
        let mut pool = thread_pool(threads);
        assert_eq!(pool.thread_count(), threads);
        for epoch in 0..REPETITIONS {
            let counts: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
            pool.run(|index| {
                counts[index].fetch_add(epoch, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == epoch));
        }
    }
}

#[test]
fn a_parked_pool_works_again() {
    let mut pool = thread_pool(3);
    for pause in [0, 50, 100, 150, 1000, 20_000] {
        for _ in 0..20 {
            let start = Instant::now();
            while start.elapsed() < Duration::from_micros(pause) {
                std::thread::park_timeout(Duration::from_micros(pause));
            }
            let count = AtomicUsize::new(0);
            pool.run(|index| {
                count.fetch_add(index + 1, Ordering::Relaxed);
            });
            assert_eq!(count.into_inner(), 6);
        }
    }
}

#[test]
fn the_caller_runs_indices_of_threads_that_never_start() {
    // Threads that exit at once: the caller runs all indices.
    let mut pool = SpinThreadPool::new(3, |_, _| Ok::<_, ()>(std::thread::spawn(|| {}))).unwrap();
    for _ in 0..REPETITIONS {
        let count = AtomicUsize::new(0);
        pool.run(|index| {
            count.fetch_add(index + 1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 6);
    }
}

#[test]
fn run_waits_for_slow_threads() {
    let mut pool = thread_pool(2);
    for slow in [0, 1, 0, 1] {
        let count = AtomicUsize::new(0);
        pool.run(|index| {
            let start = Instant::now();
            while index == slow && start.elapsed() < Duration::from_millis(3) {
                std::hint::spin_loop();
            }
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 2);
    }
}

#[test]
fn panics_reach_the_caller_and_the_pool_stays_usable() {
    let mut pool = thread_pool(3);
    for panicking_index in 0..3 {
        let count = AtomicUsize::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(|index| {
                assert!(index != panicking_index, "as planned");
                count.fetch_add(1, Ordering::Relaxed);
            });
        }));
        assert!(result.is_err());
        assert!(count.into_inner() <= 2);
    }
    let count = AtomicUsize::new(0);
    pool.run(|_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(count.into_inner(), 3);
}

#[test]
fn a_failed_spawn_is_an_error() {
    let mut started = 0;
    let pool = SpinThreadPool::new(4, |_, work| {
        started += 1;
        if started == 3 { Err("no more") } else { Ok(std::thread::spawn(work)) }
    });
    assert_eq!(pool.err(), Some("no more"));
}

#[test]
fn split_evenly_covers_every_index_once() {
    for (count, threads) in [(0, 2), (1, 2), (18, 2), (6, 4), (48, 3), (1536, 2)] {
        let all: Vec<usize> = (0..threads).flat_map(|index| split_evenly(count, index, threads)).collect();
        assert_eq!(all, (0..count).collect::<Vec<_>>());
    }
}
