//! GGUF checkpoints: config, tokenizer and tensors in the form of a transformers checkpoint.

mod file;
mod hf_config;
mod repack;
mod tensors;
mod tokenizer;

pub use file::GgufFile;
pub use hf_config::read_hf_config;
pub use tensors::read_weights;
pub use tokenizer::read_tokenizer_json;
