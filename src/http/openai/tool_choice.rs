//! The field `tool_choice`.

use super::request::unsupported_field;
use super::tool_definition::ToolDefinition;
use espalier_core::error::{Error, Result};
use serde_json::Value;

/// Which tools may be called, and whether one has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    None,
    Auto,
    Required,
    /// Exactly one call of this function.
    Function(String),
    Allowed {
        names: Vec<String>,
        is_call_required: bool,
    },
}

/// Reads the field: a word, `{"type": "function", …}` or `{"type": "allowed_tools", …}`. The members of the objects may be in an object
/// with the name of the type, as in chat completions, or beside it, as in responses.
///
/// # Errors
/// `Invalid` with a pointer to the field; `unsupported_field` for another type.
pub fn parse(choice: Option<&Value>, tools: &[ToolDefinition]) -> Result<ToolChoice> {
    let invalid = |field: &str, message: &str| Error::invalid_field(format!("/tool_choice{field}"), message);
    let choice = match choice {
        None | Some(Value::Null) => return Ok(ToolChoice::Auto),
        Some(Value::String(word)) => match word.as_str() {
            "none" => return Ok(ToolChoice::None),
            "auto" => return Ok(ToolChoice::Auto),
            // Mistral's word is "any".
            "required" | "any" if !tools.is_empty() => return Ok(ToolChoice::Required),
            "required" | "any" => return Err(invalid("", "a call is required, but there are no tools")),
            _ => return Err(invalid("", "must be \"none\", \"auto\", \"required\" or an object with a \"type\"")),
        },
        Some(object) => object,
    };
    match choice["type"].as_str() {
        Some("function") => {
            let name = named_tool(choice, tools).map_err(|(below, message)| invalid(below, &message))?;
            Ok(ToolChoice::Function(name))
        }
        Some("allowed_tools") => parse_allowed_tools(choice, tools),
        Some(other) => {
            Err(unsupported_field("/tool_choice/type", &format!("\"{other}\" is not supported: name a function")))
        }
        None => Err(invalid("/type", "must be \"function\" or \"allowed_tools\"")),
    }
}

fn parse_allowed_tools(choice: &Value, tools: &[ToolDefinition]) -> Result<ToolChoice> {
    let (allowed, pointer) = match choice.get("allowed_tools") {
        Some(allowed) => (allowed, "/tool_choice/allowed_tools"),
        None => (choice, "/tool_choice"),
    };
    let invalid = |field: &str, message: &str| Error::invalid_field(format!("{pointer}{field}"), message);
    let is_call_required = match allowed["mode"].as_str() {
        Some("auto") => false,
        Some("required") => true,
        _ => return Err(invalid("/mode", "must be \"auto\" or \"required\"")),
    };
    let listed = allowed["tools"].as_array().filter(|listed| !listed.is_empty());
    let listed = listed.ok_or_else(|| invalid("/tools", "must be a list of at least one function"))?;
    let name_at = |(index, tool)| {
        named_tool(tool, tools).map_err(|(below, error)| invalid(&format!("/tools/{index}{below}"), &error))
    };
    let names = listed.iter().enumerate().map(name_at).collect::<Result<_>>()?;
    Ok(ToolChoice::Allowed { names, is_call_required })
}

/// Name of the function of a choice; the error has the place below the choice.
fn named_tool(choice: &Value, tools: &[ToolDefinition]) -> std::result::Result<String, (&'static str, String)> {
    let (name, below) = match choice.get("function") {
        Some(function) => (&function["name"], "/function/name"),
        None => (&choice["name"], "/name"),
    };
    let name = name.as_str().ok_or_else(|| (below, "must be the name of a function".to_string()))?;
    match tools.iter().any(|tool| tool.name() == name) {
        true => Ok(name.to_string()),
        false => Err((below, format!("there is no tool \"{name}\""))),
    }
}
