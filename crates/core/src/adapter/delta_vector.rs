//! Trainable copies of the base's vectors (biases, weights of norms), applied as differences from the frozen ones.

use super::parameter_builder::{BuildContext, ParameterBuilder};
use crate::error::{Error, Result};
use crate::model::{Site, SiteInfo};
use espalier_tensor::{Buffer, ParamId, RaggedLayout, Tape, Tensor, Var};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A trainable copy of one vector of the base. The tensor is the new value, as PEFT stores it; the hook adds the
/// difference from the frozen value, which is zero at initialisation.
pub struct DeltaVector {
    trained: ParamId,
    /// The frozen value with the opposite sign, `(1, width)`.
    negated_base: Buffer,
}

impl DeltaVector {
    pub fn build(
        context: &BuildContext,
        name: String,
        base_value: &Tensor,
        builder: &mut ParameterBuilder,
    ) -> Result<Self> {
        let init = |_: u64, _: &str| Ok::<_, Error>(base_value.clone());
        let trained = builder.add_with(name, &base_value.shape, init)?;
        let negated = base_value.values.iter().map(|value| -value).collect();
        let negated_base = context.base.backend().upload(&Tensor::new([1, base_value.values.len()], negated))?;
        Ok(Self { trained, negated_base })
    }

    /// The difference from the frozen value, `(1, width)`.
    pub fn delta(&self, tape: &mut Tape) -> Result<Var> {
        let trained = tape.parameter(self.trained)?;
        let negated_base = tape.constant(self.negated_base.clone(), Arc::new(RaggedLayout::one_row_per_sequence(1)));
        Ok(tape.add_channels(trained, negated_base)?)
    }
}

/// Trainable biases by site.
#[derive(Default)]
pub struct BiasDeltas(BTreeMap<Site, DeltaVector>);

impl BiasDeltas {
    pub fn build<'a>(
        sites: impl IntoIterator<Item = &'a SiteInfo>,
        context: &BuildContext,
        builder: &mut ParameterBuilder,
    ) -> Result<Self> {
        let mut deltas = BTreeMap::new();
        for info in sites {
            let missing_bias = || Error::internal(format!("the base has no bias at {}", info.site));
            let base_value = context.base.bias_at(info.site)?.ok_or_else(missing_bias)?;
            let delta = DeltaVector::build(context, bias_tensor_name(info.site), &base_value, builder)?;
            deltas.insert(info.site, delta);
        }
        Ok(Self(deltas))
    }

    pub fn contains(&self, site: Site) -> bool {
        self.0.contains_key(&site)
    }

    pub fn sites(&self) -> impl Iterator<Item = Site> + '_ {
        self.0.keys().copied()
    }

    /// Adds the site's difference to `output`; returns `output` unchanged if the site has none.
    pub fn add_to(&self, tape: &mut Tape, site: Site, output: Var) -> Result<Var> {
        let Some(delta_vector) = self.0.get(&site) else { return Ok(output) };
        let delta = delta_vector.delta(tape)?;
        Ok(tape.add_channels(output, delta)?)
    }
}

/// Name of a site's trainable bias: `layer.0.query.bias`.
pub fn bias_tensor_name(site: Site) -> String {
    format!("{site}.bias")
}
