//! Prompts that end inside the last message, which the model continues (transformers' `continue_final_message`).

use super::message::Message;
use super::template::{ChatTemplate, RenderOptions};
use crate::error::{Error, Result};

impl ChatTemplate {
    /// Renders a conversation up to the end of the content of its last message. An empty content is a generation prompt.
    ///
    /// # Errors
    /// `Invalid` (`chat_template_refused`) as for [`Self::render`], and if the content is not found in the text.
    pub(super) fn render_open_message(&self, messages: &[Message], options: &RenderOptions) -> Result<String> {
        let Some((last, earlier)) = messages.split_last() else { return self.render(messages, options) };
        let content = last.content().and_then(|content| content.as_str().map(str::to_string)).unwrap_or_default();
        let trimmed = content.trim();
        if trimmed.is_empty() {
            return self.render_generation_prompt(earlier, options);
        }
        let mut text = self.render(messages, options)?;
        let start = text.rfind(trimmed).ok_or_else(|| {
            let detail =
                "the base model's chat template changes the last message, so that it cannot be continued: leave it out";
            Error::invalid("chat_template_refused", detail)
        })?;
        // Some templates trim the content; its own white space is kept where they do not.
        let untrimmed = content.trim_start();
        let length = if text[start..].starts_with(untrimmed) { untrimmed.len() } else { trimmed.len() };
        text.truncate(start + length);
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::template::PromptEnd;
    use super::*;
    use std::collections::BTreeMap;

    fn prompt(content_expression: &str, content: &str) -> String {
        let source = format!(
            "{{% for m in messages %}}[{{{{ m.role }}}}]{{{{ {content_expression} }}}}[end]{{% endfor %}}\
             {{% if add_generation_prompt %}}[assistant]{{% endif %}}"
        );
        let messages = [Message::new("user", "Hi."), Message::new("assistant", content)];
        let options = RenderOptions { prompt_end: PromptEnd::LastMessage, ..RenderOptions::default() };
        ChatTemplate::new(&source, BTreeMap::new()).unwrap().render_prompt(&messages, &options).unwrap()
    }

    #[test]
    fn the_prompt_ends_where_the_last_content_does() {
        assert_eq!(prompt("m.content", "Hi."), "[user]Hi.[end][assistant]Hi.");
        assert_eq!(prompt("m.content", " One, "), "[user]Hi.[end][assistant] One, ");
        assert_eq!(prompt("m.content | trim", " One, "), "[user]Hi.[end][assistant]One,");
        assert_eq!(prompt("m.content", ""), "[user]Hi.[end][assistant]");
    }

    #[test]
    fn a_content_that_the_template_changes_is_refused() {
        let template = ChatTemplate::new("{{ messages[0].content | upper }}", BTreeMap::new()).unwrap();
        let options = RenderOptions { prompt_end: PromptEnd::LastMessage, ..RenderOptions::default() };
        let error = template.render_prompt(&[Message::new("assistant", "a")], &options).unwrap_err();
        assert_eq!(error.code(), "chat_template_refused");
    }
}
