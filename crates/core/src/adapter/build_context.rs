//! What a method's hooks are built on.

use crate::model::{BaseModel, SiteInfo};

/// Which tensors of an adapter exist. P-tuning and projected prefix tuning train an encoder that is not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorSet {
    Training,
    Inference,
}

/// The base model, its sites, and the set of tensors to build.
pub struct BuildContext<'a> {
    pub base: &'a BaseModel,
    /// The sites of the base under the task's pooling.
    pub sites: &'a [SiteInfo],
    pub tensor_set: TensorSet,
}
