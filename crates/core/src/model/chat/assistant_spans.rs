//! Which bytes of a rendered conversation the model would have to say itself.
//!
//! Asks the template itself, by rendering parts of the conversation; knows no family's marks.

use super::jinja::{ASSISTANT_MARKERS, local_now};
use super::message::Message;
use super::template::{ChatTemplate, RenderOptions};
use crate::error::{Error, Result};
use std::ops::Range;

/// A conversation as the model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedConversation {
    pub text: String,
    /// In the text's bytes and in order, without overlap, one for each message of the assistant: from behind the
    /// generation prompt through the token that ends it.
    pub assistant_spans: Vec<Range<usize>>,
}

/// Where the content of an assistant's message stands.
struct ContentSpan {
    content: Range<usize>,
    /// Behind the token that ends the turn, if it is among what the template puts behind the content.
    turn_end: Option<usize>,
}

impl ChatTemplate {
    /// A whole conversation and what of it the assistant says. `ends` are the tokenizer's control tokens: one of
    /// them, where the template puts it behind a message, ends the turn and belongs to it.
    ///
    /// Where the template marks each of them by `{% generation %}` (transformers' `assistant_masks`), those are the
    /// turns.
    ///
    /// # Errors
    /// `Invalid` (`chat_template_refused`) as [`Template::render`], and where an assistant's message cannot be found in
    /// the text.
    pub fn render_conversation(
        &self,
        messages: &[Message],
        options: &RenderOptions,
        end_tokens: &[String],
    ) -> Result<RenderedConversation> {
        let options = &RenderOptions { now: options.now.or_else(|| Some(local_now())), ..options.clone() };
        let text = self.render(messages, options)?;
        let end_tokens = EndTokens::new(end_tokens);
        let assistant_indices: Vec<usize> =
            (0..messages.len()).filter(|index| messages[*index].role() == "assistant").collect();
        let tagged_spans = self.tagged_spans(messages, options, &text)?;
        if let Some(tagged_spans) = tagged_spans.filter(|declared| declared.len() == assistant_indices.len()) {
            let span_end = |turn: &Range<usize>| {
                end_tokens
                    .trailing_token_end(&text, turn)
                    .unwrap_or_else(|| end_tokens.following_token_end(&text, turn.end))
            };
            let assistant_spans = tagged_spans.into_iter().map(|turn| turn.start..span_end(&turn)).collect();
            return Ok(RenderedConversation { text, assistant_spans });
        }
        let mut assistant_spans: Vec<Range<usize>> = Vec::new();
        for index in assistant_indices {
            let previous_end = assistant_spans.last().map_or(0, |turn| turn.end);
            let span = self
                .assistant_span(messages, index, options, &text, &end_tokens)
                .ok_or_else(|| message_not_rendered(index))?;
            let clamped_span = span.start.max(previous_end)..span.end;
            if clamped_span.is_empty() {
                return Err(message_not_rendered(index));
            }
            assistant_spans.push(clamped_span);
        }
        Ok(RenderedConversation { text, assistant_spans })
    }

    /// What the template's own tags enclose, where it has any and the text without their marks is the same.
    fn tagged_spans(
        &self,
        messages: &[Message],
        options: &RenderOptions,
        text: &str,
    ) -> Result<Option<Vec<Range<usize>>>> {
        let Some(marked_text) = self.render_with_markers(messages, options)? else { return Ok(None) };
        let [open, close] = ASSISTANT_MARKERS;
        let (mut unmarked_text, mut spans, mut span_start) = (String::with_capacity(text.len()), Vec::new(), None);
        for character in marked_text.chars() {
            match character {
                _ if character == open => span_start = Some(unmarked_text.len()),
                _ if character == close => spans.extend(span_start.take().map(|start| start..unmarked_text.len())),
                _ => unmarked_text.push(character),
            }
        }
        spans.retain(|turn| !turn.is_empty());
        Ok((unmarked_text == text).then_some(spans))
    }

    /// From where the prompt for this message ends to where the conversation up to it does. A template that writes
    /// earlier messages in another way than the last does not have these as beginnings of the text: the content
    /// tells, then.
    fn assistant_span(
        &self,
        messages: &[Message],
        index: usize,
        options: &RenderOptions,
        text: &str,
        end_tokens: &EndTokens,
    ) -> Option<Range<usize>> {
        let is_last = index + 1 == messages.len();
        let limit = if is_last { self.last_turn_limit(messages, options, text, end_tokens) } else { text.len() };
        let rendered_prompt = self.render_prompt(&messages[..index], options).ok();
        let start = rendered_prompt.as_ref().and_then(|prompt| text.starts_with(prompt).then_some(prompt.len()));
        let rendered_through = self.render(&messages[..=index], options).ok();
        let end_offset = rendered_through.and_then(|end| text.starts_with(&end).then_some(end.len().min(limit)));
        if let (Some(start), Some(end)) = (start, end_offset)
            && start <= end
        {
            return Some(
                start
                    ..end_tokens
                        .trailing_token_end(text, &(start..end))
                        .unwrap_or_else(|| end_tokens.following_token_end(text, end)),
            );
        }
        let ContentSpan { content, turn_end: end } = self.locate_content(messages, index, options, text, end_tokens)?;
        let start = match start.filter(|start| *start <= content.start) {
            Some(start) => start,
            None => rendered_prompt.map_or(content.start, |prompt| prompt_end_in(&prompt, &text[..content.start])),
        };
        Some(start..end.unwrap_or_else(|| end_tokens.following_token_end(text, content.end)).min(limit))
    }

