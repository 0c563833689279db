//! Conversations as text: the base model's chat template, rendered as transformers' `apply_chat_template` renders it.

mod assistant_spans;
mod generation_tag;
mod jinja;
mod load;
mod message;
mod python;
mod template;

pub use assistant_spans::RenderedConversation;
pub(super) use load::token_text;
pub use load::{from_config, from_folder, from_gguf};
pub use message::{ASSISTANT_ROLE, Message};
pub use minijinja::Value as Json;
pub use template::{ChatTemplate, RenderOptions};
