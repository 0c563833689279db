//! One batch: grouped by adapter, computed in one forward, its rows given back to their requests.
//!
//! Knows an adapter only as a value of type `A`; what `forward` does is not its business.

use super::queue::Part;
use super::ticket::Rows;
use espalier_core::error::{Error, Result};
use espalier_core::model::Tokens;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

/// The sequences that one adapter answers for.
pub struct Group<A> {
    pub adapter: A,
    pub inputs: Vec<Tokens>,
}

/// One row per input, in the order of the groups.
pub type Forward<A> = dyn Fn(Vec<Group<A>>) -> Result<Rows> + Send + Sync;

/// Where a row belongs: which part, and which of its inputs.
type Place = (usize, usize);

/// Answers every part, with rows or with an error. A forward that fails or panics is repeated for each request by
/// itself, so that one bad adapter or input cannot fail the others.
pub fn compute<A: Clone + PartialEq>(parts: &[Part<A>], forward: &Forward<A>) {
    let attempt = || rows(parts, forward);
    let outcome = catch_unwind(AssertUnwindSafe(attempt))
        .unwrap_or_else(|payload| Err(Error::panicked("computing a batch", payload.as_ref())));
    match (outcome, parts) {
        (Ok(rows), _) => parts.iter().zip(rows).for_each(|(part, rows)| part.ticket.fill(part.first, rows)),
        (Err(error), [part]) => part.ticket.fail(error),
        (Err(error), _) => {
            tracing::warn!(%error, requests = parts.len(), "a batch failed; each request is computed by itself");
            parts.iter().for_each(|part| compute(slice::from_ref(part), forward));
        }
    }
}

/// The rows of every part.
fn rows<A: Clone + PartialEq>(parts: &[Part<A>], forward: &Forward<A>) -> Result<Vec<Rows>> {
    let (groups, places) = grouped(parts);
    let computed = forward(groups)?;
    if computed.len() != places.len() {
        return Err(Error::internal(format!("{} rows came back for {} inputs", computed.len(), places.len())));
    }
    let mut rows: Vec<Rows> = parts.iter().map(|part| vec![Vec::new(); part.inputs.len()]).collect();
    for ((part, input), row) in places.into_iter().zip(computed) {
        rows[part][input] = row;
    }
    Ok(rows)
}

/// Several requests for one adapter share a group.
fn grouped<A: Clone + PartialEq>(parts: &[Part<A>]) -> (Vec<Group<A>>, Vec<Place>) {
    let mut groups: Vec<(Group<A>, Vec<Place>)> = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let known = groups.iter().position(|(group, _)| group.adapter == part.adapter);
        let position = known.unwrap_or_else(|| {
            groups.push((Group { adapter: part.adapter.clone(), inputs: Vec::new() }, Vec::new()));
            groups.len() - 1
        });
        let (group, places) = &mut groups[position];
        // Copied, because a batch that fails is computed once more; it is little beside the forward.
        group.inputs.extend(part.inputs.iter().cloned());
        places.extend((0..part.inputs.len()).map(|input| (index, input)));
    }
    let (groups, places): (Vec<_>, Vec<_>) = groups.into_iter().unzip();
    (groups, places.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serving::ticket::Ticket;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::oneshot::Receiver;

    type Answers = Vec<Receiver<Result<Rows>>>;

    fn parts(requests: &[(&'static str, &[usize])]) -> (Vec<Part<&'static str>>, Answers) {
        let part = |(adapter, lengths): &(&'static str, &[usize])| {
            let (ticket, answer) = Ticket::new(lengths.len());
            let tokens = |length: &usize| Tokens::whole(vec![1; *length]);
            (Part { adapter: *adapter, inputs: lengths.iter().map(tokens).collect(), first: 0, ticket }, answer)
        };
        requests.iter().map(part).unzip()
    }

    /// A row tells its input's length and its adapter's first letter.
    fn tell(groups: Vec<Group<&'static str>>) -> Result<Rows> {
        let row = |adapter: &str, tokens: &Tokens| vec![tokens.ids.len() as f32, f32::from(adapter.as_bytes()[0])];
        Ok(groups.iter().flat_map(|group| group.inputs.iter().map(|input| row(group.adapter, input))).collect())
    }

    fn answer(receiver: &mut Receiver<Result<Rows>>) -> Result<Rows> {
        receiver.try_recv().expect("every request is answered")
    }

    #[test]
    fn every_request_gets_its_own_rows_in_its_own_order() {
        let (parts, mut answers) = parts(&[("a", &[5, 2]), ("b", &[3]), ("a", &[4, 1])]);
        compute(&parts, &tell);
        let (a, b) = (f32::from(b'a'), f32::from(b'b'));
        assert_eq!(answer(&mut answers[0]).unwrap(), [[5.0, a], [2.0, a]]);
        assert_eq!(answer(&mut answers[1]).unwrap(), [[3.0, b]]);
        assert_eq!(answer(&mut answers[2]).unwrap(), [[4.0, a], [1.0, a]]);
    }

    #[test]
    fn requests_for_one_adapter_join_one_group() {
        let (parts, _answers) = parts(&[("a", &[5, 2]), ("b", &[3]), ("a", &[4, 1])]);
        let (groups, _) = grouped(&parts);
        let lengths =
            |group: &Group<&'static str>| group.inputs.iter().map(|input| input.ids.len()).collect::<Vec<_>>();
        let shape: Vec<_> = groups.iter().map(|group| (group.adapter, lengths(group))).collect();
        assert_eq!(shape, [("a", vec![5, 2, 4, 1]), ("b", vec![3])]);
    }

    #[test]
    fn one_bad_adapter_does_not_fail_the_others() {
        for bad in [|| Err(Error::internal("bad")), || panic!("bad")] {
            let (parts, mut answers) = parts(&[("a", &[1]), ("bad", &[2]), ("c", &[3])]);
            let forward =
                move |groups: Vec<Group<&'static str>>| match groups.iter().any(|group| group.adapter == "bad") {
                    true => bad(),
                    false => tell(groups),
                };
            compute(&parts, &forward);
            assert_eq!(answer(&mut answers[0]).unwrap(), [[1.0, f32::from(b'a')]]);
            assert!(answer(&mut answers[1]).unwrap_err().to_string().contains("bad"));
            assert_eq!(answer(&mut answers[2]).unwrap(), [[3.0, f32::from(b'c')]]);
        }
    }

    #[test]
    fn one_forward_serves_all_when_all_is_well() {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        let (parts, _answers) = parts(&[("a", &[1]), ("b", &[2])]);
        let counted = |groups| {
            CALLS.fetch_add(1, Ordering::Relaxed);
            tell(groups)
        };
        compute(&parts, &counted);
        assert_eq!(CALLS.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_forward_that_loses_a_row_is_our_fault() {
        let (parts, mut answers) = parts(&[("a", &[1, 2])]);
        compute(&parts, &|_| Ok(vec![vec![0.0]]));
        assert_eq!(answer(&mut answers[0]).unwrap_err().code(), "internal");
    }
}
