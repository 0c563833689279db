//! What this room needs to know of the base: its facts and the linear maps that an adapter may touch.
//!
//! Plain data, so that files can be checked against a base whose weights are not at hand.

use crate::adapter::prefix_tuning;
use crate::model::{Base, Info, Module, Pooling, Site, SiteInfo};
use crate::task;

#[derive(Debug, Clone)]
pub struct Outline {
    pub info: Info,
    /// Every linear map of the checkpoint, the pooler included where there is one.
    pub sites: Vec<SiteInfo>,
    /// Those that an adapter may touch which does not pool with the pooler.
    pub bare_sites: Vec<SiteInfo>,
}

impl Outline {
    pub fn of(base: &Base) -> Self {
        let info = base.info().clone();
        let widest = if info.poolings.contains(&Pooling::Cls) { Pooling::Cls } else { Pooling::Mean };
        Self { info, sites: base.sites(widest), bare_sites: base.sites(Pooling::Mean) }
    }

    pub fn sites(&self, pooling: Pooling) -> &[SiteInfo] {
        match pooling {
            Pooling::Mean | Pooling::First | Pooling::Last => &self.bare_sites,
            Pooling::Cls => &self.sites,
        }
    }

    /// How wide a row's keys are, which may be fewer than the base is wide.
    pub fn key_width(&self) -> usize {
        self.width(Module::Key)
    }

    /// Heads of keys, each of which queries may share.
    pub fn key_heads(&self) -> usize {
        self.info.attention_heads * self.key_width() / self.width(Module::Query).max(1)
    }

    fn width(&self, module: Module) -> usize {
        prefix_tuning::width(&self.bare_sites, Site { layer: Some(0), module })
    }

    /// How a task pools on this base.
    pub fn pooling(&self, task: &task::Config) -> Pooling {
        task.pooling().unwrap_or(self.info.default_pooling)
    }
}
