//! The parts of PEFT's file format that a method's mapping is made of: configuration fields, rules for target modules, keys.
//!
//! Tasks, heads and folders are in `artifact::peft`.

pub mod mapping;
pub mod minimal_targets;
pub mod module_pattern;
pub mod naming;
pub mod prompt_learning;
pub mod target_selector;

pub use mapping::{ConfigFields, ExportContext, PeftFields, PeftMapping};
pub use naming::{KEY_PREFIX, ModuleNaming};
pub use prompt_learning::{PromptLearning, PromptLearningFields};
