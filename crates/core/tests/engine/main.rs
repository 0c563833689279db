//! Tests of the engine through its public interface, on tiny base models.

mod adapterhub;
mod architectures;
mod artifact;
mod chat_templates;
mod damaged;
mod dataset;
mod decoders;
mod dropout;
mod gguf;
mod golden;
mod gradients;
mod hub;
mod language;
mod peft_methods;
mod race;
mod recomputed;
mod training;
mod version_hashes;
mod warm_start;
