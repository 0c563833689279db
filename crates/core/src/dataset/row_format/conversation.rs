//! Rows of a conversation (`messages`), and parsing of messages and tools.

use super::{Cells, FileStats, RowFormat, needs_json};
use crate::dataset::column_mapping::ColumnMapping;
use crate::dataset::diagnostics::Diagnostic;
use crate::dataset::duplicates::DuplicateKey;
use crate::dataset::json_fields::{JsonObject, wrong_type};
use crate::dataset::row::{RowErrors, ValidRow};
use crate::model::chat::{Json, Message};
use crate::task::{Conversation, Target};
use serde_json::value::RawValue;

const MESSAGE_EXAMPLE: &str = "{\"role\": \"user\", \"content\": \"…\"}";

/// Largest number of messages of a conversation.
const MAX_MESSAGES: usize = 256;

pub(super) struct Messages;

impl RowFormat for Messages {
    fn read_cells(&self, _cells: Cells<'_>) -> Result<ValidRow, RowErrors> {
        Err(needs_json("messages"))
    }

    fn read_object(&self, object: &JsonObject<'_>, mapping: &ColumnMapping) -> Result<ValidRow, RowErrors> {
        let raw_messages = object.required("messages", &mapping.target_column)?;
        let messages = parse_messages(raw_messages, "messages")?;
        let tools = parse_tools(object.get("tools"))?;
        Ok(ValidRow {
            duplicate_key: DuplicateKey::whole_row(&[Some(raw_messages.get())]),
            text: String::new(),
            text_pair: None,
            target: Target::Conversation(Conversation { messages, tools }),
            trimmed_fields: Vec::new(),
            warning: None,
        })
    }

    fn file_error(&self, _stats: &FileStats<'_>) -> Option<Diagnostic> {
        None
    }

    fn warns_about_single_labels(&self) -> bool {
        false
    }
}

pub(super) fn parse_tools(tools: Option<&RawValue>) -> Result<Option<Json>, Diagnostic> {
    let parse = |tools: &RawValue| match tools.get().starts_with('[') {
        true => {
            serde_json::from_str(tools.get()).map_err(|error| wrong_type(format!("`tools` cannot be read: {error}")))
        }
        false => Err(wrong_type("`tools` has to be a list of tools")),
    };
    tools.map(parse).transpose()
}

/// Parses a list of messages; content that is a list of text parts becomes one text.
pub(super) fn parse_messages(messages: &RawValue, field: &str) -> Result<Vec<Message>, Diagnostic> {
    let raw_messages: Vec<&RawValue> = serde_json::from_str(messages.get())
        .map_err(|_| wrong_type(format!("`{field}` has to be a list of objects like {MESSAGE_EXAMPLE}")))?;
    if raw_messages.len() > MAX_MESSAGES {
        return Err(wrong_type(format!(
            "there are {} messages, and {MAX_MESSAGES} are read at most: shorten it",
            raw_messages.len()
        )));
    }
    raw_messages.into_iter().zip(1..).map(|(message, number)| parse_message(message, number)).collect()
}

fn parse_message(message: &RawValue, number: usize) -> Result<Message, Diagnostic> {
    let parsed: Message = serde_json::from_str(message.get()).map_err(|error| {
        wrong_type(format!("message {number} has to be an object like {MESSAGE_EXAMPLE} ({error})"))
    })?;
    let flattened = parsed
        .with_flattened_content()
        .map_err(|part| wrong_type(format!("message {number} has a part of the type {part}: only text is read")))?;
    let is_valid_weight = |weight: f64| weight == 0.0 || weight == 1.0;
    match flattened.field("weight") {
        Some(weight) if !f64::try_from(weight.clone()).is_ok_and(is_valid_weight) => {
            Err(wrong_type(format!("the `weight` of message {number} has to be 0 or 1")))
        }
        _ => Ok(flattened),
    }
}
