//! The table of PEFT's methods, and the enum over their parsed fields.

use super::peft::{ModuleNaming, PeftFields};
use super::{Config, ia3, layer_norm, lora, p_tuning, prefix_tuning, prompt_tuning, vera};
use crate::error::Result;
use crate::model::SiteInfo;
use serde_json::{Map, Value};

/// How files of one `peft_type` are read.
pub struct PeftMethodEntry {
    pub peft_type: &'static str,
    pub accepted_fields: &'static [&'static str],
    /// The error message for a value of an accepted field that is not implemented.
    pub value_error: fn(&str, &Value) -> Option<String>,
    pub parse: fn(&Map<String, Value>) -> Result<PeftMethod>,
}

/// Expands the table of PEFT's methods, `Variant(module)` per row, to the enum, the entries, and the dispatch.
macro_rules! peft_methods {
    ($($variant:ident($module:ident)),* $(,)?) => {
        /// The method of an `adapter_config.json`, independent of the base.
        #[derive(Debug, Clone)]
        pub enum PeftMethod {
            $($variant(Box<$module::PeftConfig>),)*
        }

        /// Every `peft_type` that is read, in the order in which errors list them.
        pub static PEFT_METHODS: &[PeftMethodEntry] = &[$(
            PeftMethodEntry {
                peft_type: $module::PeftConfig::PEFT_TYPE,
                accepted_fields: $module::PeftConfig::ACCEPTED_FIELDS,
                value_error: $module::PeftConfig::value_error,
                parse: |fields| Ok(PeftMethod::$variant(Box::new(PeftFields::parse(fields)?))),
            },
        )*];

        impl PeftMethod {
            pub fn peft_type(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $module::PeftConfig::PEFT_TYPE,)*
                }
            }

            /// The method with its target modules resolved on the base's sites.
            ///
            /// # Errors
            /// `Invalid` (`unsupported_adapter`) if the rules select a module that the method does not adapt.
            pub fn to_config(&self, sites: &[SiteInfo], naming: ModuleNaming) -> Result<Config> {
                Ok(match self {
                    $(Self::$variant(fields) => Config::$variant(fields.to_config(sites, naming)?),)*
                })
            }

            /// The fields that contradict the method in `espalier.json`; none if the methods themselves differ.
            ///
            /// # Errors
            /// As [`Self::to_config`].
            pub fn differing_fields(
                &self,
                config: &Config,
                sites: &[SiteInfo],
                naming: ModuleNaming,
            ) -> Result<Vec<&'static str>> {
                $(if let (Self::$variant(fields), Config::$variant(config)) = (self, config) {
                    return fields.differing_fields(config, sites, naming);
                })*
                Ok(Vec::new())
            }

            /// The number of virtual tokens; `None` if the method has none.
            pub fn num_virtual_tokens(&self) -> Option<usize> {
                match self {
                    $(Self::$variant(fields) => fields.num_virtual_tokens(),)*
                }
            }

            /// Whether `token_dim` and `num_attention_heads` may be those of keys and values.
            pub fn accepts_kv_size(&self) -> bool {
                match self {
                    $(Self::$variant(fields) => fields.accepts_kv_size(),)*
                }
            }
        }
    };
}

peft_methods! {
    Lora(lora),
    Ia3(ia3),
    LayerNorm(layer_norm),
    Vera(vera),
    PromptTuning(prompt_tuning),
    PTuning(p_tuning),
    PrefixTuning(prefix_tuning),
}

impl PeftMethod {
    /// The low-rank update of a module outside of the layers, if the method has one.
    ///
    /// # Errors
    /// As [`lora::PeftConfig::low_rank_at`].
    pub fn low_rank_at(&self, path: &str) -> Result<Option<lora::LowRank>> {
        match self {
            Self::Lora(fields) => fields.low_rank_at(path),
            Self::Ia3(_)
            | Self::LayerNorm(_)
            | Self::Vera(_)
            | Self::PromptTuning(_)
            | Self::PTuning(_)
            | Self::PrefixTuning(_) => Ok(None),
        }
    }
}

impl PeftMethodEntry {
    /// The entry of a `peft_type`.
    pub fn find(peft_type: &str) -> Option<&'static Self> {
        PEFT_METHODS.iter().find(|entry| entry.peft_type == peft_type)
    }
}

/// The values of `peft_type` that are read, separated by commas.
pub fn peft_types() -> String {
    PEFT_METHODS.iter().map(|entry| entry.peft_type).collect::<Vec<_>>().join(", ")
}
