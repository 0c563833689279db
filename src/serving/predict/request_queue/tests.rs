use super::*;
use crate::serving::predict::owner_queue::{EntrySpans, OutputRow};
use espalier_core::error::Result;
use espalier_core::model::Tokens;
use tokio::sync::oneshot;
use tokio::sync::oneshot::Receiver;

fn owner() -> Owner {
    Owner::from("owner")
}

fn push(queue: &mut RequestQueue, adapter: &str, lengths: &[usize]) -> Vec<Receiver<Result<OutputRow>>> {
    push_of(&owner(), queue, adapter, lengths)
}

/// Queues a request of an owner.
fn push_of(
    owner: &Owner,
    queue: &mut RequestQueue,
    adapter: &str,
    lengths: &[usize],
) -> Vec<Receiver<Result<OutputRow>>> {
    let (adapter, enqueued_at) = (AdapterHandle::named(adapter), Instant::now());
    let request = queue.enqueued.iter().map(|(_, request)| request + 1).max().unwrap_or(0);
    let entry = |length: &usize| {
        let (response, response_rx) = oneshot::channel();
        let tokens = Tokens::from_ids(vec![1; *length]);
        let (adapter, spans) = (adapter.clone(), EntrySpans::start());
        (QueueEntry { adapter, tokens, request, enqueued_at, response, spans }, response_rx)
    };
    let (entries, receivers) = lengths.iter().map(entry).unzip();
    queue.push(owner, entries);
    receivers
}

/// Adapter and lengths of each run of inputs.
fn batch_summary(batch: &[QueueEntry]) -> Vec<(&str, Vec<usize>)> {
    let runs = batch.chunk_by(|one, other| one.adapter == other.adapter);
    let lengths = |run: &[QueueEntry]| run.iter().map(|entry| entry.tokens.ids.len()).collect();
    runs.map(|run| (run[0].adapter.version(), lengths(run))).collect()
}

#[test]
fn a_batch_takes_several_requests_up_to_its_token_budget() {
    let mut queue = RequestQueue::default();
    let _receivers = [push(&mut queue, "a", &[400, 100]), push(&mut queue, "b", &[300]), push(&mut queue, "c", &[300])];
    assert_eq!(batch_summary(&queue.next_batch(1000, 1)), [("a", vec![400, 100]), ("b", vec![300])]);
    assert_eq!(batch_summary(&queue.next_batch(1000, 1)), [("c", vec![300])]);
    assert!(queue.is_empty());
    assert_eq!((queue.input_count(), queue.token_count()), (0, 0));
}

#[test]
fn a_large_request_is_requeued_at_the_back_after_each_batch() {
    let mut queue = RequestQueue::default();
    let _receivers = [push(&mut queue, "large", &[500, 499, 498, 497, 496]), push(&mut queue, "small", &[10])];
    assert_eq!(batch_summary(&queue.next_batch(1000, 1)), [("large", vec![500, 499])]);
    assert_eq!(batch_summary(&queue.next_batch(1000, 1)), [("small", vec![10]), ("large", vec![498])]);
    assert_eq!(batch_summary(&queue.next_batch(1000, 1)), [("large", vec![497, 496])]);
    assert!(queue.is_empty());
}

#[test]
fn a_request_keeps_its_place_until_it_has_used_its_quantum() {
    let mut queue = RequestQueue::new(1000);
    let _receivers = [push(&mut queue, "large", &[300; 6]), push(&mut queue, "other", &[300; 2])];
    let mut adapters = Vec::new();
    while !queue.is_empty() {
        adapters.push(queue.next_batch(300, 1)[0].adapter.version().to_string());
    }
    assert_eq!(adapters, ["large", "large", "large", "large", "other", "other", "large", "large"]);
}

#[test]
fn an_input_larger_than_a_batch_is_computed_alone() {
    let mut queue = RequestQueue::default();
    let _receivers = push(&mut queue, "a", &[5000, 10]);
    assert_eq!(batch_summary(&queue.next_batch(1000, 1)), [("a", vec![5000])]);
    assert_eq!(batch_summary(&queue.next_batch(1000, 1)), [("a", vec![10])]);
}

#[test]
fn idle_workers_share_the_queue_down_to_a_minimum_share() {
    let mut queue = RequestQueue::default();
    let _receivers = push(&mut queue, "a", &[100; 10]);
    assert_eq!(batch_summary(&queue.next_batch(8000, 2)), [("a", vec![100; 5])]);
    let batch = queue.next_batch(8000, 5);
    assert_eq!(batch_summary(&batch), [("a", vec![100; 2])], "a fifth is less than the smallest share");
}

