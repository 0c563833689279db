//! Computes batches: groups inputs by adapter, runs one forward pass, and returns each output to its request.

use super::lane::Lane;
use super::metrics::PredictMetrics;
use super::owner_queue::{OutputRow, QueueEntry};
use super::queue::PredictionQueue;
use crate::serving::errors::clone_error;
use crate::serving::multi_adapter::AdapterGroup;
use espalier_core::error::{Error, Result};
use espalier_tensor::worker_pool::thread_cpu_time;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;
use tracing::Span;

/// Returns one row per input, in the order of the groups.
pub type ForwardFn = dyn Fn(&[AdapterGroup]) -> Result<Vec<OutputRow>> + Send + Sync;

/// While short requests are congested, a worker of the long lane starts a batch only after so many times the processor time of its last
/// one.
const CONGESTION_SLOWDOWN: u32 = 20;

/// Computes batches of a lane until the queue is closed and the lane empty.
pub fn worker_loop(queue: &Arc<PredictionQueue>, lane: Lane, forward: &ForwardFn, metrics: &PredictMetrics) {
    let mut not_before = Instant::now();
    while let Some((mut entries, _batch)) = queue.next_batch(lane, not_before) {
        let _forward = start_forward_spans(&mut entries);
        let (started_at, cpu_time) = (Instant::now(), thread_cpu_time());
        metrics.start_batch(&entries, started_at);
        run_batch(entries, forward);
        metrics.end_batch(started_at.elapsed());
        not_before = started_at + CONGESTION_SLOWDOWN * (thread_cpu_time() - cpu_time);
    }
}

/// Ends the wait of the entries, and returns a span of the forward pass for each request among them.
fn start_forward_spans(batch: &mut [QueueEntry]) -> Vec<Span> {
    batch.iter_mut().for_each(|entry| entry.spans.queue = Span::none());
    let requests = batch.chunk_by(|one, other| one.request == other.request);
    let span = |request: &[QueueEntry]| {
        let tokens = batch.iter().map(|entry| entry.tokens.ids.len()).sum::<usize>();
        tracing::debug_span!(
            parent: &request[0].spans.request,
            "forward",
            inputs = request.len(),
            batch_inputs = batch.len(),
            batch_tokens = tokens
        )
    };
    requests.filter(|request| !request[0].spans.request.is_disabled()).map(span).collect()
}

/// Responds to every entry with its output or an error. If the forward pass fails or panics, each request is computed
/// by itself, so that a bad adapter or input fails only its own request.
pub fn run_batch(batch: Vec<QueueEntry>, forward: &ForwardFn) {
    let outcome = catch_unwind(AssertUnwindSafe(|| compute_rows(&batch, forward)))
        .unwrap_or_else(|payload| Err(Error::from_panic("computing a batch", payload.as_ref())));
    match outcome {
        Ok(rows) => batch.into_iter().zip(rows).for_each(|(entry, row)| respond(entry, Ok(row))),
        Err(error) => {
            let mut requests = split_by_request(batch);
            match requests.len() {
                1 => requests.remove(0).into_iter().for_each(|entry| respond(entry, Err(clone_error(&error)))),
                request_count => {
                    tracing::warn!(%error, requests = request_count, "batch failed; computing each request by itself");
                    requests.into_iter().for_each(|request| run_batch(request, forward));
                }
            }
        }
    }
}

fn respond(entry: QueueEntry, row: Result<OutputRow>) {
    // Fails when the request was cancelled during the forward pass.
    let _ = entry.response.send(row);
}

/// The inputs of one request are neighbours in a batch.
fn split_by_request(batch: Vec<QueueEntry>) -> Vec<Vec<QueueEntry>> {
    let mut requests: Vec<Vec<QueueEntry>> = Vec::new();
    for entry in batch {
        match requests.last_mut() {
            Some(request) if request[0].request == entry.request => request.push(entry),
            _ => requests.push(vec![entry]),
        }
    }
    requests
}

/// Returns the output of each entry, in the order of the entries.
fn compute_rows(batch: &[QueueEntry], forward: &ForwardFn) -> Result<Vec<OutputRow>> {
    let (groups, entry_indices) = group_by_adapter(batch);
    let outputs = forward(&groups)?;
    if outputs.len() != batch.len() {
        return Err(Error::internal(format!("{} rows came back for {} inputs", outputs.len(), batch.len())));
    }
    let mut rows = vec![OutputRow::new(); batch.len()];
    for (index, output) in entry_indices.into_iter().zip(outputs) {
        rows[index] = output;
    }
    Ok(rows)
}

