//! The base model: architectures, weights, tokenizer and chat templates.

mod architecture;
mod architectures;
mod attention;
mod base_model;
mod base_model_info;
mod batch;
pub mod chat;
mod checkpoint;
mod classification_head;
mod embeddings;
mod generation_config;
mod gguf;
mod hooked_ops;
pub mod hooks;
pub mod hub;
mod layer_weights;
mod lm_head;
mod loader;
mod pooler;
mod pooling;
pub mod tokenizer;
mod tokens;
pub mod weights;

pub use architecture::SUPPORTED_MODEL_TYPES;
pub use base_model::BaseModel;
pub use base_model_info::BaseModelInfo;
pub use batch::Batch;
pub use classification_head::ClassificationHeadSpec;
pub use hooks::{FirstTrainableLayer, Hooks, Module, Site, SiteInfo, VirtualTokens};
pub use pooling::{Pooling, RequiredRows};
pub use tokenizer::Tokenizer;
pub use tokens::{CharSpan, MIN_SEQUENCE_LENGTH, MlmVocabulary, Tokens};
