//! What the runs of a job share: the threads, what the frozen base computed, and the head's start on its features.
//!
//! A job has one run, a race has several. Knows nothing of steps.

use super::Settings;
use super::frozen::{Desk, Frozen};
use super::network::Network;
use super::prepare::Prepared;
use super::run::Halt;
use super::speaker::Speaker;
use super::spec::Spec;
use crate::compute::Tensor;
use crate::compute::pool::{Crew, Priority};
use crate::error::{Error, Result};
use crate::model::{Base, Lowest};
use crate::task::start::{self, Features, Fit};
use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

pub struct Shared<'a> {
    pub base: &'a Arc<Base>,
    pub settings: &'a Settings,
    pub crew: Arc<Crew>,
    /// The folder of what the frozen base computed.
    remembered: &'a Path,
    /// By the place that the rows go into.
    frozen: RefCell<Vec<(Lowest, Frozen)>>,
    /// The head's start on the bare base's features.
    probe: RefCell<Option<Fit>>,
}

impl<'a> Shared<'a> {
    pub fn new(base: &'a Arc<Base>, settings: &'a Settings, remembered: &'a Path) -> Result<Self> {
        let crew = Arc::new(Crew::new("training", Priority::Lowest, settings.threads)?);
        Ok(Self { base, settings, crew, remembered, frozen: RefCell::default(), probe: RefCell::default() })
    }

    pub fn desk<'b>(&'b self, spec: &'b Spec, network: &'b Arc<Network>, prepared: &'b Prepared) -> Desk<'b> {
        let width = self.base.info().hidden_size;
        Desk { spec, crew: &self.crew, network, prepared, width, settings: self.settings, folder: self.remembered }
    }

    /// What the frozen base computes below the lowest place that is trained.
    pub fn below(&self, desk: &Desk, speaker: &mut Speaker) -> Result<Frozen, Halt> {
        let nothing = Frozen::nothing(desk.prepared);
        match desk.network.lowest() {
            // The embeddings alone are sooner looked up than read.
            Lowest::Embeddings | Lowest::Layer(0) => Ok(nothing),
            lowest => self.frozen(lowest, &nothing, desk, speaker),
        }
    }

    fn frozen(&self, place: Lowest, below: &Frozen, desk: &Desk, speaker: &mut Speaker) -> Result<Frozen, Halt> {
        let known = self.frozen.borrow().iter().find(|(of, _)| *of == place).map(|(_, frozen)| frozen.clone());
        if let Some(frozen) = known {
            return Ok(frozen);
        }
        let frozen = desk.frozen(place, below, speaker)?;
        self.frozen.borrow_mut().push((place, frozen.clone()));
        Ok(frozen)
    }

    /// A head fitted to the pooled rows: the bare base's where the adapter leaves them as they are, else those under its
    /// first parameters.
    pub fn head(&self, desk: &Desk, below: &Frozen, first: &[Tensor], speaker: &mut Speaker) -> Result<Fit, Halt> {
        let lowest = desk.network.lowest();
        let is_bare = lowest == Lowest::Head || desk.spec.starts_neutral();
        if !is_bare {
            return Ok(self.fit(desk, &desk.pooled(first, below, speaker)?)?);
        }
        if let Some(fit) = self.probe.borrow().clone() {
            return Ok(fit);
        }
        let features = match lowest {
            Lowest::Head => below.all()?,
            _ => self.frozen(Lowest::Head, below, desk, speaker)?.all()?,
        };
        let features = features.ok_or_else(|| Error::internal("pooled rows are kept, be it in memory"))?;
        let fit = self.fit(desk, &features)?;
        *self.probe.borrow_mut() = Some(fit.clone());
        Ok(fit)
    }

    /// `features` are the pooled rows of all examples.
    fn fit(&self, desk: &Desk, features: &[f32]) -> Result<Fit> {
        let (training, width) = (&desk.prepared.training, desk.width);
        let row = |index: &usize| &features[index * width..(index + 1) * width];
        let values: Vec<f32> = training.iter().flat_map(|index| row(index).iter().copied()).collect();
        let targets = desk.prepared.targets.pick(training);
        start::fit(&Features::new(&values, width, &targets), self.base.kernels().as_ref())
    }
}
