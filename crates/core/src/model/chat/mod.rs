//! Conversations as text: the base model's chat template, rendered as transformers' `apply_chat_template` renders it.

mod assistant_spans;
mod continuation;
mod generation_tag;
mod jinja;
mod load;
mod message;
mod python;
mod template;
pub mod tool_calls;
pub mod tools_as_text;

pub use assistant_spans::RenderedConversation;
pub(super) use load::token_text;
pub use load::{TemplateSources, from_config, from_folder, from_gguf};
pub use message::{ASSISTANT_ROLE, DEVELOPER_ROLE, Message, SYSTEM_ROLE, TOOL_ROLE, USER_ROLE};
pub use minijinja::Value as Json;
pub use template::{ChatTemplate, PromptEnd, RenderOptions};
