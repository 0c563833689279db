//! Chat template: from messages to the text of a conversation or of a generation prompt.

use super::message::{DEVELOPER_ROLE, Message, SYSTEM_ROLE};
use super::tool_calls::ToolCallSyntax;
use super::{generation_tag, jinja};
use crate::error::{Error, Result};
use chrono::{NaiveDate, NaiveDateTime};
use minijinja::{Environment, Value as Json};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// A parsed chat template. Clones share it.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    source: Arc<str>,
    /// Words of the source.
    words: Arc<HashSet<Box<str>>>,
    /// Texts of special tokens by variable name: `bos_token`, `eos_token`, ….
    special_tokens: Arc<BTreeMap<String, String>>,
    /// Whether `{% generation %}` tags enclose the assistant messages.
    has_generation_tags: bool,
    uses_strftime_now: bool,
    /// Template of conversations with tools, if the checkpoint has one of its own.
    tool_use: Option<Arc<ChatTemplate>>,
}

/// Optional variables of a template, and where a prompt ends.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RenderOptions {
    /// Tools of the model: a list of JSON schemas.
    pub tools: Option<Json>,
    /// Documents for retrieval-augmented generation, each with `title` and `text`.
    pub documents: Option<Json>,
    /// Further variables, such as `enable_thinking`. They override special tokens of the same name.
    pub variables: BTreeMap<String, Json>,
    /// Time of the template's `strftime_now`; by default the local time.
    pub now: Option<NaiveDateTime>,
    pub prompt_end: PromptEnd,
}

/// What a prompt ends with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PromptEnd {
    /// The beginning of an assistant's message.
    #[default]
    GenerationPrompt,
    /// The end of the last message.
    Conversation,
    /// The content of the last message, which the model continues.
    LastMessage,
}

impl RenderOptions {
    /// Options under which the same conversation always renders to the same text.
    pub fn with_fixed_time() -> Self {
        Self { now: NaiveDate::from_ymd_opt(2024, 7, 26).map(NaiveDateTime::from), ..Self::default() }
    }
}

/// Whether the text ends with a generation prompt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RenderMode {
    Conversation,
    GenerationPrompt,
}

/// Names and other words of a template's source.
fn words_of(source: &str) -> HashSet<Box<str>> {
    let is_delimiter = |character: char| !character.is_alphanumeric() && character != '_';
    source.split(is_delimiter).map(Box::from).collect()
}

impl ChatTemplate {
    /// Parses a template. `special_tokens` has the texts of special tokens by variable name.
    ///
    /// # Errors
    /// `Invalid` (`bad_chat_template`) if it does not parse.
    pub fn new(source: &str, special_tokens: BTreeMap<String, String>) -> Result<Self> {
        let uses_strftime_now = source.contains("strftime_now");
        let (rewritten_source, has_generation_tags) = generation_tag::rewrite_generation_tags(source);
        let environment = jinja::build_environment(rewritten_source).map_err(|error| invalid_template(&error))?;
        let words = Arc::new(words_of(source));
        let (environment, source, special_tokens) = (Arc::new(environment), source.into(), Arc::new(special_tokens));
        Ok(Self { environment, source, words, special_tokens, has_generation_tags, uses_strftime_now, tool_use: None })
    }

    /// Adds the template of conversations with tools.
    pub fn with_tool_use(self, tool_use: Self) -> Self {
        Self { tool_use: Some(Arc::new(tool_use)), ..self }
    }

    /// The template that renders conversations with these options.
    pub fn select(&self, options: &RenderOptions) -> &Self {
        self.tool_use.as_deref().filter(|_| options.tools.is_some()).unwrap_or(self)
    }

    /// The template that renders conversations with tools.
    pub fn for_tools(&self) -> &Self {
        self.tool_use.as_deref().unwrap_or(self)
    }

    /// Source of the template.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the source, or that of the template of conversations with tools, has this word, so that it may read a field or a
    /// variable of this name.
    pub fn has_word(&self, word: &str) -> bool {
        self.words.contains(word) || self.for_tools().words.contains(word)
    }

    /// Text of a special token by its name in the template, such as `bos_token`.
    pub fn special_token(&self, name: &str) -> Option<&str> {
        self.special_tokens.get(name).map(String::as_str)
    }

    /// Whether the source has a place for tools.
    pub fn renders_tools(&self) -> bool {
        self.source.contains("tools")
    }

    /// Whether the source has a place for the assistant's calls of tools.
    pub fn renders_tool_calls(&self) -> bool {
        self.source.contains("tool_calls")
    }

