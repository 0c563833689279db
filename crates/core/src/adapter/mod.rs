//! Adapter methods: the trainable parameters of each method, and the hooks through which they change the frozen base model.
//!
//! A method is a folder: its configuration with defaults and validation ([`Method::resolve`]), its parameters and hooks
//! ([`Method::build`]), and the mapping to files of PEFT or AdapterHub. To add one, write the folder, add a row to `methods!` below
//! and, if PEFT has the method, a row to `peft_methods!` in `peft_methods.rs`.

use crate::error::Result;
use crate::model::{BaseModel, BaseModelInfo, Hooks, Pooling, SiteInfo};
use peft::{ModuleNaming, PeftMapping};
use serde::{Deserialize, Serialize};
use tensor_spec::TensorSpec;
use utoipa::ToSchema;

pub use method::{Method, TrainingDefaults};
pub use parameter_builder::{BuildContext, ParameterBuilder, TensorInit, TensorMap, TensorSet};
pub use peft_methods::PeftMethod;

pub mod bias;
pub mod bottleneck;
pub mod delta_vector;
pub mod head;
pub mod ia3;
pub mod layer_norm;
pub mod lora;
pub mod method;
pub mod p_tuning;
pub mod parameter_builder;
pub mod peft;
pub mod peft_methods;
pub mod prefix_tuning;
pub mod prompt_tuning;
pub mod soft_prompt;
pub mod target_modules;
pub mod tensor_spec;
#[cfg(test)]
pub mod testing;
pub mod validator;
pub mod vera;

/// Expands the table of methods, `Variant(module) "name"` per row, to the enum, the list of names, and the dispatch.
macro_rules! methods {
    ($($variant:ident($module:ident) $name:literal),* $(,)?) => {
        /// An adapter method and its settings, tagged by `type`.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
        #[serde(tag = "type", rename_all = "snake_case")]
        #[schema(as = Method)]
        pub enum Config {
            $($variant($module::Config),)*
        }

        /// The values of `type`.
        pub const METHOD_NAMES: [&str; [$($name),*].len()] = [$($name),*];

        impl Config {
            /// The value of `type`.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                }
            }

            fn as_method(&self) -> &dyn Method {
                match self {
                    $(Self::$variant(config) => config,)*
                }
            }

            fn resolve_on(&self, info: &BaseModelInfo, sites: &[SiteInfo]) -> Result<Self> {
                Ok(match self {
                    $(Self::$variant(config) => Self::$variant(config.resolve(info, sites)?),)*
                })
            }
        }
    };
}

methods! {
    Lora(lora) "lora",
    Ia3(ia3) "ia3",
    PromptTuning(prompt_tuning) "prompt_tuning",
    PTuning(p_tuning) "p_tuning",
    PrefixTuning(prefix_tuning) "prefix_tuning",
    Bottleneck(bottleneck) "bottleneck",
    Bias(bias) "bias",
    LayerNorm(layer_norm) "layer_norm",
    Vera(vera) "vera",
    Head(head) "head",
}

impl Default for Config {
    fn default() -> Self {
        Self::Lora(lora::Config::default())
    }
}

/// [`Method`] for whichever method this is.
impl Config {
    /// Validates the settings against the base and fills in every default, so that a stored job is complete.
    ///
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to each wrong setting.
    pub fn resolve(&self, base: &BaseModel, pooling: Pooling) -> Result<Self> {
        self.resolve_on(base.info(), &base.sites(pooling))
    }

    /// Builds the hooks of a resolved configuration; `builder` draws or restores the tensors.
    ///
    /// # Errors
    /// `Invalid` where an initial value cannot be computed; otherwise the error of the device.
    pub fn build(&self, context: &BuildContext, builder: &mut ParameterBuilder) -> Result<Box<dyn Hooks>> {
        self.as_method().build(context, builder)
    }

    /// Positions of the context window that the method's virtual tokens occupy; 0 if it has none.
    pub fn num_virtual_tokens(&self) -> usize {
        self.as_method().num_virtual_tokens()
    }

    /// Dropout rate of the head's input during training; 0 for methods that drop their own input instead.
    pub fn head_dropout(&self) -> f64 {
        self.as_method().head_dropout()
    }

    /// Default learning rate, and the least number of steps on a small dataset.
    pub fn training_defaults(&self) -> TrainingDefaults {
        self.as_method().training_defaults()
    }

    /// Learning rate of a tensor as a multiple of the job's.
    pub fn learning_rate_ratio(&self, tensor: &str) -> f64 {
        self.as_method().learning_rate_ratio(tensor)
    }

    /// Whether a freshly initialised adapter leaves the base's output unchanged, bit for bit.
    pub fn is_identity_at_init(&self) -> bool {
        self.as_method().is_identity_at_init()
    }

    /// Converts trained tensors to the published ones.
    pub fn inference_weights(&self, base: &BaseModel, pooling: Pooling, weights: TensorMap) -> Result<TensorMap> {
        let sites = base.sites(pooling);
        let context = BuildContext { base, sites: &sites, tensor_set: TensorSet::Training };
        self.as_method().inference_weights(&context, weights)
    }

    /// The published tensors as they are stored in an adapter folder, without the head's.
    pub fn tensor_specs(&self, sites: &[SiteInfo], naming: ModuleNaming) -> Vec<TensorSpec> {
        self.as_method().tensor_specs(sites, naming)
    }

    /// The mapping to PEFT's `adapter_config.json`; `None` if PEFT has no such method.
    pub fn peft(&self) -> Option<&dyn PeftMapping> {
        self.as_method().peft()
    }

    /// The `peft_type` of the method; `None` if PEFT has none, or none for these settings.
    pub fn peft_type(&self, sites: &[SiteInfo]) -> Option<&'static str> {
        self.peft()?.peft_type(sites)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_parses_from_its_name() {
        for name in METHOD_NAMES {
            let config: Config = serde_json::from_value(serde_json::json!({"type": name})).unwrap();
            assert_eq!(config.name(), name);
        }
        let message = serde_json::from_str::<Config>(r#"{"type": "none"}"#).unwrap_err().to_string();
        assert!(METHOD_NAMES.iter().all(|name| message.contains(&format!("`{name}`"))), "{message}");
    }
}