    /// A template may end a conversation with a token that it would not put between two turns: only what stays when a
    /// prompt follows belongs to the last message.
    fn last_turn_limit(
        &self,
        messages: &[Message],
        options: &RenderOptions,
        text: &str,
        end_tokens: &EndTokens,
    ) -> usize {
        let rendered_prompt = self.render_prompt(messages, options).unwrap_or_else(|_| text.to_string());
        let common_length = common_length(text.chars(), rendered_prompt.chars());
        let last_token_end =
            if common_length < text.len() { end_tokens.last_token_end(text, &(0..common_length)) } else { None };
        last_token_end.filter(|last| end_tokens.contains_only_end_tokens(&text[*last..])).unwrap_or(text.len())
    }

    /// Where the message's content is: what changes when it says something else, while what follows it stays. First
    /// without its other fields, which leaves the place of all it says; a template may insist on them.
    fn locate_content(
        &self,
        messages: &[Message],
        index: usize,
        options: &RenderOptions,
        text: &str,
        end_tokens: &EndTokens,
    ) -> Option<ContentSpan> {
        let placeholder = ('\u{e000}'..ASSISTANT_MARKERS[0]).find(|one| !text.contains(*one))?;
        let placeholder_text = placeholder.to_string();
        let message = &messages[index];
        let placeholder_message = Message::new(&message.role(), placeholder_text.as_str());
        [placeholder_message, message.with_content(&placeholder_text)].into_iter().find_map(|other| {
            let messages_through = [&messages[..index], &[other]].concat();
            let replaced_messages = [&messages_through, &messages[index + 1..]].concat();
            let rendered_replacement =
                self.render(&replaced_messages, options).ok().filter(|whole| whole.contains(placeholder))?;
            let content_span = differing_range(text, &rendered_replacement);
            let replaces_only_content =
                rendered_replacement.len() - placeholder_text.len() == text.len() - content_span.len();
            let rendered_through = self.render(&messages_through, options).unwrap_or_default();
            let tail = rendered_through.rsplit_once(placeholder).map_or("", |(_, tail)| tail);
            let common_length = common_length(text[content_span.end..].chars(), tail.chars());
            let turn_end = end_tokens.last_token_end(text, &(content_span.end..content_span.end + common_length));
            let tail_is_unchanged = !content_span.is_empty() && (turn_end.is_some() || common_length == tail.len());
            (replaces_only_content || tail_is_unchanged).then_some(ContentSpan { content: content_span, turn_end })
        })
    }
}

/// The part of `text` that `other` has in another way.
fn differing_range(text: &str, other: &str) -> Range<usize> {
    let prefix_length = common_length(text.chars(), other.chars());
    let suffix_length = common_length(text[prefix_length..].chars().rev(), other[prefix_length..].chars().rev());
    prefix_length..text.len() - suffix_length
}

/// How many bytes two texts have in common at their beginnings.
fn common_length(first: impl Iterator<Item = char>, second: impl Iterator<Item = char>) -> usize {
    first.zip(second).take_while(|(one, other)| one == other).map(|(one, _)| one.len_utf8()).sum()
}

fn message_not_rendered(index: usize) -> Error {
    let detail = format!(
        "the base model's chat template leaves out message {}, or hides where it stands, so it cannot be learned from; \
         leave that message out, or send prompt and completion instead of messages",
        index + 1
    );
    Error::invalid("chat_template_refused", detail)
}

/// Where in `head`, the text before a message's content, the prompt for it ends: white space that the prompt has not
/// is the assistant's.
fn prompt_end_in(prompt: &str, text_before_content: &str) -> usize {
    let (trimmed_prompt, trimmed_head) = (prompt.trim_end(), text_before_content.trim_end());
    let last_word = |text: &str| text.rsplit(char::is_whitespace).next().map(str::to_string);
    let trailing_space = &prompt[trimmed_prompt.len()..];
    match text_before_content[trimmed_head.len()..].starts_with(trailing_space)
        && last_word(trimmed_prompt) == last_word(trimmed_head)
    {
        true => trimmed_head.len() + trailing_space.len(),
        false => text_before_content.len(),
    }
}

/// Tokens that may end a turn, longest first.
struct EndTokens<'a>(Vec<&'a str>);

impl<'a> EndTokens<'a> {
    fn new(tokens: &'a [String]) -> Self {
        let mut tokens: Vec<&str> = tokens.iter().map(String::as_str).filter(|token| !token.is_empty()).collect();
        tokens.sort_by_key(|token| std::cmp::Reverse(token.len()));
        Self(tokens)
    }

    /// Behind the token at the turn's end, which white space may follow.
    fn trailing_token_end(&self, text: &str, span: &Range<usize>) -> Option<usize> {
        let trimmed = text[span.clone()].trim_end();
        self.0.iter().any(|token| trimmed.ends_with(*token)).then_some(span.start + trimmed.len())
    }

    /// Behind the last token in the turn.
    fn last_token_end(&self, text: &str, span: &Range<usize>) -> Option<usize> {
        let spanned = &text[span.clone()];
        let token_end = |token: &&str| spanned.rfind(*token).map(|at| span.start + at + token.len());
        self.0.iter().filter_map(token_end).max()
    }

    /// Whether there is nothing but tokens and white space.
    fn contains_only_end_tokens(&self, text: &str) -> bool {
        let mut remainder = text.trim_start();
        while let Some(behind) = self.0.iter().find_map(|token| remainder.strip_prefix(*token)) {
            remainder = behind.trim_start();
        }
        remainder.is_empty()
    }

    /// Behind the token that comes next, or `end` where something else does.
    fn following_token_end(&self, text: &str, end: usize) -> usize {
        let remainder = text[end..].trim_start();
        let following_token = self.0.iter().find(|token| remainder.starts_with(**token));
        following_token.map_or(end, |token| text.len() - remainder.len() + token.len())
    }
}
