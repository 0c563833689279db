//! The architectures that can be loaded: each one is a configuration and a layer.

pub mod bert;
pub mod distilbert;
pub mod esm;
pub mod gpt2;
pub mod llama;
pub mod modernbert;
pub mod mpnet;
mod post_norm;
pub mod roberta;
