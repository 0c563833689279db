//! One sequence on its way: what it has read and said, and who listens.

use super::grammar::Grammar;
use super::request::{Ask, Chosen, Event};
use super::sampling::Sampler;
use super::text::{Finish, Writer};
use super::turns::Turn;
use crate::serving::resident::Resident;
use espalier_core::error::{Error, Result};
use espalier_core::model::{Base, Virtual};
use espalier_tensor::past::{Form, Past};
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

type Decode = Box<dyn Fn(&[u32]) -> String + Send>;

pub struct Sequence {
    pub resident: Resident,
    pub version: String,
    /// The prompt, and what has been said.
    ids: Vec<u32>,
    prompt: usize,
    /// Of `ids`, those whose rows are remembered.
    read: usize,
    pub past: Past,
    sampler: Sampler,
    writer: Writer<Decode>,
    grammar: Option<Grammar>,
    events: UnboundedSender<Event>,
    /// Its number among all that came.
    pub arrival: u64,
    /// Pages that it may need.
    pub pages: usize,
    /// Of its full pages, those that are kept for others.
    pub kept: usize,
}

impl Sequence {
    pub fn new(base: &Arc<Base>, form: Form, ask: Ask, events: UnboundedSender<Event>) -> Self {
        let tokens = Arc::clone(base);
        let decode: Decode = Box::new(move |ids| tokens.tokenizer().decode(ids));
        let rows = ask.resident.virtual_rows() + ask.prompt.len() + ask.limits.max_tokens as usize;
        Self {
            sampler: Sampler::new(ask.sampling, &ask.prompt, ask.choice),
            writer: Writer::new(decode, &ask.prompt, ask.limits),
            grammar: ask.grammar,
            prompt: ask.prompt.len(),
            ids: ask.prompt,
            read: 0,
            past: Past::new(form),
            resident: ask.resident,
            version: ask.version,
            events,
            arrival: 0,
            pages: Form::pages(rows),
            kept: 0,
        }
    }

    /// Whether somebody listens.
    pub fn is_wanted(&self) -> bool {
        !self.events.is_closed()
    }

    pub fn prompt(&self) -> &[u32] {
        &self.ids[..self.prompt]
    }

    /// All that was read and said.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Goes on from rows that are remembered of others, so many tokens of the prompt.
    pub fn go_on_from(&mut self, past: Past, tokens: usize) {
        self.kept = past.full().len();
        (self.past, self.read) = (past, tokens);
    }

    /// Tokens whose rows are still to be computed.
    pub fn unread(&self) -> usize {
        self.ids.len() - self.read
    }

    /// Whether it still reads its prompt.
    pub fn is_reading(&self) -> bool {
        self.read < self.prompt
    }

    pub fn turn(&self) -> Turn {
        Turn { unread: self.unread(), is_reading: self.is_reading(), arrival: self.arrival }
    }

    /// The next tokens to be computed.
    pub fn piece(&self, most: usize) -> &[u32] {
        &self.ids[self.read..self.ids.len().min(self.read + most)]
    }

    /// What its adapter puts in front of a sequence.
    pub fn virtual_tokens(&self) -> Virtual {
        self.resident.0.as_ref().map_or(Virtual::Nothing, |adapted| adapted.hooks.virtual_tokens())
    }

    /// The same before its first row, and nothing behind it.
    pub fn front(&self) -> Virtual {
        if self.past.is_fresh() { self.virtual_tokens() } else { Virtual::Nothing }
    }

    /// So many more of its tokens are remembered.
    pub fn remembered(&mut self, past: Past, tokens: usize) {
        self.past = past;
        self.read += tokens;
    }

    /// Says the next token, given its logits; whether that was the last.
    pub fn say(&mut self, logits: &mut [f32]) -> bool {
        let finish = self.next(logits);
        match finish {
            Ok(None) => return false,
            Ok(Some(finish)) => self.finish(finish),
            Err(error) => self.fail(error),
        }
        true
    }

    fn next(&mut self, logits: &mut [f32]) -> Result<Option<Finish>> {
        let step = (self.ids.len() - self.prompt) as u64;
        let allowed = self.grammar.as_mut().map(Grammar::allowed).transpose()?;
        let Some(choice) = self.sampler.choose(logits, step, allowed.as_ref()) else {
            return Err(Error::internal("the model answered with numbers that are not finite"));
        };
        self.ids.push(choice.id);
        let is_complete = self.grammar.as_mut().map(|grammar| grammar.push(choice.id)).transpose()? == Some(true);
        let mut piece = self.writer.push(choice.id);
        if is_complete {
            piece.text += &self.writer.end();
            piece.finished = Some(Finish::Stop);
        }
        let chosen = Chosen { id: choice.id, text: piece.text, offset: piece.offset, logprobs: choice.logprobs };
        self.tell(Event::Token(chosen));
        Ok(piece.finished)
    }

    pub fn finish(&self, finish: Finish) {
        self.tell(Event::Finished(finish));
    }

    pub fn fail(&self, error: Error) {
        self.tell(Event::Failed(error));
    }

    fn tell(&self, event: Event) {
        // Who has gone away hears nothing; the next step takes the sequence out.
        let _ = self.events.send(event);
    }
}

/// The same failure for several sequences.
pub fn fail_all(sequences: &[Sequence], error: &Error) {
    for sequence in sequences {
        sequence.fail(Error::internal(format!("{error:#}")));
    }
}

/// The prompt's tokens where they can be gone on from.
///
/// # Errors
/// `Invalid`: `empty_input`, or `too_long` where prompt and answer do not fit into what the base reads.
pub fn check(base: &Base, resident: &Resident, prompt: &[u32], max_tokens: usize) -> Result<()> {
    if prompt.is_empty() {
        return Err(Error::invalid("empty_input", "the prompt is empty: give it at least one word"));
    }
    let most = base.info().max_tokens.saturating_sub(resident.virtual_rows());
    let length = prompt.len();
    if length >= most {
        let detail =
            format!("the prompt has {length} tokens, and this base model reads {most} with its answer: shorten it");
        return Err(Error::invalid("too_long", detail));
    }
    if length.saturating_add(max_tokens) > most {
        let detail = format!(
            "the prompt has {length} tokens and {max_tokens} may be generated, but this base model reads {most} in all: \
             shorten the prompt, or lower max_tokens"
        );
        return Err(Error::invalid("too_long", detail));
    }
    Ok(())
}
