//! Definitions of tools: the field `tools`.

use super::request::unsupported_field;
use super::tool_schema;
use crate::serving::generation::constraint_spec::ToolSpec;
use espalier_core::error::{Error, Result};
use espalier_core::model::chat::Json;
use serde_json::{Map, Value, json};

/// Limits of OpenAI's API.
const MAX_TOOLS: usize = 128;
const MAX_NAME_BYTES: usize = 64;

/// Function that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolDefinition {
    /// Name, and JSON schema of the arguments.
    pub spec: ToolSpec,
    /// JSON pointer to the function in the request.
    pub pointer: String,
    /// Whether the schema is enforced also where the model chooses to call.
    pub is_strict: bool,
    /// Fields of the function that the chat template renders.
    rendered: Map<String, Value>,
}

impl ToolDefinition {
    /// Reads a function with `name`, `description`, `parameters` and `strict`; `pointer` is where it is.
    ///
    /// # Errors
    /// `Invalid` with a pointer to the field.
    pub fn from_function(function: &Value, pointer: &str) -> Result<Self> {
        let invalid = |field: &str, message: &str| Error::invalid_field(format!("{pointer}{field}"), message);
        let Some(fields) = function.as_object() else { return Err(invalid("", "must be an object with a \"name\"")) };
        let name = fields.get("name").and_then(Value::as_str).unwrap_or_default();
        let is_name_character = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if !(1..=MAX_NAME_BYTES).contains(&name.len()) || !name.bytes().all(is_name_character) {
            return Err(invalid("/name", "must have 1 to 64 letters, digits, underscores, dots and dashes"));
        }
        if fields.get("description").is_some_and(|text| !text.is_string() && !text.is_null()) {
            return Err(invalid("/description", "must be a string"));
        }
        let is_strict = match fields.get("strict") {
            None | Some(Value::Null) => false,
            Some(strict) => strict.as_bool().ok_or_else(|| invalid("/strict", "must be true or false"))?,
        };
        let no_parameters = || json!({"type": "object", "properties": {}, "additionalProperties": false});
        let parameters =
            fields.get("parameters").filter(|value| !value.is_null()).cloned().unwrap_or_else(no_parameters);
        let is_object = parameters.get("type").is_none_or(|kind| kind == "object") && parameters.is_object();
        if !is_object {
            return Err(invalid("/parameters", "must be a JSON schema of the type object"));
        }
        if let Some((below, message)) = tool_schema::find_error(&parameters) {
            return Err(invalid(&format!("/parameters{below}"), &message));
        }
        let rendered = fields.iter().filter(|(name, value)| *name != "strict" && !value.is_null());
        let rendered = rendered.map(|(name, value)| (name.clone(), value.clone())).collect();
        let spec = ToolSpec { pointer: format!("{pointer}/parameters"), name: name.to_string(), parameters };
        Ok(Self { spec, pointer: pointer.to_string(), is_strict, rendered })
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The tool as chat templates render it.
    pub fn to_template_value(&self) -> Json {
        let tool = json!({"type": "function", "function": self.rendered});
        serde_json::from_value(tool).expect("every JSON value is a value of a template")
    }

    /// Grammar of its arguments where the model chooses to call: any object, unless it is strict.
    pub fn spec_of_optional_call(&self) -> ToolSpec {
        match self.is_strict {
            true => self.spec.clone(),
            false => ToolSpec { parameters: json!({"type": "object"}), ..self.spec.clone() },
        }
    }
}

/// Where the fields of a function are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolForm {
    /// In `function`, as in chat completions.
    Nested,
    /// Beside `type`, as in responses.
    Flat,
}

impl ToolForm {
    fn function(self, tool: &Value) -> Value {
        match (self, tool) {
            (Self::Flat, Value::Object(fields)) => fields
                .iter()
                .filter(|(name, _)| *name != "type")
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            _ => tool["function"].clone(),
        }
    }

    fn pointer(self, index: usize) -> String {
        match self {
            Self::Nested => format!("/tools/{index}/function"),
            Self::Flat => format!("/tools/{index}"),
        }
    }
}

/// Reads the field `tools`: objects of the type `function`.
///
/// # Errors
/// `Invalid` with a pointer to the field; `unsupported_field` for tools of other types.
pub fn parse(tools: &[Value], form: ToolForm) -> Result<Vec<ToolDefinition>> {
    let mut definitions: Vec<ToolDefinition> = Vec::with_capacity(tools.len());
    if tools.len() > MAX_TOOLS {
        return Err(Error::invalid_field("/tools", format!("at most {MAX_TOOLS} tools are allowed")));
    }
    for (index, tool) in tools.iter().enumerate() {
        match tool.get("type").map_or(Some("function"), Value::as_str) {
            Some("function") => {}
            Some(other) => {
                let advice = format!("\"{other}\" is not supported: only functions are");
                return Err(unsupported_field(&format!("/tools/{index}/type"), &advice));
            }
            None => return Err(Error::invalid_field(format!("/tools/{index}/type"), "must be \"function\"")),
        }
        definitions.push(ToolDefinition::from_function(&form.function(tool), &form.pointer(index))?);
    }
    check_names(&definitions, form)?;
    Ok(definitions)
}

fn check_names(definitions: &[ToolDefinition], form: ToolForm) -> Result<()> {
    for (index, definition) in definitions.iter().enumerate() {
        if definitions[..index].iter().any(|other| other.name() == definition.name()) {
            let message = format!("there is another tool with the name \"{}\"", definition.name());
            return Err(Error::invalid_field(format!("{}/name", form.pointer(index)), message));
        }
    }
    Ok(())
}
