//! No base is needed: an adapter is a word here.

use super::*;
use crate::serving::ticket::Rows;
use espalier_core::model::Tokens;
use std::thread;
use std::time::Instant;
use tokio::sync::oneshot::Receiver;

const FOR_EVER: Duration = Duration::from_secs(3600);

fn queue(max_waiting: usize, batch_window: Duration) -> Arc<Queue<&'static str>> {
    Queue::new(Limits { max_waiting, batch_tokens: 1000, batch_window })
}

fn tokens(count: usize) -> Vec<Tokens> {
    vec![Tokens::whole(vec![1; 10]); count]
}

fn push(queue: &Arc<Queue<&'static str>>, adapter: &'static str, count: usize) -> Receiver<Result<Rows>> {
    queue.admit(count).unwrap().announce().push(adapter, tokens(count))
}

fn adapters(parts: &[Part<&'static str>]) -> Vec<&'static str> {
    parts.iter().map(|part| part.adapter).collect()
}

#[test]
fn a_full_queue_is_busy_and_says_when_to_come_back() {
    let queue = queue(10, Duration::ZERO);
    let _answer = push(&queue, "a", 6);
    let place = queue.admit(4).unwrap();
    let Err(Error::Busy { problem, retry_after }) = queue.admit(1) else { panic!("must be busy") };
    assert_eq!((problem.code, retry_after), ("predictions_queue_full", RETRY_AFTER));
    drop(place);
    assert!(queue.admit(4).is_ok(), "a request that failed on its way gives its place back");
}

#[test]
fn a_request_larger_than_the_queue_is_admitted_when_nothing_waits() {
    let queue = queue(10, Duration::ZERO);
    let place = queue.admit(100).unwrap();
    assert!(queue.admit(1).is_err());
    drop(place);
    assert_eq!(queue.count(), 0);
}

#[test]
fn callers_that_went_away_make_room() {
    let queue = queue(10, Duration::ZERO);
    drop(push(&queue, "gone", 10));
    let _answer = push(&queue, "here", 10);
    assert_eq!(adapters(&queue.take().unwrap()), ["here"]);
    assert_eq!(queue.count(), 0);
}

#[test]
fn a_lone_request_does_not_wait_for_company() {
    let queue = queue(10, FOR_EVER);
    let _answer = push(&queue, "a", 1);
    assert_eq!(adapters(&queue.take().unwrap()), ["a"], "the window is an hour, and nobody is on the way");
}

#[test]
fn a_batch_waits_for_a_request_that_is_on_the_way() {
    let queue = queue(10, FOR_EVER);
    let _first = push(&queue, "a", 1);
    let coming = queue.admit(1).unwrap().announce();
    let taker = thread::spawn({
        let queue = Arc::clone(&queue);
        move || adapters(&queue.take().unwrap())
    });
    let _second = coming.push("b", tokens(1));
    assert_eq!(taker.join().unwrap(), ["a", "b"]);
}

#[test]
fn a_batch_goes_on_alone_when_the_one_on_the_way_fails() {
    let queue = queue(10, FOR_EVER);
    let _first = push(&queue, "a", 1);
    let coming = queue.admit(1).unwrap().announce();
    let taker = thread::spawn({
        let queue = Arc::clone(&queue);
        move || adapters(&queue.take().unwrap())
    });
    drop(coming);
    assert_eq!(taker.join().unwrap(), ["a"]);
}

#[test]
fn a_batch_waits_no_longer_than_its_window() {
    let window = Duration::from_millis(20);
    let queue = queue(10, window);
    let started = Instant::now();
    let _first = push(&queue, "a", 1);
    let _coming = queue.admit(1).unwrap().announce();
    assert_eq!(adapters(&queue.take().unwrap()), ["a"]);
    assert!(started.elapsed() >= window, "somebody was on the way");
}

#[test]
fn a_closed_queue_finishes_what_waits_and_then_sends_the_threads_home() {
    let queue = queue(10, FOR_EVER);
    let _answer = push(&queue, "a", 1);
    let late = queue.admit(1).unwrap().announce();
    queue.close();
    assert_eq!(adapters(&queue.take().unwrap()), ["a"], "nobody is waited for any more");
    assert!(late.push("b", tokens(1)).blocking_recv().is_err(), "there is nobody left to compute it");
    assert!(queue.take().is_none());
    assert_eq!(queue.count(), 0);
}