#[test]
fn cancelled_requests_are_removed() {
    let mut queue = RequestQueue::default();
    let _cancelled = push(&mut queue, "cancelled", &[10, 20]);
    let oldest = queue.oldest_enqueued_at();
    let _receivers = push(&mut queue, "active", &[10]);
    assert_eq!(queue.cancel(&owner(), 0).map(|entries| entries.len()), Some(2));
    assert_eq!((queue.input_count(), queue.token_count()), (1, 10));
    assert!(queue.oldest_enqueued_at() > oldest);
    assert!(queue.cancel(&owner(), 0).is_none());
    assert_eq!(batch_summary(&queue.next_batch(1000, 1)), [("active", vec![10])]);
    assert_eq!((queue.is_empty(), queue.oldest_enqueued_at()), (true, None));
}

#[test]
fn the_oldest_request_is_known_after_it_moved_to_the_back() {
    let mut queue = RequestQueue::default();
    let _large = push(&mut queue, "large", &[500, 500, 500]);
    let oldest = queue.oldest_enqueued_at();
    let _small = push(&mut queue, "small", &[10]);
    assert_eq!(batch_summary(&queue.next_batch(1000, 1)), [("large", vec![500, 500])]);
    assert_eq!(queue.oldest_enqueued_at(), oldest);
    assert_eq!(batch_summary(&queue.next_batch(400, 1)), [("small", vec![10])]);
    assert_eq!(queue.oldest_enqueued_at(), oldest);
}

#[test]
fn numbers_of_cancelled_requests_do_not_pile_up() {
    let mut queue = RequestQueue::default();
    let _active = push(&mut queue, "active", &[10]);
    for _ in 0..1000 {
        drop(push(&mut queue, "cancelled", &[10]));
        queue.cancel(&owner(), 1);
        assert!(queue.owners[&owner()].order_length() <= 3);
    }
}

#[test]
fn cancelled_inputs_are_not_taken_into_a_batch() {
    let mut queue = RequestQueue::default();
    let mut receivers = push(&mut queue, "a", &[900, 10, 900]);
    receivers.remove(0);
    assert_eq!(batch_summary(&queue.next_batch(1000, 1)), [("a", vec![10, 900])]);
    drop(push(&mut queue, "a", &[10]));
    assert_eq!(batch_summary(&queue.next_batch(1000, 1)), []);
    assert!(queue.is_empty());
}

#[test]
fn owners_take_turns_in_a_batch() {
    let mut queue = RequestQueue::default();
    let (a, b) = (Owner::from("a"), Owner::from("b"));
    let _flood: Vec<_> = (0..100).map(|_| push_of(&a, &mut queue, "a", &[100])).collect();
    let _few = [push_of(&b, &mut queue, "b", &[100]), push_of(&b, &mut queue, "b", &[100, 100])];
    assert_eq!(batch_summary(&queue.next_batch(1000, 1)), [("a", vec![100; 6]), ("b", vec![100; 3]), ("a", vec![100])]);
    assert_eq!(batch_summary(&queue.next_batch(1000, 1)), [("a", vec![100; 10])], "alone, an owner fills the batch");
    assert_eq!((queue.input_count(), queue.token_count()), (83, 8300));
}

#[test]
fn owners_get_equal_numbers_of_tokens_whatever_their_inputs_are() {
    let mut queue = RequestQueue::new(1000);
    let _receivers: Vec<_> = [("long", 700), ("short", 7), ("mixed", 90)]
        .into_iter()
        .flat_map(|(name, length)| {
            let requests = 24_000 / length;
            (0..requests).map(move |_| (name, length))
        })
        .map(|(name, length)| push_of(&Owner::from(name), &mut queue, name, &[length]))
        .collect();
    let mut tokens: HashMap<String, i64> = HashMap::new();
    for _ in 0..60 {
        for entry in queue.next_batch(1000, 1) {
            *tokens.entry(entry.adapter.version().to_string()).or_default() += entry.tokens.ids.len() as i64;
        }
    }
    let (least, most) = (tokens.values().min().unwrap(), tokens.values().max().unwrap());
    assert!(most - least <= 2 * TURN_TOKENS + 700, "{tokens:?}");
}

#[test]
fn an_owner_whose_requests_are_cancelled_loses_its_turn() {
    let mut queue = RequestQueue::default();
    let (a, b) = (Owner::from("a"), Owner::from("b"));
    let _cancelled = push_of(&a, &mut queue, "a", &[10]);
    let _active = push_of(&b, &mut queue, "b", &[600, 600]);
    assert_eq!(queue.cancel(&a, 0).map(|entries| entries.len()), Some(1));
    assert_eq!(batch_summary(&queue.next_batch(2000, 1)), [("b", vec![600, 600])]);
    assert!(queue.is_empty() && queue.turns.is_empty());
}
