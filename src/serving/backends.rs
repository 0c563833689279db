//! Backends of serving: the base model's own, or variants of it with int8 activations.

use espalier_core::error::{Error, Result};
use espalier_core::model::BaseModel;
use espalier_tensor::{ActivationQuantization, Backend, LoraPrecision};
use std::sync::Arc;

/// Backends that read the base model's weights and the adapters in its memory.
pub struct ServingBackends {
    /// For predictions and embeddings. Adapters and heads stay in `f32`.
    pub prediction: Arc<dyn Backend>,
    /// For generated text. With int8 activations LoRA matrices are int8, too.
    pub generation: Arc<dyn Backend>,
}

impl ServingBackends {
    /// Selects the backends, and builds the int8 copies of the base's weights that they read.
    ///
    /// # Errors
    /// `Invalid` (`conflicting_settings`) if the base's backend has no int8 kernels.
    pub fn new(base: &BaseModel, activations: ActivationQuantization) -> Result<Self> {
        let int8_backend = |lora| {
            base.backend().with_int8_activations(lora).ok_or_else(|| {
                let detail = "on a GPU activations are not rounded: leave --activation-quantization int8 out";
                Error::invalid("conflicting_settings", detail)
            })
        };
        match activations {
            ActivationQuantization::F32 => {
                Ok(Self { prediction: Arc::clone(base.backend()), generation: Arc::clone(base.backend()) })
            }
            ActivationQuantization::Int8 => {
                let prediction = int8_backend(LoraPrecision::F32)?;
                base.prepack_linears(prediction.as_ref())?;
                Ok(Self { prediction, generation: int8_backend(LoraPrecision::Int8)? })
            }
        }
    }
}