/// Groups the inputs of a batch, also those of different requests, and returns the entry index of every grouped input.
fn group_by_adapter(batch: &[QueueEntry]) -> (Vec<AdapterGroup>, Vec<usize>) {
    let mut groups: Vec<(AdapterGroup, Vec<usize>)> = Vec::new();
    for (index, entry) in batch.iter().enumerate() {
        let existing = groups.iter().position(|(group, _)| group.adapter == entry.adapter);
        let position = existing.unwrap_or_else(|| {
            groups.push((AdapterGroup { adapter: entry.adapter.clone(), inputs: Vec::new() }, Vec::new()));
            groups.len() - 1
        });
        let (group, entry_indices) = &mut groups[position];
        // Copied, because a batch that fails is computed again; the cost is small beside the forward pass.
        group.inputs.push(entry.tokens.clone());
        entry_indices.push(index);
    }
    let (groups, entry_indices): (Vec<_>, Vec<_>) = groups.into_iter().unzip();
    (groups, entry_indices.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serving::adapters::AdapterHandle;
    use crate::serving::predict::owner_queue::EntrySpans;
    use espalier_core::model::Tokens;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::oneshot;

    /// Receivers of each request's inputs.
    type Receivers = Vec<Vec<oneshot::Receiver<Result<OutputRow>>>>;

    /// A batch of requests, each with its adapter and the lengths of its inputs.
    fn batch(requests: &[(&str, &[usize])]) -> (Vec<QueueEntry>, Receivers) {
        let mut entries = Vec::new();
        let receivers = requests.iter().zip(0..).map(|((adapter, lengths), request)| {
            let entry = |length: &usize| {
                let (response, response_rx) = oneshot::channel();
                let (adapter, tokens) = (AdapterHandle::named(adapter), Tokens::from_ids(vec![1; *length]));
                entries.push(QueueEntry {
                    adapter,
                    tokens,
                    request,
                    enqueued_at: Instant::now(),
                    response,
                    spans: EntrySpans::start(),
                });
                response_rx
            };
            lengths.iter().map(entry).collect()
        });
        let receivers = receivers.collect();
        (entries, receivers)
    }

    /// Each row is the length of its input and the first letter of its adapter.
    fn fake_forward(groups: &[AdapterGroup]) -> Result<Vec<OutputRow>> {
        let row = |adapter: &AdapterHandle, tokens: &Tokens| {
            vec![tokens.ids.len() as f32, f32::from(adapter.version().as_bytes()[0])]
        };
        Ok(groups.iter().flat_map(|group| group.inputs.iter().map(|input| row(&group.adapter, input))).collect())
    }

    /// The outputs of a request, or the error of its first input.
    fn received(receivers: &mut [oneshot::Receiver<Result<OutputRow>>]) -> Result<Vec<OutputRow>> {
        receivers.iter_mut().map(|receiver| receiver.try_recv().expect("every input gets a response")).collect()
    }

    #[test]
    fn every_request_gets_its_own_rows_in_its_own_order() {
        let (entries, mut receivers) = batch(&[("a", &[5, 2]), ("b", &[3]), ("a", &[4, 1])]);
        run_batch(entries, &fake_forward);
        let (a, b) = (f32::from(b'a'), f32::from(b'b'));
        assert_eq!(received(&mut receivers[0]).unwrap(), [[5.0, a], [2.0, a]]);
        assert_eq!(received(&mut receivers[1]).unwrap(), [[3.0, b]]);
        assert_eq!(received(&mut receivers[2]).unwrap(), [[4.0, a], [1.0, a]]);
    }

    #[test]
    fn requests_for_one_adapter_share_one_group() {
        let (entries, _receivers) = batch(&[("a", &[5, 2]), ("b", &[3]), ("a", &[4, 1])]);
        let (groups, _) = group_by_adapter(&entries);
        let lengths = |group: &AdapterGroup| group.inputs.iter().map(|input| input.ids.len()).collect::<Vec<_>>();
        let shape: Vec<_> = groups.iter().map(|group| (group.adapter.version(), lengths(group))).collect();
        assert_eq!(shape, [("a", vec![5, 2, 4, 1]), ("b", vec![3])]);
    }

    #[test]
    fn one_bad_adapter_does_not_fail_the_others() {
        for bad in [|| Err(Error::internal("bad")), || panic!("bad")] {
            let (entries, mut receivers) = batch(&[("a", &[1]), ("bad", &[2, 2]), ("c", &[3])]);
            let forward =
                move |groups: &[AdapterGroup]| match groups.iter().any(|group| group.adapter.version() == "bad") {
                    true => bad(),
                    false => fake_forward(groups),
                };
            run_batch(entries, &forward);
            assert_eq!(received(&mut receivers[0]).unwrap(), [[1.0, f32::from(b'a')]]);
            for receiver in receivers[1].chunks_mut(1) {
                assert!(received(receiver).unwrap_err().to_string().contains("bad"));
            }
            assert_eq!(received(&mut receivers[2]).unwrap(), [[3.0, f32::from(b'c')]]);
        }
    }

    #[test]
    fn one_forward_serves_all_requests_without_errors() {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        let (entries, _receivers) = batch(&[("a", &[1]), ("b", &[2])]);
        let counting_forward = |groups: &[AdapterGroup]| {
            CALLS.fetch_add(1, Ordering::Relaxed);
            fake_forward(groups)
        };
        run_batch(entries, &counting_forward);
        assert_eq!(CALLS.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_forward_that_loses_a_row_is_an_internal_error() {
        let (entries, mut receivers) = batch(&[("a", &[1, 2])]);
        run_batch(entries, &|_: &[AdapterGroup]| Ok(vec![vec![0.0]]));
        assert_eq!(received(&mut receivers[0]).unwrap_err().code(), "internal");
    }
}