    /// How the model writes calls of tools; `None` if the source has no place for them, or writes them in an unknown syntax.
    pub fn tool_call_syntax(&self) -> Option<&'static ToolCallSyntax> {
        ToolCallSyntax::detect(&self.source)
    }

    /// Whether the source names this role.
    pub fn names_role(&self, role: &str) -> bool {
        ['\'', '"'].into_iter().any(|quote| self.source.contains(&format!("{quote}{role}{quote}")))
    }

    /// Renders a complete conversation, for training.
    ///
    /// # Errors
    /// `Invalid` (`chat_template_refused`) with the message of the template's exception or of minijinja.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String> {
        let selected = self.select(options);
        selected.render_in(&selected.environment, messages, options, RenderMode::Conversation)
    }

    /// Renders a conversation for generation, with the end that the options name.
    ///
    /// # Errors
    /// `Invalid` (`chat_template_refused`) with the message of the template's exception or of minijinja, or if the content of the
    /// last message is not found in the text.
    pub fn render_prompt(&self, messages: &[Message], options: &RenderOptions) -> Result<String> {
        match options.prompt_end {
            PromptEnd::GenerationPrompt => self.render_generation_prompt(messages, options),
            PromptEnd::Conversation => self.render(messages, options),
            PromptEnd::LastMessage => self.render_open_message(messages, options),
        }
    }

    pub(super) fn render_generation_prompt(&self, messages: &[Message], options: &RenderOptions) -> Result<String> {
        let selected = self.select(options);
        selected.render_in(&selected.environment, messages, options, RenderMode::GenerationPrompt)
    }

    /// Renders like [`Self::render`], with [`jinja::ASSISTANT_MARKERS`] around the bodies of `{% generation %}` tags; `None`
    /// if the template has none.
    pub(super) fn render_with_markers(&self, messages: &[Message], options: &RenderOptions) -> Result<Option<String>> {
        let selected = self.select(options);
        if !selected.has_generation_tags {
            return Ok(None);
        }
        let environment = jinja::with_assistant_markers(Environment::clone(&selected.environment));
        selected.render_in(&environment, messages, options, RenderMode::Conversation).map(Some)
    }

    /// Renders with parsed arguments of tool calls, else with arguments that are texts: templates expect one or the other.
    fn render_in(
        &self,
        environment: &Environment<'static>,
        messages: &[Message],
        options: &RenderOptions,
        mode: RenderMode,
    ) -> Result<String> {
        let rendered = self.render_messages(environment, messages, options, mode);
        let has_tool_calls = || messages.iter().any(|message| message.field("tool_calls").is_some());
        match rendered {
            Err(error) if has_tool_calls() => {
                let messages: Vec<Message> = messages.iter().map(Message::with_argument_texts).collect();
                self.render_messages(environment, &messages, options, mode).map_err(|_| error)
            }
            rendered => rendered,
        }
    }

    /// The message, whose role is `system` for a `developer` where the template does not name that role.
    fn with_known_role<'a>(&self, message: &'a Message) -> Cow<'a, Message> {
        match message.role() == DEVELOPER_ROLE && !self.names_role(DEVELOPER_ROLE) {
            true => Cow::Owned(message.with_field("role", SYSTEM_ROLE)),
            false => Cow::Borrowed(message),
        }
    }

    fn render_messages(
        &self,
        environment: &Environment<'static>,
        messages: &[Message],
        options: &RenderOptions,
        mode: RenderMode,
    ) -> Result<String> {
        if messages.is_empty() {
            return Err(template_refused("it needs at least one message"));
        }
        let fixed_time_environment =
            options.now.filter(|_| self.uses_strftime_now).map(|now| jinja::with_fixed_time(environment.clone(), now));
        let environment = fixed_time_environment.as_ref().unwrap_or(environment);
        let template = environment.get_template(jinja::TEMPLATE_NAME).map_err(Error::internal)?;
        let value_or_none = |list: &Option<Json>| list.clone().unwrap_or_else(|| Json::from(()));
        let reserved_variables = [
            ("messages", messages.iter().map(|message| self.with_known_role(message).to_template_value()).collect()),
            ("tools", value_or_none(&options.tools)),
            ("documents", value_or_none(&options.documents)),
            ("add_generation_prompt", Json::from(mode == RenderMode::GenerationPrompt)),
        ];
        let special_tokens =
            self.special_tokens.iter().map(|(name, token)| (name.as_str(), Json::from(token.as_str())));
        let variables = options.variables.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let context = Json::from_pairs(special_tokens.chain(variables).chain(reserved_variables));
        template
            .render(context)
            .map_err(|error| template_refused(jinja::exception_message(&error).unwrap_or(&error.to_string())))
    }
}

fn template_refused(reason: &str) -> Error {
    let detail = format!("the base model's chat template does not take this conversation: {reason}");
    Error::invalid("chat_template_refused", detail)
}

fn invalid_template(error: &minijinja::Error) -> Error {
    Error::invalid("bad_chat_template", format!("the base model's chat template cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new(source, BTreeMap::new()).unwrap()
    }

    #[test]
    fn a_template_of_its_own_renders_conversations_with_tools() {
        let both = template("plain").with_tool_use(template("{{ tools | length }} tools"));
        let messages = [Message::new("user", "a")];
        let with_tools = RenderOptions { tools: Some(Json::from(vec!["f"])), ..RenderOptions::default() };
        assert_eq!(both.render_prompt(&messages, &RenderOptions::default()).unwrap(), "plain");
        assert_eq!(both.render_prompt(&messages, &with_tools).unwrap(), "1 tools");
        assert!(both.for_tools().renders_tools() && !both.renders_tools());
    }

    #[test]
    fn a_developer_is_the_system_where_the_template_does_not_name_it() {
        let messages = ["developer", "user"].map(|role| Message::new(role, "a"));
        let roles = "{% for m in messages %}{{ m['role'] }} {% endfor %}";
        let render = |source: &str| template(source).render(&messages, &RenderOptions::default()).unwrap();
        assert_eq!(render(roles), "system user ");
        assert_eq!(render(&format!("{roles}{{{{ 'developer' }}}}")), "developer user developer");
    }

    #[test]
    fn arguments_are_passed_in_the_form_that_the_template_takes() {
        let json = r#"{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}"#;
        let messages = [serde_json::from_str::<Message>(json).unwrap()];
        let arguments = "messages[0].tool_calls[0].function.arguments";
        for (source, rendered) in [
            (format!("{{{{ {arguments} | tojson }}}}"), "{\"x\": 1}"),
            (format!("{{{{ '<' + {arguments} + '>' }}}}"), "<{\"x\":1}>"),
        ] {
            let template = ChatTemplate::new(&source, BTreeMap::new()).unwrap();
            assert_eq!(template.render(&messages, &RenderOptions::default()).unwrap(), rendered);
            assert!(template.renders_tool_calls() && !template.renders_tools());
        }
    }
}
