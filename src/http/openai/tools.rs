//! Tools that an answer may call, and what that means for the prompt, the constraint and the reading of the answer.

use super::request::unsupported_field;
use super::tool_choice::{self, ToolChoice};
use super::tool_definition::ToolDefinition;
use crate::http::generation::messages;
use crate::serving::generation::constraint_spec::{CallCount, ConstraintSpec, OtherText, ToolCallsSpec};
use crate::serving::generation::tool_call_parser::{Arguments, ToolCallParser};
use espalier_core::error::Result;
use espalier_core::model::BaseModel;
use espalier_core::model::chat::tool_calls::{HERMES, ToolCallSyntax};
use espalier_core::model::chat::{ChatTemplate, Json, Message, RenderOptions, tools_as_text};
use serde_json::Value;

/// Tools that may be called.
#[derive(Debug, Clone, PartialEq)]
pub struct CallableTools {
    definitions: Vec<ToolDefinition>,
    is_call_required: bool,
    count: CallCount,
}

/// How answers are constrained and read.
pub struct ToolOutput {
    pub constraint: Option<ConstraintSpec>,
    /// `None` if calls stay in the text.
    pub parser: Option<ToolCallParser>,
    pub syntax: &'static ToolCallSyntax,
}

impl ToolOutput {
    /// Markers of calls, which have to be a part of the text if they are special tokens.
    pub fn shown_special_tokens(&self) -> Vec<&'static str> {
        self.parser.iter().flat_map(|_| self.syntax.markers()).collect()
    }
}

/// Conversation with the tools that may be called in its answer.
pub struct ChatPrompt {
    pub messages: Vec<Message>,
    pub template_options: RenderOptions,
    pub tools: Option<CallableTools>,
    /// Response format of an answer that is no call.
    pub format: Option<ConstraintSpec>,
}

/// Conversation as the chat template renders it, and how its answer is constrained and read.
pub struct PreparedChat {
    pub messages: Vec<Message>,
    pub template_options: RenderOptions,
    pub output: ToolOutput,
}

impl ChatPrompt {
    /// Adds the tools, and writes the calls of earlier turns into contents where the template has no place for them.
    ///
    /// # Errors
    /// `Invalid`: `no_chat_template` or `bad_chat_template` of the base, `unsupported_field` for tools that it has no place for.
    pub fn prepare(self, base: &BaseModel) -> Result<PreparedChat> {
        let Self { messages, mut template_options, tools, format } = self;
        let template = base.tokenizer().chat_template()?;
        let messages = match &tools {
            Some(tools) => tools.add_to_prompt(template, messages, &mut template_options)?,
            None => messages,
        };
        let messages = messages::write_earlier_calls(template, messages, &template_options);
        let output = match tools {
            Some(tools) => tools.into_output(template, format)?,
            None => ToolOutput { constraint: format, parser: None, syntax: &HERMES },
        };
        Ok(PreparedChat { messages, template_options, output })
    }
}

impl CallableTools {
    /// Selects the tools that `tool_choice` allows. `None` if there are none, or none may be called.
    ///
    /// # Errors
    /// `Invalid` (`invalid_body`) if the choice names a tool that there is not, or requires a call without tools.
    pub fn select(
        mut definitions: Vec<ToolDefinition>,
        choice: Option<&Value>,
        parallel_tool_calls: Option<bool>,
    ) -> Result<Option<Self>> {
        let choice = tool_choice::parse(choice, &definitions)?;
        if definitions.is_empty() || choice == ToolChoice::None {
            return Ok(None);
        }
        let is_call_required = match choice {
            ToolChoice::None | ToolChoice::Auto => false,
            ToolChoice::Required => true,
            ToolChoice::Function(name) => {
                definitions.retain(|definition| definition.name() == name);
                true
            }
            ToolChoice::Allowed { names, is_call_required } => {
                definitions.retain(|definition| names.iter().any(|name| name == definition.name()));
                is_call_required
            }
        };
        let count = match (parallel_tool_calls, is_call_required) {
            (Some(false), _) => CallCount::AtMost(1),
            // A weak model would repeat calls until the end.
            (_, true) => CallCount::AtMost(definitions.len()),
            (_, false) => CallCount::Many,
        };
        Ok(Some(Self { definitions, is_call_required, count }))
    }

    pub fn is_call_required(&self) -> bool {
        self.is_call_required
    }

    /// Adds the tools to a prompt: to the options of a template that renders them, else, for a required call, to the system message.
    ///
    /// # Errors
    /// `unsupported_field` if the template has no place for tools and the model may choose.
    fn add_to_prompt(
        &self,
        template: &ChatTemplate,
        messages: Vec<Message>,
        options: &mut RenderOptions,
    ) -> Result<Vec<Message>> {
        let tools: Vec<Json> = self.definitions.iter().map(ToolDefinition::to_template_value).collect();
        if template.for_tools().renders_tools() {
            options.tools = Some(Json::from(tools));
            return Ok(messages);
        }
        if !self.is_call_required {
            let advice = "the base's chat template has no place for tools: require a call with \"tool_choice\", leave them out, or \
                          use a base with such a template";
            return Err(unsupported_field("/tools", advice));
        }
        Ok(tools_as_text::with_tools_in_system_message(messages, &tools))
    }

    /// Constraint and parser of the answers. `format` is the response format, which an answer has that is no call.
    ///
    /// # Errors
    /// `unsupported_field` for a strict tool where the template's syntax of calls is unknown.
    fn into_output(self, template: &ChatTemplate, format: Option<ConstraintSpec>) -> Result<ToolOutput> {
        let known_syntax = template.for_tools().tool_call_syntax();
        let syntax = known_syntax.unwrap_or(&HERMES);
        let strict = self.definitions.iter().find(|definition| definition.is_strict);
        if known_syntax.is_none() && !self.is_call_required {
            if let Some(definition) = strict {
                let field = format!("{}/strict", definition.pointer);
                let advice = "the base writes calls in a syntax that is not known: require a call with \"tool_choice\"";
                return Err(unsupported_field(&field, advice));
            }
            return Ok(ToolOutput { constraint: format, parser: None, syntax });
        }
        let is_constrained =
            self.is_call_required || strict.is_some() || format.is_some() || self.count != CallCount::Many;
        let names = self.definitions.iter().map(|definition| definition.name().to_string()).collect();
        let arguments = if is_constrained { Arguments::Constrained } else { Arguments::Unconstrained };
        let constraint = is_constrained.then(|| self.constraint(syntax, format));
        Ok(ToolOutput { constraint, parser: Some(ToolCallParser::new(syntax, names, arguments)), syntax })
    }

    fn constraint(self, syntax: &'static ToolCallSyntax, format: Option<ConstraintSpec>) -> ConstraintSpec {
        let (tools, other_text) = match (self.is_call_required, format) {
            (true, _) => {
                (self.definitions.into_iter().map(|definition| definition.spec).collect(), OtherText::Forbidden)
            }
            (false, format) => (
                self.definitions.iter().map(ToolDefinition::spec_of_optional_call).collect(),
                format.map_or(OtherText::Free, OtherText::Format),
            ),
        };
        ConstraintSpec::ToolCalls(Box::new(ToolCallsSpec { syntax, tools, count: self.count, other_text }))
    }
}

#[cfg(test)]
mod tests;
