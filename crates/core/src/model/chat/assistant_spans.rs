//! Locates the assistant messages in a rendered conversation, for the loss mask. Works for any template, because it compares
//! renderings of parts of the conversation.

use super::jinja::{ASSISTANT_MARKERS, local_now};
use super::message::{ASSISTANT_ROLE, Message};
use super::template::{ChatTemplate, RenderOptions};
use crate::error::{Error, Result};
use std::ops::Range;

/// Text of a conversation, with the spans of its assistant messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedConversation {
    pub text: String,
    /// Byte ranges, ordered and without overlap, one for each assistant message: from the end of the generation prompt to the end
    /// of the token that ends the turn.
    pub assistant_spans: Vec<Range<usize>>,
}

/// Span of the content of an assistant message.
struct ContentSpan {
    content: Range<usize>,
    /// End of the token that ends the turn, if the template writes one after the content.
    turn_end: Option<usize>,
}

impl ChatTemplate {
    /// Renders a complete conversation and locates the assistant messages. `end_tokens` are the special tokens of the tokenizer:
    /// one that the template writes after a message ends the turn and belongs to its span.
    ///
    /// If `{% generation %}` tags enclose every assistant message (transformers' `assistant_masks`), they define the spans.
    ///
    /// # Errors
    /// `Invalid` (`chat_template_refused`) as [`Self::render`], and if an assistant message is not found in the text.
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
            (0..messages.len()).filter(|index| messages[*index].role() == ASSISTANT_ROLE).collect();
        let tagged_spans = self.tagged_spans(messages, options, &text)?;
        if let Some(tagged_spans) = tagged_spans.filter(|spans| spans.len() == assistant_indices.len()) {
            let with_end = |span: Range<usize>| span.start..end_tokens.turn_end(&text, &span);
            let assistant_spans = tagged_spans.into_iter().map(with_end).collect();
            return Ok(RenderedConversation { text, assistant_spans });
        }
        let mut assistant_spans: Vec<Range<usize>> = Vec::new();
        for index in assistant_indices {
            let previous_end = assistant_spans.last().map_or(0, |span| span.end);
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

    /// Bodies of the template's `{% generation %}` tags. `None` without tags, or if the markers change the text.
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
        spans.retain(|span| !span.is_empty());
        Ok((unmarked_text == text).then_some(spans))
    }

    /// Span of one assistant message: from the end of the prompt for it to the end of the conversation up to it. If these are not
    /// prefixes of the text, because the template renders earlier messages differently from the last one, the span is derived
    /// from the position of the content.
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
            return Some(start..end_tokens.turn_end(text, &(start..end)));
        }
        let ContentSpan { content, turn_end: end } = self.locate_content(messages, index, options, text, end_tokens)?;
        let start = match start.filter(|start| *start <= content.start) {
            Some(start) => start,
            None => rendered_prompt.map_or(content.start, |prompt| prompt_end_in(&prompt, &text[..content.start])),
        };
        Some(start..end.unwrap_or_else(|| end_tokens.following_token_end(text, content.end)).min(limit))
    }

    /// End of the last turn. A template may end a conversation with tokens that it does not write between turns; only tokens that
    /// remain when a generation prompt follows belong to the last message.
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

    /// Locates the content of a message by rendering the conversation with a placeholder in its place. The first attempt drops the
    /// other fields of the message, so that the span covers all that they render to; a template may require them, so the second
    /// keeps them.
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

/// Part of `text` that differs from `other`.
fn differing_range(text: &str, other: &str) -> Range<usize> {
    let prefix_length = common_length(text.chars(), other.chars());
    let suffix_length = common_length(text[prefix_length..].chars().rev(), other[prefix_length..].chars().rev());
    prefix_length..text.len() - suffix_length
}

/// Length in bytes of the common prefix of two texts.
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

/// End of the prompt in `text_before_content`. Whitespace that the prompt does not have belongs to the assistant message.
fn prompt_end_in(prompt: &str, text_before_content: &str) -> usize {
    let (trimmed_prompt, trimmed_text) = (prompt.trim_end(), text_before_content.trim_end());
    let last_word = |text: &str| text.rsplit(char::is_whitespace).next().map(str::to_string);
    let trailing_space = &prompt[trimmed_prompt.len()..];
    match text_before_content[trimmed_text.len()..].starts_with(trailing_space)
        && last_word(trimmed_prompt) == last_word(trimmed_text)
    {
        true => trimmed_text.len() + trailing_space.len(),
        false => text_before_content.len(),
    }
}

/// Tokens that can end a turn, longest first.
struct EndTokens<'a>(Vec<&'a str>);

impl<'a> EndTokens<'a> {
    fn new(tokens: &'a [String]) -> Self {
        let mut tokens: Vec<&str> = tokens.iter().map(String::as_str).filter(|token| !token.is_empty()).collect();
        tokens.sort_by_key(|token| std::cmp::Reverse(token.len()));
        Self(tokens)
    }

    /// End of the token that ends the turn at `span`, inside of the span or right after it; the end of the span if there is none.
    fn turn_end(&self, text: &str, span: &Range<usize>) -> usize {
        self.trailing_token_end(text, span).unwrap_or_else(|| self.following_token_end(text, span.end))
    }

    /// End of the token at the end of the span, before trailing whitespace.
    fn trailing_token_end(&self, text: &str, span: &Range<usize>) -> Option<usize> {
        let trimmed = text[span.clone()].trim_end();
        self.0.iter().any(|token| trimmed.ends_with(*token)).then_some(span.start + trimmed.len())
    }

    /// End of the last token in the span.
    fn last_token_end(&self, text: &str, span: &Range<usize>) -> Option<usize> {
        let spanned = &text[span.clone()];
        let token_end = |token: &&str| spanned.rfind(*token).map(|at| span.start + at + token.len());
        self.0.iter().filter_map(token_end).max()
    }

    /// Whether the text consists of these tokens and whitespace.
    fn contains_only_end_tokens(&self, text: &str) -> bool {
        let mut remainder = text.trim_start();
        while let Some(rest) = self.0.iter().find_map(|token| remainder.strip_prefix(*token)) {
            remainder = rest.trim_start();
        }
        remainder.is_empty()
    }

    /// End of the token that follows `end` after optional whitespace, or `end` if none does.
    fn following_token_end(&self, text: &str, end: usize) -> usize {
        let remainder = text[end..].trim_start();
        let following_token = self.0.iter().find(|token| remainder.starts_with(**token));
        following_token.map_or(end, |token| text.len() - remainder.len() + token.len())
    }
}
