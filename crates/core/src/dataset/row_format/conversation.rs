//! Rows of a conversation: `messages`, or a prompt and its completion that are messages or have a system message.

use super::messages::{messages_or_text, messages_value, parse_messages, parse_tools};
use super::{FileStats, RowFormat};
use crate::dataset::column_mapping::ColumnMapping;
use crate::dataset::diagnostics::{self, Diagnostic};
use crate::dataset::duplicates::DuplicateKey;
use crate::dataset::field_value::{FieldValue, wrong_type};
use crate::dataset::record::Record;
use crate::dataset::row::{UnusableRow, ValidRow};
use crate::model::chat::{ASSISTANT_ROLE, Json, Message, SYSTEM_ROLE, USER_ROLE};
use crate::task::{Conversation, Target};
use std::borrow::Cow;

pub(super) struct Messages;

impl RowFormat for Messages {
    fn read_row(&self, record: &Record<'_>, mapping: &ColumnMapping) -> Result<ValidRow, UnusableRow> {
        let value = record.required("messages", &mapping.target_column)?;
        let messages = with_system(record, mapping, messages_of(value)?)?;
        let tools = tools_of(record, mapping)?;
        let sources = [Some(value.source()), system_source(record, mapping)];
        Ok(conversation_row(Target::Conversation(Conversation { messages, tools }), &sources))
    }

    fn file_error(&self, _stats: &FileStats<'_>) -> Option<Diagnostic> {
        None
    }

    fn warns_about_single_labels(&self) -> bool {
        false
    }
}

fn messages_of(value: &FieldValue<'_>) -> Result<Vec<Message>, Diagnostic> {
    let list = value.as_structure().ok_or_else(|| {
        wrong_type(format!(
            "`messages` is {}, and has to be a list of messages, or the JSON text of one",
            value.type_name()
        ))
    })?;
    parse_messages(&list, "messages")
}

/// Text and label of a conversation whose last message is the label: the contents of the messages before it, except those of the system,
/// and its own.
pub(super) fn labelled_messages(record: &Record<'_>, mapping: &ColumnMapping) -> Result<(String, String), UnusableRow> {
    let value = record.required("messages", &mapping.target_column)?;
    let mut messages = messages_of(value)?;
    let text_of = |message: &Message| message.content().and_then(|content| content.as_str().map(str::to_string));
    let answer = messages.pop().filter(|message| message.role() == ASSISTANT_ROLE);
    let Some(label) = answer.as_ref().and_then(text_of) else {
        return Err(
            wrong_type("the last message has to be a text of the assistant: it is the label of the others").into()
        );
    };
    let texts = messages.iter().filter(|message| message.role() != SYSTEM_ROLE).filter_map(text_of);
    Ok((texts.collect::<Vec<_>>().join("\n"), label))
}

/// Row of a conversation; `sources` are its fields as they are written.
pub(super) fn conversation_row(target: Target, sources: &[Option<&str>]) -> ValidRow {
    ValidRow {
        duplicate_key: DuplicateKey::whole_row(sources),
        text: String::new(),
        text_pair: None,
        target,
        trimmed_fields: Vec::new(),
        warning: None,
    }
}

/// Conversation of a prompt and its completion, if either is messages or the row has a system message or tools. Only the completion is
/// learned.
pub(super) fn completion_conversation(
    record: &Record<'_>,
    mapping: &ColumnMapping,
    prompt: &FieldValue<'_>,
    completion: &FieldValue<'_>,
) -> Result<Option<ValidRow>, UnusableRow> {
    let tools = tools_of(record, mapping)?;
    let is_conversation = tools.is_some()
        || mapping.system.is_some()
        || messages_value(completion).is_some()
        || messages_value(prompt).is_some();
    if !is_conversation {
        return Ok(None);
    }
    let prompt_messages = with_system(record, mapping, prompt_messages(record, mapping, prompt)?)?;
    let answer = messages_or_text(completion, "completion", ASSISTANT_ROLE)?;
    if answer.iter().all(|message| message.role() != ASSISTANT_ROLE) {
        return Err(wrong_type("`completion` has no message of the assistant's").into());
    }
    if let (Some(text), None) = (answer[0].content(), messages_value(completion))
        && text.as_str().is_some_and(str::is_empty)
    {
        let message = "the completion is empty: fill it in, or leave the row out";
        return Err(Diagnostic::new(diagnostics::EMPTY_TEXT, message).into());
    }
    let prompt_messages = prompt_messages.into_iter().map(|message| message.with_field("weight", 0));
    let messages = prompt_messages.chain(answer).collect();
    let input = mapping.prompt_input.as_ref().and_then(|column| record.get(column)).map(FieldValue::source);
    let sources = [Some(prompt.source()), input, Some(completion.source()), system_source(record, mapping)];
    Ok(Some(conversation_row(Target::Conversation(Conversation { messages, tools }), &sources)))
}

/// Messages of a prompt; a text becomes a message of the user.
pub(super) fn prompt_messages(
    record: &Record<'_>,
    mapping: &ColumnMapping,
    prompt: &FieldValue<'_>,
) -> Result<Vec<Message>, Diagnostic> {
    match messages_value(prompt) {
        Some(messages) => parse_messages(&messages, "prompt"),
        None => Ok(vec![Message::new(USER_ROLE, prompt_text(record, mapping, prompt)?.into_owned())]),
    }
}

/// Prompt with its input, such as Alpaca's, after a blank line.
pub(super) fn prompt_text<'r>(
    record: &Record<'_>,
    mapping: &ColumnMapping,
    prompt: &'r FieldValue<'_>,
) -> Result<Cow<'r, str>, Diagnostic> {
    let text = prompt.as_text("prompt")?;
    let Some(column) = &mapping.prompt_input else { return Ok(text) };
    let input = record.get(column).map(|value| value.as_text(column)).transpose()?.unwrap_or_default();
    match input.trim().is_empty() {
        true => Ok(text),
        false => Ok(Cow::Owned(format!("{text}\n\n{input}"))),
    }
}

/// Messages after the row's system message.
///
/// # Errors
/// `wrong_type` for messages that have a system message of their own.
pub(super) fn with_system(
    record: &Record<'_>,
    mapping: &ColumnMapping,
    messages: Vec<Message>,
) -> Result<Vec<Message>, Diagnostic> {
    let Some(column) = &mapping.system else { return Ok(messages) };
    let system = record.get(column).map(|value| value.as_text(column)).transpose()?.unwrap_or_default();
    if system.trim().is_empty() {
        return Ok(messages);
    }
    if messages.first().is_some_and(|first| first.role() == SYSTEM_ROLE) {
        return Err(wrong_type(format!(
            "the messages begin with a system message, and `{column}` is another: keep one of them"
        )));
    }
    Ok(std::iter::once(Message::new(SYSTEM_ROLE, system.into_owned())).chain(messages).collect())
}

pub(super) fn system_source<'r>(record: &'r Record<'_>, mapping: &ColumnMapping) -> Option<&'r str> {
    record.get(mapping.system.as_ref()?).map(FieldValue::source)
}

pub(super) fn tools_of(record: &Record<'_>, mapping: &ColumnMapping) -> Result<Option<Json>, Diagnostic> {
    match &mapping.tools {
        Some(column) => parse_tools(column, record.get(column)),
        None => Ok(None),
    }
}
