//! The base model: architectures, weights, tokenizer and chat templates.

mod architectures;
mod attention;
mod base_model;
mod base_model_info;
pub mod chat;
mod checkpoint;
mod checkpoint_files;
mod classification_head;
mod config_checks;
mod cut_points;
mod embeddings;
mod generation_config;
mod gguf;
pub mod hooks;
pub mod hub;
mod layer_weights;
mod lm_head;
mod loader;
mod pooling;
mod safetensors_file;
mod site;
mod stack;
pub mod tokenizer;
mod tokens;
mod weights;

pub use architectures::SUPPORTED_MODEL_TYPES;
pub use base_model::BaseModel;
pub use base_model_info::BaseModelInfo;
pub use classification_head::ClassificationHeadSpec;
pub use hooks::{Hooks, VirtualTokens};
pub use pooling::{Pooling, RequiredRows};
pub use site::{FirstTrainableLayer, Module, Site, SiteInfo};
pub use tokenizer::{TextLimits, Tokenizer, VocabularyCount};
pub use tokens::{Batch, CharSpan, MIN_SEQUENCE_LENGTH, MlmVocabulary, Tokens};
