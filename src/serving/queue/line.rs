//! The line of requests, and how a batch is cut from it.
//!
//! A large request gives up its turn after each batch, so that small ones do not wait behind all of it. Knows nothing of
//! threads or time limits.

use crate::serving::ticket::Ticket;
use espalier_core::model::Tokens;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// Work is not shared among idle threads in smaller pieces than this many tokens: they would only pay overhead.
const SMALLEST_SHARE: usize = 256;

pub struct Line<A> {
    requests: VecDeque<Waiting<A>>,
}

/// The inputs of a request that no batch has taken yet.
pub struct Waiting<A> {
    pub adapter: A,
    pub inputs: VecDeque<Tokens>,
    /// The place of the first of them in the request.
    pub first: usize,
    pub ticket: Arc<Ticket>,
    pub since: Instant,
}

/// What a batch took of one request.
pub struct Part<A> {
    pub adapter: A,
    pub inputs: Vec<Tokens>,
    /// The place of the first of them in the request.
    pub first: usize,
    pub ticket: Arc<Ticket>,
}

impl<A> Default for Line<A> {
    fn default() -> Self {
        Self { requests: VecDeque::new() }
    }
}

impl<A> Line<A> {
    pub fn join(&mut self, request: Waiting<A>) {
        self.requests.push_back(request);
    }

    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub fn inputs(&self) -> usize {
        self.requests.iter().map(|request| request.inputs.len()).sum()
    }

    pub fn tokens(&self) -> usize {
        self.requests.iter().flat_map(|request| &request.inputs).map(|tokens| tokens.ids.len()).sum()
    }

    pub fn oldest(&self) -> Option<Instant> {
        self.requests.iter().map(|request| request.since).min()
    }

    pub fn forget_unwanted(&mut self) {
        self.requests.retain(|request| request.ticket.is_wanted());
    }
}

impl<A: Clone> Line<A> {
    /// Fills a batch from the front: at least one input, and beyond it no more than `most` tokens, nor more than one
    /// sharer's part of the whole line.
    pub fn cut(&mut self, most: usize, sharers: usize) -> Vec<Part<A>> {
        let mut room = most.min((self.tokens() / sharers).max(SMALLEST_SHARE));
        let mut parts: Vec<Part<A>> = Vec::new();
        while let Some(mut request) = self.requests.pop_front() {
            let first = request.first;
            let inputs = request.split(&mut room, usize::from(parts.is_empty()));
            if inputs.is_empty() {
                self.requests.push_front(request);
                break;
            }
            parts.push(Part { adapter: request.adapter.clone(), inputs, first, ticket: Arc::clone(&request.ticket) });
            if !request.inputs.is_empty() {
                self.requests.push_back(request);
                break;
            }
        }
        parts
    }
}

impl<A> Waiting<A> {
    /// Takes the inputs that fit into the room, and `least` of them even if they do not.
    fn split(&mut self, room: &mut usize, least: usize) -> Vec<Tokens> {
        let mut taken = Vec::new();
        while let Some(next) = self.inputs.front() {
            if next.ids.len() > *room && taken.len() >= least {
                break;
            }
            *room = room.saturating_sub(next.ids.len());
            taken.extend(self.inputs.pop_front());
        }
        self.first += taken.len();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serving::ticket::Rows;
    use tokio::sync::oneshot::Receiver;

    fn join(
        line: &mut Line<&'static str>,
        adapter: &'static str,
        lengths: &[usize],
    ) -> Receiver<espalier_core::error::Result<Rows>> {
        let (ticket, answer) = Ticket::new(lengths.len());
        let tokens = |length: &usize| Tokens::whole(vec![1; *length]);
        let inputs = lengths.iter().map(tokens).collect();
        line.join(Waiting { adapter, inputs, first: 0, ticket, since: Instant::now() });
        answer
    }

    /// Adapter, place of the first input and number of inputs of every part.
    fn shape(parts: &[Part<&'static str>]) -> Vec<(&'static str, usize, usize)> {
        parts.iter().map(|part| (part.adapter, part.first, part.inputs.len())).collect()
    }

    #[test]
    fn a_batch_takes_several_requests_up_to_its_tokens() {
        let mut line = Line::default();
        let _answers = [join(&mut line, "a", &[400, 100]), join(&mut line, "b", &[300]), join(&mut line, "c", &[300])];
        assert_eq!(shape(&line.cut(1000, 1)), [("a", 0, 2), ("b", 0, 1)]);
        assert_eq!(shape(&line.cut(1000, 1)), [("c", 0, 1)]);
        assert!(line.is_empty());
    }

    #[test]
    fn a_large_request_lets_the_others_pass_after_each_batch() {
        let mut line = Line::default();
        let _answers = [join(&mut line, "large", &[500; 5]), join(&mut line, "small", &[10])];
        assert_eq!(shape(&line.cut(1000, 1)), [("large", 0, 2)]);
        assert_eq!(shape(&line.cut(1000, 1)), [("small", 0, 1), ("large", 2, 1)]);
        assert_eq!(shape(&line.cut(1000, 1)), [("large", 3, 2)]);
        assert!(line.is_empty());
    }

    #[test]
    fn an_input_larger_than_a_batch_goes_alone() {
        let mut line = Line::default();
        let _answer = join(&mut line, "a", &[5000, 10]);
        assert_eq!(shape(&line.cut(1000, 1)), [("a", 0, 1)]);
        assert_eq!(shape(&line.cut(1000, 1)), [("a", 1, 1)]);
    }

    #[test]
    fn idle_threads_get_their_share_but_no_crumbs() {
        let mut line = Line::default();
        let _answer = join(&mut line, "a", &[100; 10]);
        assert_eq!(shape(&line.cut(8000, 2)), [("a", 0, 5)]);
        assert_eq!(shape(&line.cut(8000, 5)), [("a", 5, 2)], "a fifth would be less than the smallest share");
    }

    #[test]
    fn who_went_away_is_forgotten() {
        let mut line = Line::default();
        drop(join(&mut line, "gone", &[10]));
        let _answer = join(&mut line, "here", &[10]);
        line.forget_unwanted();
        assert_eq!(shape(&line.cut(1000, 1)), [("here", 0, 1)]);
    }
}
