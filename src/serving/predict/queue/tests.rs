//! Handles without an adapter stand for adapters, so that no base model is needed.

use super::*;
use crate::serving::errors::RETRY_AFTER;
use crate::serving::predict::state::{CONGESTION_BATCH_TOKENS, CONGESTION_TIME, CONGESTION_WAIT};
use futures_util::FutureExt;
use std::thread;

const ONE_HOUR: Duration = Duration::from_secs(3600);

fn queue(max_queued_inputs: usize, max_batch_delay: Duration) -> Arc<PredictionQueue> {
    let max_queue_wait = Duration::from_secs(10);
    PredictionQueue::new(Limits { max_queued_inputs, max_queue_wait, max_batch_tokens: 1000, max_batch_delay })
}

fn owner() -> Owner {
    Owner::from("a")
}

/// Size of a request with `inputs` inputs of [`tokens`].
fn size(inputs: usize) -> RequestSize {
    RequestSize { inputs, tokens: 10 * inputs }
}

fn tokens(count: usize) -> Vec<Tokens> {
    vec![Tokens::from_ids(vec![1; 10]); count]
}

fn admit_tokenizing(queue: &Arc<PredictionQueue>, count: usize) -> QueuePermit {
    let mut permit = queue.admit(&owner(), size(count)).unwrap();
    permit.start_tokenizing();
    permit
}

fn push(queue: &Arc<PredictionQueue>, adapter: &str, count: usize) -> QueuedRequest {
    admit_tokenizing(queue, count).push(&AdapterHandle::named(adapter), tokens(count))
}

/// The adapter of each run of inputs in the next batch.
fn next_batch_adapters(queue: &Arc<PredictionQueue>) -> Vec<String> {
    let (batch, _) = queue.next_batch(Lane::Short, Instant::now()).unwrap();
    let runs = batch.chunk_by(|one, other| one.request == other.request);
    runs.map(|run| run[0].adapter.version().to_string()).collect()
}

#[test]
fn a_full_queue_is_busy_with_a_retry_after() {
    let queue = queue(10, Duration::ZERO);
    let _receivers = push(&queue, "a", 6);
    let permit = queue.admit(&owner(), size(4)).unwrap();
    let Err(Error::Busy { problem, retry_after }) = queue.admit(&owner(), size(1)) else { panic!("must be busy") };
    assert_eq!((problem.code, retry_after), ("predictions_queue_full", RETRY_AFTER));
    drop(permit);
    assert!(queue.admit(&owner(), size(4)).is_ok(), "a request that fails before it is queued frees its capacity");
}

#[test]
fn a_request_larger_than_the_queue_is_admitted_when_nothing_waits() {
    let queue = queue(10, Duration::ZERO);
    let permit = queue.admit(&owner(), size(100)).unwrap();
    assert!(queue.admit(&owner(), size(1)).is_err());
    drop(permit);
    assert_eq!(queue.input_count(), 0);
}

#[test]
fn cancelled_requests_free_their_queue_space() {
    let queue = queue(10, Duration::ZERO);
    drop(push(&queue, "cancelled", 10));
    let _receivers = push(&queue, "active", 10);
    assert_eq!(next_batch_adapters(&queue), ["active"]);
    assert_eq!(queue.input_count(), 0);
}

#[test]
fn an_idle_worker_takes_a_request_without_start_tokenizing() {
    let queue = queue(10, ONE_HOUR);
    let worker = thread::spawn({
        let queue = Arc::clone(&queue);
        move || next_batch_adapters(&queue)
    });
    while queue.lock().lane(Lane::Short).idle_workers == 0 {
        thread::yield_now();
    }
    let _receivers = queue.admit(&owner(), size(1)).unwrap().push(&AdapterHandle::named("a"), tokens(1));
    assert_eq!(worker.join().unwrap(), ["a"]);
}

#[test]
fn a_cancelled_request_leaves_the_queue_at_once() {
    let queue = queue(10, Duration::ZERO);
    let _receivers = push(&queue, "active", 4);
    drop(push(&queue, "cancelled", 6));
    assert_eq!(queue.input_count(), 4, "no admission or batch was needed");
}

#[test]
fn a_lone_request_is_not_delayed() {
    let queue = queue(10, ONE_HOUR);
    let _receivers = push(&queue, "a", 1);
    assert_eq!(next_batch_adapters(&queue), ["a"], "the delay is an hour, but no other request is being tokenized");
}

#[test]
fn a_batch_waits_for_a_request_that_is_tokenizing() {
    let queue = queue(10, ONE_HOUR);
    let _first_receivers = push(&queue, "a", 1);
    let permit = admit_tokenizing(&queue, 1);
    let worker = thread::spawn({
        let queue = Arc::clone(&queue);
        move || next_batch_adapters(&queue)
    });
    let _second_receivers = permit.push(&AdapterHandle::named("b"), tokens(1));
    assert_eq!(worker.join().unwrap(), ["a", "b"]);
}

