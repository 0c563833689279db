//! What this room needs to know of the base: its facts and the linear maps that an adapter may touch.
//!
//! Plain data, so that files can be checked against a base whose weights are not at hand.

use crate::adapter::prefix_tuning;
use crate::model::{BaseModel, BaseModelInfo, Module, Pooling, Site, SiteInfo};
use crate::task;

#[derive(Debug, Clone)]
pub struct BaseSummary {
    pub info: BaseModelInfo,
    /// Every linear map of the checkpoint, the pooler included where there is one.
    pub sites: Vec<SiteInfo>,
    /// Those that an adapter may touch which does not pool with the pooler.
    pub sites_without_pooler: Vec<SiteInfo>,
}

impl BaseSummary {
    pub fn from_base(base: &BaseModel) -> Self {
        let info = base.info().clone();
        let pooling_with_most_sites = if info.poolings.contains(&Pooling::Cls) { Pooling::Cls } else { Pooling::Mean };
        Self { info, sites: base.sites(pooling_with_most_sites), sites_without_pooler: base.sites(Pooling::Mean) }
    }

    pub fn sites_for(&self, pooling: Pooling) -> &[SiteInfo] {
        match pooling {
            Pooling::Mean | Pooling::First | Pooling::Last => &self.sites_without_pooler,
            Pooling::Cls => &self.sites,
        }
    }

    /// How wide a row's keys are, which may be fewer than the base is wide.
    pub fn key_width(&self) -> usize {
        self.projection_width(Module::Key)
    }

    /// Heads of keys, each of which queries may share.
    pub fn num_kv_heads(&self) -> usize {
        self.info.attention_heads * self.key_width() / self.projection_width(Module::Query).max(1)
    }

    fn projection_width(&self, module: Module) -> usize {
        prefix_tuning::key_value_width(&self.sites_without_pooler, Site { layer: Some(0), module })
    }

    /// How a task pools on this base.
    pub fn pooling(&self, task: &task::Config) -> Pooling {
        task.pooling().unwrap_or(self.info.default_pooling)
    }
}
