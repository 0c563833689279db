//! Tests of the engine through its public interface, on tiny base models.

mod adapterhub;
mod architectures;
mod artifact;
mod candle_transformers;
mod chat_templates;
mod dataset;
mod decoders;
mod dropout;
mod gguf;
mod golden;
mod gradient_checkpointing;
mod gradients;
mod hub;
mod invalid_adapters;
mod language;
mod peft_methods;
mod published_adapters;
mod successive_halving;
mod training;
mod version_hashes;
mod warm_start;
