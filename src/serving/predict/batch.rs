//! One batch: grouped by adapter, computed in one forward, its rows given back to their requests.
//!
//! Knows an adapter only as a value of type `A`; what `forward` does is not its business.

use super::pending_response::OutputRows;
use super::queue::BatchSlice;
use espalier_core::error::{Error, Result};
use espalier_core::model::Tokens;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

/// The sequences that one adapter answers for.
pub struct AdapterGroup<A> {
    pub adapter: A,
    pub inputs: Vec<Tokens>,
}

/// One row per input, in the order of the groups.
pub type ForwardFn<A> = dyn Fn(Vec<AdapterGroup<A>>) -> Result<OutputRows> + Send + Sync;

/// Where a row belongs: which part, and which of its inputs.
type RowDestination = (usize, usize);

/// Answers every part, with rows or with an error. A forward that fails or panics is repeated for each request by
/// itself, so that one bad adapter or input cannot fail the others.
pub fn run_batch<A: Clone + PartialEq>(slices: &[BatchSlice<A>], forward: &ForwardFn<A>) {
    let attempt = || forward_rows(slices, forward);
    let outcome = catch_unwind(AssertUnwindSafe(attempt))
        .unwrap_or_else(|payload| Err(Error::from_panic("computing a batch", payload.as_ref())));
    match (outcome, slices) {
        (Ok(rows), _) => slices.iter().zip(rows).for_each(|(slice, rows)| slice.response.set_rows(slice.start, rows)),
        (Err(error), [slice]) => slice.response.fail(error),
        (Err(error), _) => {
            tracing::warn!(%error, requests = slices.len(), "a batch failed; each request is computed by itself");
            slices.iter().for_each(|slice| run_batch(slice::from_ref(slice), forward));
        }
    }
}

/// The rows of every part.
fn forward_rows<A: Clone + PartialEq>(slices: &[BatchSlice<A>], forward: &ForwardFn<A>) -> Result<Vec<OutputRows>> {
    let (groups, destinations) = group_by_adapter(slices);
    let outputs = forward(groups)?;
    if outputs.len() != destinations.len() {
        return Err(Error::internal(format!("{} rows came back for {} inputs", outputs.len(), destinations.len())));
    }
    let mut rows: Vec<OutputRows> = slices.iter().map(|slice| vec![Vec::new(); slice.inputs.len()]).collect();
    for ((slice_index, input_index), row) in destinations.into_iter().zip(outputs) {
        rows[slice_index][input_index] = row;
    }
    Ok(rows)
}

