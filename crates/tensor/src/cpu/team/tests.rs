//! Rounds of every kind of team: that each thread works once in each, and that none outlives what it borrows.

use super::{Team, share};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn team(threads: usize) -> Team {
    Team::new(threads, |index, work| std::thread::Builder::new().name(format!("team-{index}")).spawn(work)).unwrap()
}

#[test]
fn every_part_is_done_once_in_every_round() {
    for threads in [1, 2, 3] {
        let mut team = team(threads);
        assert_eq!(team.threads(), threads);
        for round in 0..5000 {
            let counts: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
            team.run(|index| {
                counts[index].fetch_add(round, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == round));
        }
    }
}

#[test]
fn a_team_that_has_slept_works_again() {
    let mut team = team(3);
    for pause in [0, 50, 100, 150, 1000, 20_000] {
        for _ in 0..20 {
            let start = Instant::now();
            while start.elapsed() < Duration::from_micros(pause) {
                std::thread::park_timeout(Duration::from_micros(pause));
            }
            let count = AtomicUsize::new(0);
            team.run(|index| {
                count.fetch_add(index + 1, Ordering::Relaxed);
            });
            assert_eq!(count.into_inner(), 6);
        }
    }
}

#[test]
fn parts_whose_threads_do_not_come_are_done_all_the_same() {
    // Threads that never look: all parts are the caller's.
    let mut team = Team::new(3, |_, _| Ok::<_, ()>(std::thread::spawn(|| {}))).unwrap();
    for _ in 0..1000 {
        let count = AtomicUsize::new(0);
        team.run(|index| {
            count.fetch_add(index + 1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 6);
    }
}

#[test]
fn slow_threads_are_waited_for() {
    let mut team = team(2);
    for slow in [0, 1, 0, 1] {
        let count = AtomicUsize::new(0);
        team.run(|index| {
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
fn panics_are_the_callers_and_the_team_goes_on() {
    let mut team = team(3);
    for culprit in 0..3 {
        let count = AtomicUsize::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            team.run(|index| {
                assert!(index != culprit, "as planned");
                count.fetch_add(1, Ordering::Relaxed);
            });
        }));
        assert!(result.is_err());
        assert!(count.into_inner() <= 2);
    }
    let count = AtomicUsize::new(0);
    team.run(|_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(count.into_inner(), 3);
}

#[test]
fn threads_that_do_not_start_are_an_error() {
    let mut started = 0;
    let team = Team::new(4, |_, work| {
        started += 1;
        if started == 3 { Err("no more") } else { Ok(std::thread::spawn(work)) }
    });
    assert_eq!(team.err(), Some("no more"));
}

#[test]
fn shares_cover_everything_once() {
    for (count, threads) in [(0, 2), (1, 2), (18, 2), (6, 4), (48, 3), (1536, 2)] {
        let all: Vec<usize> = (0..threads).flat_map(|index| share(count, index, threads)).collect();
        assert_eq!(all, (0..count).collect::<Vec<_>>());
    }
}
