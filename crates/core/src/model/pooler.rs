//! BERT's pooler, which others have taken over: the first token through a dense layer and tanh.

use super::hooked_ops;
use super::{Hooks, Module, Site, SiteInfo};
use crate::error::{Error, Result};
use espalier_tensor::backend::{Activation, FrozenLinear, PoolingKind};
use espalier_tensor::{Tape, Var};
use std::sync::Arc;

pub const POOLER_SITE: Site = Site { layer: None, module: Module::Pooler };

/// The first token of each sequence: `(sequences, hidden)`.
///
/// # Errors
/// `Invalid` (`no_pooler`) where there is none.
pub fn forward(pooler: Option<&Arc<FrozenLinear>>, tape: &mut Tape, hidden: Var, hooks: &dyn Hooks) -> Result<Var> {
    let Some(pooler) = pooler else {
        return Err(Error::invalid("no_pooler", "this base model has no pooler: use \"mean\" or \"first\" pooling"));
    };
    let first_token = tape.kind(hidden, PoolingKind::First)?;
    let dense = hooked_ops::linear(tape, hooks, POOLER_SITE, pooler, first_token)?;
    Ok(tape.activate(Activation::Tanh, dense)?)
}

/// `head` is what the headed model calls the encoder.
pub fn site_info(pooler: &FrozenLinear, base_model_prefix: &str) -> SiteInfo {
    hooked_ops::linear_site_info(pooler, POOLER_SITE, format!("{base_model_prefix}.pooler.dense"))
}
