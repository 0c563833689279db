//! Adapter methods: the trainable parameters of each method, and the hooks through which they change the frozen base model.
//!
//! A method is a folder: its configuration with defaults and validation ([`Method::resolve`]), its parameters and hooks
//! ([`Method::build`]), and the mapping to files of PEFT or AdapterHub. To add one, write the folder, add a row to `methods!` in
//! `methods.rs` and, if PEFT has the method, a row to `peft_methods!` in `peft_methods.rs`.

pub mod bias;
pub mod bottleneck;
pub mod delta_vector;
pub mod head;
pub mod ia3;
pub mod layer_norm;
pub mod lora;
pub mod method;
pub mod methods;
pub mod p_tuning;
pub mod parameter_builder;
pub mod peft;
pub mod peft_methods;
pub mod prefix_tuning;
pub mod prompt_tuning;
pub mod soft_prompt;
pub mod target_modules;
pub mod tensor_spec;
pub mod validator;
pub mod vera;

#[cfg(test)]
pub mod testing;

pub use method::Method;
pub use methods::{Config, METHOD_NAMES};
pub use parameter_builder::{BuildContext, TensorSet};
pub use parameter_builder::{ParameterBuilder, TensorInit, TensorMap};
pub use peft_methods::PeftMethod;
