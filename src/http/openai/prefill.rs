//! Where the prompt of a chat ends: vLLM's `continue_final_message` and `add_generation_prompt`, and `prefix` of the last message, as
//! Mistral's and DeepSeek's APIs have it.

use espalier_core::error::{Error, Result};
use espalier_core::model::chat::{ASSISTANT_ROLE, Message, PromptEnd};

/// # Errors
/// `Invalid` with a pointer to a field that contradicts another, or that the messages do not allow.
pub fn prompt_end(
    messages: &[Message],
    continue_final_message: Option<bool>,
    add_generation_prompt: Option<bool>,
) -> Result<PromptEnd> {
    let invalid = |pointer: &str, message: &str| Err(Error::invalid_field(pointer, message));
    let is_prefix = has_prefix(messages)?;
    if is_prefix && continue_final_message == Some(false) {
        return invalid("/continue_final_message", "is false, but the last message has \"prefix\": true");
    }
    if !is_prefix && continue_final_message != Some(true) {
        let has_generation_prompt = add_generation_prompt != Some(false);
        return Ok(if has_generation_prompt { PromptEnd::GenerationPrompt } else { PromptEnd::Conversation });
    }
    if add_generation_prompt == Some(true) {
        return invalid("/add_generation_prompt", "is true, but the last message is continued: leave it out");
    }
    let can_continue = |last: &Message| last.role() == ASSISTANT_ROLE && last.field("tool_calls").is_none();
    match messages.last().is_some_and(can_continue) {
        true => Ok(PromptEnd::LastMessage),
        false if is_prefix => invalid(
            &format!("/messages/{}/prefix", messages.len().saturating_sub(1)),
            "a message with tool calls cannot be continued",
        ),
        false => invalid("/continue_final_message", "the last message must be an assistant message without tool calls"),
    }
}

/// Whether the last message has `prefix`.
fn has_prefix(messages: &[Message]) -> Result<bool> {
    let mut is_prefix = false;
    for (index, message) in messages.iter().enumerate() {
        let Some(prefix) = message.field("prefix") else { continue };
        let invalid = |reason: &str| Err(Error::invalid_field(format!("/messages/{index}/prefix"), reason));
        match bool::try_from(prefix) {
            Ok(false) => {}
            Ok(true) if index + 1 == messages.len() && message.role() == ASSISTANT_ROLE => is_prefix = true,
            Ok(true) => return invalid("only the last message can be a prefix, if it is the assistant's"),
            Err(_) => return invalid("must be true or false"),
        }
    }
    Ok(is_prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(messages: &str, continues: Option<bool>, generation_prompt: Option<bool>) -> Result<PromptEnd> {
        prompt_end(&serde_json::from_str::<Vec<Message>>(messages).unwrap(), continues, generation_prompt)
    }

    const ANSWER: &str = r#"[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]"#;
    const PREFIX: &str = r#"[{"role": "assistant", "content": "b", "prefix": true}]"#;

    #[test]
    fn the_end_is_what_the_fields_say() {
        for (messages, continues, generation_prompt, expected) in [
            (ANSWER, None, None, PromptEnd::GenerationPrompt),
            (ANSWER, Some(false), Some(true), PromptEnd::GenerationPrompt),
            (ANSWER, None, Some(false), PromptEnd::Conversation),
            (ANSWER, Some(true), Some(false), PromptEnd::LastMessage),
            (ANSWER, Some(true), None, PromptEnd::LastMessage),
            (PREFIX, None, None, PromptEnd::LastMessage),
            (PREFIX, Some(true), Some(false), PromptEnd::LastMessage),
        ] {
            assert_eq!(end(messages, continues, generation_prompt).unwrap(), expected, "{messages} {continues:?}");
        }
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        let first = r#"[{"role": "assistant", "content": "b", "prefix": true}, {"role": "user", "content": "a"}]"#;
        let user = r#"[{"role": "user", "content": "a"}]"#;
        let call = r#"[{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]"#;
        for (messages, continues, generation_prompt, field) in [
            (ANSWER, Some(true), Some(true), "add_generation_prompt"),
            (PREFIX, None, Some(true), "add_generation_prompt"),
            (PREFIX, Some(false), None, "continue_final_message"),
            (user, Some(true), None, "continue_final_message"),
            (call, Some(true), None, "continue_final_message"),
            (first, None, None, "messages[0].prefix"),
            (r#"[{"role": "assistant", "content": "b", "prefix": "yes"}]"#, None, None, "messages[0].prefix"),
        ] {
            let error = end(messages, continues, generation_prompt).unwrap_err().to_string();
            assert!(error.starts_with(field), "{messages}: {error}");
        }
    }
}