#[test]
fn a_batch_is_released_when_tokenizing_fails() {
    let queue = queue(10, ONE_HOUR);
    let _receivers = push(&queue, "a", 1);
    let permit = admit_tokenizing(&queue, 1);
    let worker = thread::spawn({
        let queue = Arc::clone(&queue);
        move || next_batch_adapters(&queue)
    });
    drop(permit);
    assert_eq!(worker.join().unwrap(), ["a"]);
}

#[test]
fn a_batch_waits_at_most_its_max_delay() {
    let max_delay = Duration::from_millis(20);
    let queue = queue(10, max_delay);
    let started = Instant::now();
    let _receivers = push(&queue, "a", 1);
    let _permit = admit_tokenizing(&queue, 1);
    assert_eq!(next_batch_adapters(&queue), ["a"]);
    assert!(started.elapsed() >= max_delay, "another request is being tokenized");
}

#[test]
fn a_closed_queue_is_drained_and_then_ends_its_workers() {
    let queue = queue(10, ONE_HOUR);
    let _receivers = push(&queue, "a", 1);
    let late_permit = admit_tokenizing(&queue, 1);
    queue.close();
    assert_eq!(next_batch_adapters(&queue), ["a"], "a closed queue waits for no other request");
    let late_receivers = late_permit.push(&AdapterHandle::named("b"), tokens(1));
    assert!(
        late_receivers.receivers.into_iter().all(|receiver| receiver.blocking_recv().is_err()),
        "no worker is left"
    );
    assert!(Lane::ALL.into_iter().all(|lane| queue.next_batch(lane, Instant::now()).is_none()));
    assert_eq!(queue.input_count(), 0);
}

#[test]
fn rows_are_returned_in_input_order_whatever_finished_first() {
    let queue = queue(10, Duration::ZERO);
    let mut rows = Box::pin(collect_rows(push(&queue, "a", 3)));
    for (index, entry) in queue.next_batch(Lane::Short, Instant::now()).unwrap().0.into_iter().enumerate().rev() {
        assert!(rows.as_mut().now_or_never().is_none(), "rows are missing");
        entry.response.send(Ok(vec![index as f32])).unwrap();
    }
    assert_eq!(rows.now_or_never().unwrap().unwrap(), [[0.0], [1.0], [2.0]]);
}

#[test]
fn a_failed_input_fails_and_cancels_its_request() {
    let queue = queue(10, Duration::ZERO);
    let mut rows = Box::pin(collect_rows(push(&queue, "a", 3)));
    let (mut batch, _) = queue.next_batch(Lane::Short, Instant::now()).unwrap();
    batch.remove(1).response.send(Err(Error::internal("first"))).unwrap();
    let Some(Err(error)) = rows.as_mut().now_or_never() else { panic!("must fail") };
    assert_eq!(error.to_string(), "first");
    drop(rows);
    assert!(batch.iter().all(QueueEntry::is_cancelled));
}

#[test]
fn an_input_whose_receiver_was_dropped_is_cancelled() {
    let queue = queue(10, Duration::ZERO);
    let receivers = push(&queue, "a", 1);
    let (batch, _) = queue.next_batch(Lane::Short, Instant::now()).unwrap();
    assert!(!batch[0].is_cancelled());
    drop(receivers);
    assert!(batch[0].is_cancelled());
}

#[test]
fn long_requests_have_workers_of_their_own() {
    let queue = queue(1000, ONE_HOUR);
    let _short = push(&queue, "short", 10);
    let _long = push(&queue, "long", 100);
    for (lane, adapter, inputs) in [(Lane::Long, "long", 100), (Lane::Short, "short", 10)] {
        let (batch, _) = queue.next_batch(lane, Instant::now()).unwrap();
        assert_eq!((batch[0].adapter.version(), batch.len()), (adapter, inputs));
    }
    assert_eq!(queue.input_count(), 0);
}

#[test]
fn a_request_that_would_wait_for_too_long_is_busy() {
    let queue = queue(100_000, Duration::ZERO);
    let _first = push(&queue, "first", 100);
    let batch = queue.next_batch(Lane::Long, Instant::now()).unwrap();
    thread::sleep(Duration::from_millis(20));
    drop(batch);
    // 1,000 tokens took 20 ms or more, so that 600,000 take 12 seconds or more.
    let _queued = push(&queue, "second", 60_000);
    let Err(Error::Busy { problem, retry_after }) = queue.admit(&owner(), size(100)) else { panic!("must be busy") };
    assert_eq!(problem.code, "predictions_queue_full");
    assert!(retry_after >= Duration::from_secs(2), "{retry_after:?}");
    assert!(queue.admit(&owner(), size(10)).is_ok(), "short requests do not wait for long ones");
}

