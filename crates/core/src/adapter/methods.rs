//! The table of adapter methods, and the enum over their configurations.

use super::method::Method;
use super::parameter_builder::{BuildContext, TensorSet};
use super::parameter_builder::{ParameterBuilder, TensorMap};
use super::peft::{ModuleNaming, PeftMapping};
use super::tensor_spec::TensorSpec;
use super::{bias, bottleneck, head, ia3, layer_norm, lora, p_tuning, prefix_tuning, prompt_tuning, vera};
use crate::error::Result;
use crate::model::{BaseModel, BaseModelInfo, Hooks, Pooling, SiteInfo};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
