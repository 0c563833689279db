//! Where an adapter may touch the base.
//!
//! The base calls hooks at fixed, named places; each hook's default leaves the value alone, and `()` is the bare base.

use crate::compute::{Rows, Tape};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A named place in the base. `layer` is `None` where there is only one (`pooler`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site {
    pub layer: Option<usize>,
    pub module: Module,
}

/// Our own names for the linear maps of a transformer; each architecture maps its checkpoint's names to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Module {
    Query,
    Key,
    Value,
    AttentionOutput,
    FeedForwardIn,
    FeedForwardOut,
    Pooler,
}

impl Module {
    pub const ALL: [Self; 7] = [
        Self::Query,
        Self::Key,
        Self::Value,
        Self::AttentionOutput,
        Self::FeedForwardIn,
        Self::FeedForwardOut,
        Self::Pooler,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Key => "key",
            Self::Value => "value",
            Self::AttentionOutput => "attention_output",
            Self::FeedForwardIn => "feed_forward_in",
            Self::FeedForwardOut => "feed_forward_out",
            Self::Pooler => "pooler",
        }
    }
}

impl Site {
    /// A number of its own, for dropout.
    pub fn place(self) -> u64 {
        self.layer.map_or(0, |layer| layer as u64 + 1) * Module::ALL.len() as u64 + self.module as u64
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer {
            Some(layer) => write!(f, "layer.{layer}.{}", self.module.name()),
            None => write!(f, "{}", self.module.name()),
        }
    }
}

/// What a method is built against: a linear map of the base, `output × input`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteInfo {
    pub site: Site,
    pub input: usize,
    pub output: usize,
    /// The module's path in the checkpoint as transformers names it inside the *headed* model, for example
    /// `bert.encoder.layer.0.attention.self.query`: PEFT's suffix and regex rules are matched on it.
    pub path: String,
}

/// The lowest place that an adapter changes: below it the frozen base computes alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lowest {
    /// Something in this layer; the first is 0.
    Layer(usize),
    /// The architecture's own pooler.
    Pooler,
    /// Only what follows the pooled row.
    Head,
}

/// An adapter as the base sees it.
pub trait Hooks: Send + Sync {
    /// Whether anything happens at this site. Everywhere else the base fuses freely and remembers nothing.
    fn touches(&self, site: Site) -> bool;

    /// What came out of the linear map at `site`, given what went in.
    ///
    /// # Errors
    /// Only what the device reports.
    fn after(&self, tape: &mut Tape, site: Site, input: Rows, output: Rows) -> Result<Rows>;

    /// The lowest place that this adapter changes.
    fn lowest(&self) -> Lowest;
}

/// The bare base.
impl Hooks for () {
    fn touches(&self, _site: Site) -> bool {
        false
    }

    fn after(&self, _tape: &mut Tape, _site: Site, _input: Rows, output: Rows) -> Result<Rows> {
        Ok(output)
    }

    fn lowest(&self) -> Lowest {
        Lowest::Head
    }
}