#[test]
fn admitted_requests_count_toward_the_expected_wait() {
    let queue = queue(100_000, Duration::ZERO);
    let _first = push(&queue, "first", 100);
    let batch = queue.next_batch(Lane::Long, Instant::now()).unwrap();
    thread::sleep(Duration::from_millis(20));
    drop(batch);
    let permit = queue.admit(&owner(), size(60_000)).unwrap();
    assert!(queue.admit(&owner(), size(100)).is_err());
    drop(permit);
    assert!(queue.admit(&owner(), size(100)).is_ok());
}

#[test]
fn long_requests_wait_in_small_batches_during_congestion() {
    let queue = queue(1000, Duration::ZERO);
    let _short = push(&queue, "short", 10);
    let _long = push(&queue, "long", 200);
    thread::sleep(CONGESTION_WAIT);
    let started_at = Instant::now();
    assert_eq!(next_batch_adapters(&queue), ["short"]);
    let pause = CONGESTION_TIME / 4;
    let (batch, _) = queue.next_batch(Lane::Long, started_at + pause).unwrap();
    assert!(started_at.elapsed() >= pause);
    assert!(token_count(&batch) <= CONGESTION_BATCH_TOKENS);
    let (rest, _) = queue.next_batch(Lane::Long, started_at + ONE_HOUR).unwrap();
    assert!((CONGESTION_TIME..ONE_HOUR).contains(&started_at.elapsed()), "the congestion has ended");
    assert_eq!(token_count(&rest), 1000, "a whole batch");
}

/// Queues a request of an owner with so many inputs.
fn push_of(owner: &Owner, queue: &Arc<PredictionQueue>, count: usize) -> QueuedRequest {
    queue.admit(owner, size(count)).unwrap().push(&AdapterHandle::named(owner), tokens(count))
}

#[test]
fn the_owner_of_a_flood_is_refused_and_others_are_not() {
    let queue = queue(100, Duration::ZERO);
    let (flood, other) = (Owner::from("flood"), Owner::from("other"));
    let _flood: Vec<_> = (0..100).map(|_| push_of(&flood, &queue, 1)).collect();
    assert!(queue.admit(&flood, size(1)).is_err());
    let _others: Vec<_> = (0..50).map(|_| push_of(&other, &queue, 1)).collect();
    assert!(queue.admit(&other, size(1)).is_err(), "this is more than an equal share");
    assert!(queue.admit(&Owner::from("third"), size(90)).is_ok(), "a first request is always admitted");
}

#[test]
fn a_flood_does_not_lengthen_the_expected_wait_of_others() {
    let queue = queue(100_000, Duration::ZERO);
    let (flood, other) = (Owner::from("flood"), Owner::from("other"));
    let _first = push_of(&flood, &queue, 100);
    let batch = queue.next_batch(Lane::Long, Instant::now()).unwrap();
    thread::sleep(Duration::from_millis(20));
    drop(batch);
    let _flood = push_of(&flood, &queue, 60_000);
    assert!(queue.admit(&flood, size(100)).is_err());
    assert!(queue.admit(&other, size(100)).is_ok());
    assert!(queue.check_long_capacity(&other).is_ok() && queue.check_long_capacity(&flood).is_err());
}

#[test]
fn short_requests_of_a_flood_have_workers_of_their_own() {
    let queue = queue(1000, ONE_HOUR);
    let (flood, other) = (Owner::from("flood"), Owner::from("other"));
    let _alone = [push_of(&flood, &queue, 20), push_of(&flood, &queue, 20)];
    assert_eq!(next_batch_adapters(&queue), ["flood", "flood"], "an owner alone is computed at normal priority");
    let _first = push_of(&other, &queue, 1);
    let _heavy = push_of(&flood, &queue, 20);
    let _second = push_of(&other, &queue, 1);
    assert_eq!(next_batch_adapters(&queue), ["other", "other"]);
    let (batch, _) = queue.next_batch(Lane::Heavy, Instant::now()).unwrap();
    assert_eq!((batch[0].adapter.version(), batch.len()), ("flood", 20));
}

#[test]
fn loads_end_with_their_requests() {
    let queue = queue(1000, Duration::ZERO);
    let owner = owner();
    let permit = queue.admit(&owner, size(5)).unwrap();
    let queued = push_of(&owner, &queue, 3);
    assert_eq!(queue.lock().loads.in_flight(&owner), 8);
    drop(permit);
    assert_eq!(queue.lock().loads.in_flight(&owner), 3);
    drop(queued);
    assert_eq!(queue.lock().loads.in_flight(&owner), 0);
}