/// Several requests for one adapter share a group.
fn group_by_adapter<A: Clone + PartialEq>(slices: &[BatchSlice<A>]) -> (Vec<AdapterGroup<A>>, Vec<RowDestination>) {
    let mut groups: Vec<(AdapterGroup<A>, Vec<RowDestination>)> = Vec::new();
    for (index, slice) in slices.iter().enumerate() {
        let existing = groups.iter().position(|(group, _)| group.adapter == slice.adapter);
        let position = existing.unwrap_or_else(|| {
            groups.push((AdapterGroup { adapter: slice.adapter.clone(), inputs: Vec::new() }, Vec::new()));
            groups.len() - 1
        });
        let (group, destinations) = &mut groups[position];
        // Copied, because a batch that fails is computed once more; it is little beside the forward.
        group.inputs.extend(slice.inputs.iter().cloned());
        destinations.extend((0..slice.inputs.len()).map(|input_index| (index, input_index)));
    }
    let (groups, destinations): (Vec<_>, Vec<_>) = groups.into_iter().unzip();
    (groups, destinations.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serving::predict::pending_response::PendingResponse;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::oneshot::Receiver;

    type ResponseReceivers = Vec<Receiver<Result<OutputRows>>>;

    fn batch_slices(requests: &[(&'static str, &[usize])]) -> (Vec<BatchSlice<&'static str>>, ResponseReceivers) {
        let batch_slice = |(adapter, lengths): &(&'static str, &[usize])| {
            let (response, response_rx) = PendingResponse::new(lengths.len());
            let tokens = |length: &usize| Tokens::from_ids(vec![1; *length]);
            (
                BatchSlice {
                    adapter: *adapter,
                    inputs: lengths.iter().map(tokens).collect(),
                    start: 0,
                    response: response,
                },
                response_rx,
            )
        };
        requests.iter().map(batch_slice).unzip()
    }

    /// A row tells its input's length and its adapter's first letter.
    fn fake_forward(groups: Vec<AdapterGroup<&'static str>>) -> Result<OutputRows> {
        let row = |adapter: &str, tokens: &Tokens| vec![tokens.ids.len() as f32, f32::from(adapter.as_bytes()[0])];
        Ok(groups.iter().flat_map(|group| group.inputs.iter().map(|input| row(group.adapter, input))).collect())
    }

    fn received(receiver: &mut Receiver<Result<OutputRows>>) -> Result<OutputRows> {
        receiver.try_recv().expect("every request is answered")
    }

    #[test]
    fn every_request_gets_its_own_rows_in_its_own_order() {
        let (slices, mut receivers) = batch_slices(&[("a", &[5, 2]), ("b", &[3]), ("a", &[4, 1])]);
        run_batch(&slices, &fake_forward);
        let (a, b) = (f32::from(b'a'), f32::from(b'b'));
        assert_eq!(received(&mut receivers[0]).unwrap(), [[5.0, a], [2.0, a]]);
        assert_eq!(received(&mut receivers[1]).unwrap(), [[3.0, b]]);
        assert_eq!(received(&mut receivers[2]).unwrap(), [[4.0, a], [1.0, a]]);
    }

    #[test]
    fn requests_for_one_adapter_share_one_group() {
        let (slices, _receivers) = batch_slices(&[("a", &[5, 2]), ("b", &[3]), ("a", &[4, 1])]);
        let (groups, _) = group_by_adapter(&slices);
        let lengths =
            |group: &AdapterGroup<&'static str>| group.inputs.iter().map(|input| input.ids.len()).collect::<Vec<_>>();
        let shape: Vec<_> = groups.iter().map(|group| (group.adapter, lengths(group))).collect();
        assert_eq!(shape, [("a", vec![5, 2, 4, 1]), ("b", vec![3])]);
    }

    #[test]
    fn one_bad_adapter_does_not_fail_the_others() {
        for bad in [|| Err(Error::internal("bad")), || panic!("bad")] {
            let (slices, mut receivers) = batch_slices(&[("a", &[1]), ("bad", &[2]), ("c", &[3])]);
            let forward = move |groups: Vec<AdapterGroup<&'static str>>| match groups
                .iter()
                .any(|group| group.adapter == "bad")
            {
                true => bad(),
                false => fake_forward(groups),
            };
            run_batch(&slices, &forward);
            assert_eq!(received(&mut receivers[0]).unwrap(), [[1.0, f32::from(b'a')]]);
            assert!(received(&mut receivers[1]).unwrap_err().to_string().contains("bad"));
            assert_eq!(received(&mut receivers[2]).unwrap(), [[3.0, f32::from(b'c')]]);
        }
    }

    #[test]
    fn one_forward_serves_all_requests_without_errors() {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        let (slices, _receivers) = batch_slices(&[("a", &[1]), ("b", &[2])]);
        let counting_forward = |groups| {
            CALLS.fetch_add(1, Ordering::Relaxed);
            fake_forward(groups)
        };
        run_batch(&slices, &counting_forward);
        assert_eq!(CALLS.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_forward_that_loses_a_row_is_an_internal_error() {
        let (slices, mut receivers) = batch_slices(&[("a", &[1, 2])]);
        run_batch(&slices, &|_| Ok(vec![vec![0.0]]));
        assert_eq!(received(&mut receivers[0]).unwrap_err().code(), "internal");
    }
}
