//! No base is needed: an adapter is a word here.

use super::*;
use crate::serving::predict::pending_response::OutputRows;
use espalier_core::model::Tokens;
use std::thread;
use std::time::Instant;
use tokio::sync::oneshot::Receiver;

const ONE_HOUR: Duration = Duration::from_secs(3600);

fn queue(max_queued_inputs: usize, max_batch_delay: Duration) -> Arc<PredictionQueue<&'static str>> {
    PredictionQueue::new(Limits {
        max_queued_inputs: max_queued_inputs,
        max_batch_tokens: 1000,
        max_batch_delay: max_batch_delay,
    })
}

fn tokens(count: usize) -> Vec<Tokens> {
    vec![Tokens::from_ids(vec![1; 10]); count]
}

fn push(
    queue: &Arc<PredictionQueue<&'static str>>,
    adapter: &'static str,
    count: usize,
) -> Receiver<Result<OutputRows>> {
    queue.admit(count).unwrap().start_tokenizing().push(adapter, tokens(count))
}

fn slice_adapters(slices: &[BatchSlice<&'static str>]) -> Vec<&'static str> {
    slices.iter().map(|slice| slice.adapter).collect()
}

#[test]
fn a_full_queue_is_busy_with_a_retry_after() {
    let queue = queue(10, Duration::ZERO);
    let _receiver = push(&queue, "a", 6);
    let permit = queue.admit(4).unwrap();
    let Err(Error::Busy { problem, retry_after }) = queue.admit(1) else { panic!("must be busy") };
    assert_eq!((problem.code, retry_after), ("predictions_queue_full", RETRY_AFTER));
    drop(permit);
    assert!(queue.admit(4).is_ok(), "a request that failed on its way gives its place back");
}

#[test]
fn a_request_larger_than_the_queue_is_admitted_when_nothing_waits() {
    let queue = queue(10, Duration::ZERO);
    let permit = queue.admit(100).unwrap();
    assert!(queue.admit(1).is_err());
    drop(permit);
    assert_eq!(queue.input_count(), 0);
}

#[test]
fn cancelled_requests_free_their_queue_space() {
    let queue = queue(10, Duration::ZERO);
    drop(push(&queue, "gone", 10));
    let _receiver = push(&queue, "here", 10);
    assert_eq!(slice_adapters(&queue.next_batch().unwrap()), ["here"]);
    assert_eq!(queue.input_count(), 0);
}

#[test]
fn a_lone_request_is_not_delayed() {
    let queue = queue(10, ONE_HOUR);
    let _receiver = push(&queue, "a", 1);
    assert_eq!(slice_adapters(&queue.next_batch().unwrap()), ["a"], "the window is an hour, and nobody is on the way");
}

#[test]
fn a_batch_waits_for_a_request_that_is_tokenizing() {
    let queue = queue(10, ONE_HOUR);
    let _first_receiver = push(&queue, "a", 1);
    let tokenizing_permit = queue.admit(1).unwrap().start_tokenizing();
    let worker = thread::spawn({
        let queue = Arc::clone(&queue);
        move || slice_adapters(&queue.next_batch().unwrap())
    });
    let _second_receiver = tokenizing_permit.push("b", tokens(1));
    assert_eq!(worker.join().unwrap(), ["a", "b"]);
}

#[test]
fn a_batch_is_released_when_tokenizing_fails() {
    let queue = queue(10, ONE_HOUR);
    let _first_receiver = push(&queue, "a", 1);
    let tokenizing_permit = queue.admit(1).unwrap().start_tokenizing();
    let worker = thread::spawn({
        let queue = Arc::clone(&queue);
        move || slice_adapters(&queue.next_batch().unwrap())
    });
    drop(tokenizing_permit);
    assert_eq!(worker.join().unwrap(), ["a"]);
}

#[test]
fn a_batch_waits_at_most_its_max_delay() {
    let max_delay = Duration::from_millis(20);
    let queue = queue(10, max_delay);
    let started = Instant::now();
    let _first_receiver = push(&queue, "a", 1);
    let _tokenizing_permit = queue.admit(1).unwrap().start_tokenizing();
    assert_eq!(slice_adapters(&queue.next_batch().unwrap()), ["a"]);
    assert!(started.elapsed() >= max_delay, "somebody was on the way");
}

#[test]
fn a_closed_queue_is_drained_and_then_ends_its_workers() {
    let queue = queue(10, ONE_HOUR);
    let _receiver = push(&queue, "a", 1);
    let late_permit = queue.admit(1).unwrap().start_tokenizing();
    queue.close();
    assert_eq!(slice_adapters(&queue.next_batch().unwrap()), ["a"], "nobody is waited for any more");
    assert!(late_permit.push("b", tokens(1)).blocking_recv().is_err(), "there is nobody left to compute it");
    assert!(queue.next_batch().is_none());
    assert_eq!(queue.input_count(), 0);
}
