//! Which bytes of a rendered conversation the model would have to say itself.
//!
//! Asks the template itself, by rendering parts of the conversation; knows no family's marks.

use super::dialect::{MARKS, now};
use super::{Asked, Message, Template};
use crate::error::{Error, Result};
use std::ops::Range;

/// A conversation as the model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    pub text: String,
    /// In the text's bytes and in order, without overlap, one for each message of the assistant: from behind the
    /// generation prompt through the token that ends it.
    pub turns: Vec<Range<usize>>,
}

/// Where the content of an assistant's message stands.
struct Place {
    content: Range<usize>,
    /// Behind the token that ends the turn, if it is among what the template puts behind the content.
    end: Option<usize>,
}

impl Template {
    /// A whole conversation and what of it the assistant says. `ends` are the tokenizer's control tokens: one of
    /// them, where the template puts it behind a message, ends the turn and belongs to it.
    ///
    /// Where the template marks each of them by `{% generation %}` (transformers' `assistant_masks`), those are the
    /// turns.
    ///
    /// # Errors
    /// `Invalid` (`chat_template_refused`) as [`Template::render`], and where an assistant's message cannot be found in
    /// the text.
    pub fn conversation(&self, messages: &[Message], asked: &Asked, ends: &[String]) -> Result<Conversation> {
        let asked = &Asked { now: asked.now.or_else(|| Some(now())), ..asked.clone() };
        let text = self.render(messages, asked)?;
        let ends = Ends::new(ends);
        let spoken: Vec<usize> = (0..messages.len()).filter(|index| messages[*index].role() == "assistant").collect();
        let declared = self.declared(messages, asked, &text)?;
        if let Some(declared) = declared.filter(|declared| declared.len() == spoken.len()) {
            let end = |turn: &Range<usize>| ends.closing(&text, turn).unwrap_or_else(|| ends.next(&text, turn.end));
            let turns = declared.into_iter().map(|turn| turn.start..end(&turn)).collect();
            return Ok(Conversation { text, turns });
        }
        let mut turns: Vec<Range<usize>> = Vec::new();
        for index in spoken {
            let from = turns.last().map_or(0, |turn| turn.end);
            let turn = self.turn(messages, index, asked, &text, &ends).ok_or_else(|| lost(index))?;
            let turn = turn.start.max(from)..turn.end;
            if turn.is_empty() {
                return Err(lost(index));
            }
            turns.push(turn);
        }
        Ok(Conversation { text, turns })
    }

    /// What the template's own tags enclose, where it has any and the text without their marks is the same.
    fn declared(&self, messages: &[Message], asked: &Asked, text: &str) -> Result<Option<Vec<Range<usize>>>> {
        let Some(marked) = self.marked(messages, asked)? else { return Ok(None) };
        let [open, close] = MARKS;
        let (mut plain, mut turns, mut opened) = (String::with_capacity(text.len()), Vec::new(), None);
        for character in marked.chars() {
            match character {
                _ if character == open => opened = Some(plain.len()),
                _ if character == close => turns.extend(opened.take().map(|start| start..plain.len())),
                _ => plain.push(character),
            }
        }
        turns.retain(|turn| !turn.is_empty());
        Ok((plain == text).then_some(turns))
    }

    /// From where the prompt for this message ends to where the conversation up to it does. A template that writes
    /// earlier messages in another way than the last does not have these as beginnings of the text: the content
    /// tells, then.
    fn turn(&self, messages: &[Message], index: usize, asked: &Asked, text: &str, ends: &Ends) -> Option<Range<usize>> {
        let is_last = index + 1 == messages.len();
        let until = if is_last { self.end_of_last(messages, asked, text, ends) } else { text.len() };
        let prompt = self.prompt(&messages[..index], asked).ok();
        let start = prompt.as_ref().and_then(|prompt| text.starts_with(prompt).then_some(prompt.len()));
        let end = self.render(&messages[..=index], asked).ok();
        let end = end.and_then(|end| text.starts_with(&end).then_some(end.len().min(until)));
        if let (Some(start), Some(end)) = (start, end)
            && start <= end
        {
            return Some(start..ends.closing(text, &(start..end)).unwrap_or_else(|| ends.next(text, end)));
        }
        let Place { content, end } = self.place(messages, index, asked, text, ends)?;
        let start = match start.filter(|start| *start <= content.start) {
            Some(start) => start,
            None => prompt.map_or(content.start, |prompt| behind(&prompt, &text[..content.start])),
        };
        Some(start..end.unwrap_or_else(|| ends.next(text, content.end)).min(until))
    }

