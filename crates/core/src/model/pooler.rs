//! BERT's pooler, which others have taken over: the first token through a dense layer and tanh.

use super::adapted;
use super::{Hooks, Module, Site, SiteInfo};
use crate::error::{Error, Result};
use espalier_tensor::kernels::{Activation, FrozenLinear, Pool};
use espalier_tensor::{Rows, Tape};
use std::sync::Arc;

pub const SITE: Site = Site { layer: None, module: Module::Pooler };

/// The first token of each sequence: `(sequences, hidden)`.
///
/// # Errors
/// `Invalid` (`no_pooler`) where there is none.
pub fn pool(pooler: Option<&Arc<FrozenLinear>>, tape: &mut Tape, hidden: Rows, hooks: &dyn Hooks) -> Result<Rows> {
    let Some(pooler) = pooler else {
        return Err(Error::invalid("no_pooler", "this base model has no pooler: use \"mean\" or \"first\" pooling"));
    };
    let first = tape.pool(hidden, Pool::First)?;
    let dense = adapted::linear(tape, hooks, SITE, pooler, first)?;
    Ok(tape.activate(Activation::Tanh, dense)?)
}

/// `head` is what the headed model calls the encoder.
pub fn site(pooler: &FrozenLinear, head: &str) -> SiteInfo {
    adapted::site(pooler, SITE, format!("{head}.pooler.dense"))
}
