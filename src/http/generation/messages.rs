//! Messages of a request: checks of roles and contents, and the form in which training reads them.

use espalier_core::error::{Error, Result};
use espalier_core::model::BaseModel;
use espalier_core::model::chat::{
    ASSISTANT_ROLE, ChatTemplate, DEVELOPER_ROLE, Message, RenderOptions, SYSTEM_ROLE, TOOL_ROLE, USER_ROLE,
    tools_as_text,
};

/// OpenAI's name of [`TOOL_ROLE`] before there were tools.
const FUNCTION_ROLE: &str = "function";
const ROLES: [&str; 6] = [SYSTEM_ROLE, DEVELOPER_ROLE, USER_ROLE, ASSISTANT_ROLE, TOOL_ROLE, FUNCTION_ROLE];
/// Names of the reasoning before an answer.
const REASONING_FIELDS: [&str; 3] = ["reasoning_content", "reasoning", "thinking"];
/// Checks messages, joins the parts of their contents and parses the arguments of their calls. `pointer` is where they are.
///
/// # Errors
/// `Invalid` with a pointer to the field: an unknown role, a content that is missing or no text, calls that cannot be read.
pub fn prepare(base: &BaseModel, messages: Vec<Message>, pointer: &str) -> Result<Vec<Message>> {
    let template = base.tokenizer().chat_template().ok();
    let prepared = messages.into_iter().enumerate();
    prepared.map(|(index, message)| prepare_one(template, message, &format!("{pointer}/{index}"))).collect()
}

fn prepare_one(template: Option<&ChatTemplate>, message: Message, pointer: &str) -> Result<Message> {
    let invalid = |field: &str, reason: String| Error::invalid_field(format!("{pointer}/{field}"), reason);
    let role = message.role();
    let is_known = ROLES.contains(&role.as_str());
    if !is_known
        && template.is_some_and(|template| !template.names_role(&role) && !template.for_tools().names_role(&role))
    {
        let reason = format!(
            "the chat template does not support the role \"{role}\": use system, developer, user, assistant or tool"
        );
        return Err(invalid("role", reason));
    }
    if message.field("audio").is_some() {
        return Err(invalid("audio", "audio is not supported: send its transcript as content".to_string()));
    }
    let has_calls = message.field("tool_calls").is_some() || message.field("function_call").is_some();
    if has_calls && role != ASSISTANT_ROLE && is_known {
        return Err(invalid("tool_calls", "only an assistant's message has tool calls".to_string()));
    }
    let message = message
        .with_flattened_content()
        .map_err(|part| invalid("content", format!("a part of the type {part} is not supported: send text")))?;
    let message = message.with_tool_calls().map_err(|reason| invalid("tool_calls", reason))?;
    let message = match message.field("refusal") {
        Some(refusal) if message.content().is_none() => message.with_field("content", refusal),
        _ => message,
    };
    let has_reasoning = REASONING_FIELDS.iter().any(|field| message.field(field).is_some());
    if is_known && !has_calls && !has_reasoning && message.content().is_none() {
        return Err(invalid("content", "the content is missing: send a text, which may be empty".to_string()));
    }
    let message = message.without_field("refusal").without_field("prefix");
    Ok(match role.as_str() {
        FUNCTION_ROLE => message.with_field("role", TOOL_ROLE),
        _ => message,
    })
}

/// Writes the calls and results of earlier turns into contents, where the template has no place for them.
pub fn write_earlier_calls(template: &ChatTemplate, messages: Vec<Message>, options: &RenderOptions) -> Vec<Message> {
    let has_calls = messages.iter().any(|message| message.field("tool_calls").is_some());
    match has_calls && !template.select(options).renders_tool_calls() {
        true => tools_as_text::with_calls_in_contents(messages),
        false => messages,
    }
}