    /// A template may end a conversation with a token that it would not put between two turns: only what stays when a
    /// prompt follows belongs to the last message.
    fn end_of_last(&self, messages: &[Message], asked: &Asked, text: &str, ends: &Ends) -> usize {
        let longer = self.prompt(messages, asked).unwrap_or_else(|_| text.to_string());
        let same = common(text.chars(), longer.chars());
        let last = if same < text.len() { ends.last(text, &(0..same)) } else { None };
        last.filter(|last| ends.are_all(&text[*last..])).unwrap_or(text.len())
    }

    /// Where the message's content is: what changes when it says something else, while what follows it stays. First
    /// without its other fields, which leaves the place of all it says; a template may insist on them.
    fn place(&self, messages: &[Message], index: usize, asked: &Asked, text: &str, ends: &Ends) -> Option<Place> {
        let stranger = ('\u{e000}'..MARKS[0]).find(|one| !text.contains(*one))?;
        let words = stranger.to_string();
        let message = &messages[index];
        let bare = Message::new(&message.role(), words.as_str());
        [bare, message.saying(&words)].into_iter().find_map(|other| {
            let until = [&messages[..index], &[other]].concat();
            let whole = [&until, &messages[index + 1..]].concat();
            let whole = self.render(&whole, asked).ok().filter(|whole| whole.contains(stranger))?;
            let content = changed(text, &whole);
            let is_all = whole.len() - words.len() == text.len() - content.len();
            let until = self.render(&until, asked).unwrap_or_default();
            let tail = until.rsplit_once(stranger).map_or("", |(_, tail)| tail);
            let same = common(text[content.end..].chars(), tail.chars());
            let end = ends.last(text, &(content.end..content.end + same));
            let stays = !content.is_empty() && (end.is_some() || same == tail.len());
            (is_all || stays).then_some(Place { content, end })
        })
    }
}

/// The part of `text` that `other` has in another way.
fn changed(text: &str, other: &str) -> Range<usize> {
    let before = common(text.chars(), other.chars());
    let after = common(text[before..].chars().rev(), other[before..].chars().rev());
    before..text.len() - after
}

/// How many bytes two texts have in common at their beginnings.
fn common(first: impl Iterator<Item = char>, second: impl Iterator<Item = char>) -> usize {
    first.zip(second).take_while(|(one, other)| one == other).map(|(one, _)| one.len_utf8()).sum()
}

fn lost(index: usize) -> Error {
    let detail = format!(
        "the base model's chat template leaves out message {}, or hides where it stands, so it cannot be learned from; \
         leave that message out, or send prompt and completion instead of messages",
        index + 1
    );
    Error::invalid("chat_template_refused", detail)
}

/// Where in `head`, the text before a message's content, the prompt for it ends: white space that the prompt has not
/// is the assistant's.
fn behind(prompt: &str, head: &str) -> usize {
    let (told, shown) = (prompt.trim_end(), head.trim_end());
    let word = |text: &str| text.rsplit(char::is_whitespace).next().map(str::to_string);
    let space = &prompt[told.len()..];
    match head[shown.len()..].starts_with(space) && word(told) == word(shown) {
        true => shown.len() + space.len(),
        false => head.len(),
    }
}

/// Tokens that may end a turn, longest first.
struct Ends<'a>(Vec<&'a str>);

impl<'a> Ends<'a> {
    fn new(tokens: &'a [String]) -> Self {
        let mut tokens: Vec<&str> = tokens.iter().map(String::as_str).filter(|token| !token.is_empty()).collect();
        tokens.sort_by_key(|token| std::cmp::Reverse(token.len()));
        Self(tokens)
    }

    /// Behind the token at the turn's end, which white space may follow.
    fn closing(&self, text: &str, turn: &Range<usize>) -> Option<usize> {
        let said = text[turn.clone()].trim_end();
        self.0.iter().any(|token| said.ends_with(*token)).then_some(turn.start + said.len())
    }

    /// Behind the last token in the turn.
    fn last(&self, text: &str, turn: &Range<usize>) -> Option<usize> {
        let said = &text[turn.clone()];
        let behind = |token: &&str| said.rfind(*token).map(|at| turn.start + at + token.len());
        self.0.iter().filter_map(behind).max()
    }

    /// Whether there is nothing but tokens and white space.
    fn are_all(&self, text: &str) -> bool {
        let mut rest = text.trim_start();
        while let Some(behind) = self.0.iter().find_map(|token| rest.strip_prefix(*token)) {
            rest = behind.trim_start();
        }
        rest.is_empty()
    }

    /// Behind the token that comes next, or `end` where something else does.
    fn next(&self, text: &str, end: usize) -> usize {
        let rest = text[end..].trim_start();
        let token = self.0.iter().find(|token| rest.starts_with(**token));
        token.map_or(end, |token| text.len() - rest.len() + token.len())
    }
}
