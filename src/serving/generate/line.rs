//! Who waits and who runs, and the memory that is promised to them. Knows nothing of how a step is computed.

use super::sequence::Sequence;
use super::shared::{self, Shared};
use super::{Settings, Stats};
use espalier_tensor::past::PAGE;
use std::collections::VecDeque;

pub struct Line {
    pub waiting: VecDeque<Sequence>,
    /// Those that are computed now are taken out for the step.
    pub running: Vec<Sequence>,
    /// How many of them are being computed.
    pub computed: usize,
    /// Of those that run, also while they are computed.
    promised: usize,
    shared: Shared,
    most_pages: usize,
    page_bytes: usize,
    max_running: usize,
    pub counted: Stats,
    /// Sequences that ever came.
    pub arrivals: u64,
    pub is_closed: bool,
}

impl Line {
    pub fn new(settings: &Settings, page_bytes: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            running: Vec::new(),
            computed: 0,
            promised: 0,
            shared: Shared::default(),
            most_pages: (settings.memory_bytes as usize / page_bytes).max(1),
            page_bytes,
            max_running: settings.max_running.max(1),
            counted: Stats::default(),
            arrivals: 0,
            is_closed: false,
        }
    }

    /// Pages that a sequence may have at most.
    pub fn most_pages(&self) -> usize {
        self.most_pages
    }

    pub fn stats(&self) -> Stats {
        Stats {
            running: (self.running.len() + self.computed) as u64,
            waiting: self.waiting.len() as u64,
            promised_pages: self.promised as u64,
            memory_bytes: ((self.promised + self.shared.len()) * self.page_bytes) as u64,
            ..self.counted
        }
    }

    /// Forgets those whom nobody listens to, and lets those in that there is room for, in their order; but one whose beginning
    /// somebody is just reading waits for that.
    pub fn admit(&mut self) {
        self.waiting.retain(Sequence::is_wanted);
        let gone: Vec<Sequence> = self.running.extract_if(.., |sequence| !sequence.is_wanted()).collect();
        gone.iter().for_each(|sequence| self.leave(sequence));
        let mut next = 0;
        while self.running.len() < self.max_running
            && let Some(waiting) = self.waiting.get(next)
        {
            if self.running.iter().any(|other| is_ahead(other, waiting)) {
                next += 1;
                continue;
            }
            let Some(mut sequence) = self.waiting.remove(next) else { return };
            let (front, form) = (sequence.virtual_tokens(), sequence.past.form());
            // Looked for first: what is used is forgotten last.
            let known = self.shared.find(&sequence.version, front, form, sequence.prompt());
            if !self.make_room(sequence.pages) {
                self.waiting.insert(next, sequence);
                return;
            }
            self.promised += sequence.pages;
            if let Some((past, tokens)) = known {
                sequence.go_on_from(past, tokens);
                self.counted.shared_tokens += tokens as u64;
            }
            self.counted.prompt_tokens += sequence.prompt().len() as u64;
            // Neighbours with the same adapter are computed together.
            let place = self.running.partition_point(|other| other.version <= sequence.version);
            self.running.insert(place, sequence);
        }
    }

    /// Whether so many more pages fit, if need be after forgetting some that are only kept for others.
    fn make_room(&mut self, pages: usize) -> bool {
        while self.promised + self.shared.len() + pages > self.most_pages {
            if self.promised + pages > self.most_pages || !self.shared.forget_one() {
                return false;
            }
        }
        true
    }

    /// A sequence runs no more.
    pub fn leave(&mut self, sequence: &Sequence) {
        self.release(sequence.pages);
    }

    /// Takes promised pages back.
    pub fn release(&mut self, pages: usize) {
        self.promised -= pages;
    }

    /// Keeps what a sequence has computed for others that begin alike, as far as there is room.
    pub fn keep(&mut self, sequence: &mut Sequence) {
        let full = sequence.past.full().len();
        if full == sequence.kept {
            return;
        }
        sequence.kept = full;
        let front = sequence.virtual_tokens();
        self.shared.keep(&sequence.version, front, &sequence.past, sequence.ids());
        while self.promised + self.shared.len() > self.most_pages && self.shared.forget_one() {}
    }
}

/// Whether one that came before and reads has still to compute pages that the other begins with, too.
fn is_ahead(reader: &Sequence, other: &Sequence) -> bool {
    if !reader.is_reading() || reader.arrival > other.arrival || reader.version != other.version {
        return false;
    }
    let prompt = &other.prompt()[..other.prompt().len() - 1];
    let alike = reader.prompt().iter().zip(prompt).take_while(|(one, other)| one == other).count();
    (alike + shared::rows(other.virtual_tokens())) / PAGE > reader.kept
}
