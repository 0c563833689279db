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
use super::start::{self, Found};
use crate::error::{Error, Result};
use crate::model::{Base, Lowest};
use crate::task::Reading;
use espalier_tensor::Tensor;
use espalier_tensor::pool::{Crew, Priority};
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
    probe: RefCell<Option<Found>>,
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
            // Texts with hidden tokens are others in every epoch.
            _ if desk.prepared.asked.as_ref().is_some_and(|asked| !asked.is_steady()) => Ok(nothing),
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

    /// A head fitted to the rows that it reads: the bare base's where the adapter leaves them as they are, else those under
    /// its first parameters. `None` where no head is trained.
    pub fn head(
        &self,
        desk: &Desk,
        below: &Frozen,
        first: &[Tensor],
        speaker: &mut Speaker,
    ) -> Result<Option<Found>, Halt> {
        let (lowest, reader) = (desk.network.lowest(), desk.network.reader());
        let examples = start::examples(reader, desk.prepared);
        let is_bare = lowest == Lowest::Head || desk.spec.starts_neutral();
        match self.probe.borrow().clone() {
            Some(found) if is_bare => return Ok(Some(found)),
            _ if examples.is_empty() => return Ok(None),
            _ => {}
        }
        let rows = match (lowest, reader.reading) {
            (Lowest::Head, _) => below.read(&examples)?,
            (_, Reading::Pooled(_)) if is_bare => self.frozen(Lowest::Head, below, desk, speaker)?.read(&examples)?,
            _ => Some(desk.read(first, below, &examples, speaker)?),
        };
        let rows = rows.ok_or_else(|| Error::internal("the rows of a head are kept, be it in memory"))?;
        let found = start::find(desk, &examples, &rows, first, self.base.kernels().as_ref())?;
        if is_bare {
            *self.probe.borrow_mut() = found.clone();
        }
        Ok(found)
    }
}
