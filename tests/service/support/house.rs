//! A workshop on a data folder and an SQLite database of its own.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use espalier::store::blobs::DataFolder;
use espalier::store::{self, DEFAULT_OWNER, Job, NewDataset, NewJob, Page, Reference, Status, Store};
use espalier::worker::{Settings, Workshop, run_next};
use espalier_core::adapter::{self, lora};
use espalier_core::data::{Format, OnBadRows, Options, Report};
use espalier_core::model::Base;
use espalier_core::task::{Example, Target};
use espalier_core::training::{self, Hyperparameters, Spec, Validation, spec::Request};
use espalier_core::{artifact, data};
use espalier_testing::jobs::{examples, labels, tiny_base};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

pub const LEASE: Duration = Duration::from_secs(30);
pub const EVERYTHING: Page = Page { limit: 1000, after: None };

pub struct House {
    pub workshop: Workshop,
    _root: tempfile::TempDir,
}

/// What a test asks of a job.
#[derive(Clone, Copy)]
pub struct Wanted {
    pub name: &'static str,
    pub epochs: u32,
    pub seed: u64,
    /// The share of the examples that is put aside.
    pub validation: f64,
}

impl House {
    pub async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(&root.path().join("data")).unwrap();
        let store = store::connect(&store::sqlite_url(&root.path().join("espalier.db"))).await.unwrap();
        let training = training::Settings {
            threads: 1,
            checkpoint_every: Duration::ZERO,
            remembered_bytes: 1 << 20,
            activation_bytes: u64::MAX,
        };
        let data = data::Settings { max_bytes: 1 << 20, max_rows: 1000, max_record_bytes: 1 << 16, max_labels: 100 };
        let settings = Settings {
            slots: 1,
            lease: LEASE,
            heartbeat: Duration::from_millis(5),
            poll: Duration::from_secs(60),
            max_attempts: 3,
            training,
            data,
        };
        let workshop = Workshop { base: tiny_base(), store, folder: Arc::new(folder), settings };
        Self { workshop, _root: root }
    }

    pub fn store(&self) -> &dyn Store {
        self.workshop.store.as_ref()
    }

    pub fn base(&self) -> &Arc<Base> {
        &self.workshop.base
    }

    /// Queues a LoRA job of three labels on 24 examples.
    pub async fn queue(&self, wanted: Wanted) -> Uuid {
        self.queue_with(wanted, &examples(24)).await
    }

    pub async fn queue_with(&self, wanted: Wanted, examples: &[Example]) -> Uuid {
        let (hash, options) = (self.keep(examples), options());
        let dataset = NewDataset {
            owner: DEFAULT_OWNER.to_string(),
            file_name: None,
            hash,
            bytes: 1,
            options: options.clone(),
            report: Report::default(),
        };
        let dataset = self.store().add_dataset(dataset).await.unwrap();
        let (id, owner, name) = (Uuid::now_v7(), DEFAULT_OWNER.to_string(), Some(wanted.name.to_string()));
        let spec = spec(self.base(), wanted, examples).into();
        let job = NewJob { id, owner, name, dataset_id: dataset.id, validation_dataset_id: None, options, spec };
        self.store().add_job(job, 1000).await.unwrap().id
    }

    /// Puts the examples into the data folder as a file, and answers its hash.
    fn keep(&self, examples: &[Example]) -> String {
        let row = |example: &Example| {
            let Target::Label(label) = &example.target else { panic!("a label was expected") };
            format!("{}\t{label}\n", example.text)
        };
        let text: String = std::iter::once("text\tlabel\n".to_string()).chain(examples.iter().map(row)).collect();
        let hash: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let file = self.workshop.folder.temporary().join(Uuid::now_v7().to_string());
        std::fs::write(&file, text).unwrap();
        self.workshop.folder.put_dataset(&file, &hash).unwrap();
        hash
    }

    pub async fn job(&self, id: Uuid) -> Job {
        self.store().job(DEFAULT_OWNER, id).await.unwrap()
    }

    /// Runs every queued job to its end.
    pub async fn work(&self) {
        while run_next(&self.workshop).await.unwrap().is_some() {}
    }

    /// Returns when the job is as the condition wants it.
    pub async fn until(&self, id: Uuid, condition: impl Fn(&Job) -> bool) {
        let polling = async {
            while !condition(&self.job(id).await) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), polling).await.expect("the job never got there");
    }

    pub async fn version(&self, name: &str) -> String {
        let reference = Reference::Name(name.to_string());
        self.store().adapter(DEFAULT_OWNER, &reference).await.unwrap().description.version
    }

    pub async fn adapters(&self) -> usize {
        self.store().adapters(DEFAULT_OWNER, EVERYTHING).await.unwrap().len()
    }

    /// Folders of adapters on disk.
    pub fn folders(&self) -> usize {
        std::fs::read_dir(self.workshop.folder.adapters()).unwrap().count()
    }

    pub fn has_checkpoints(&self, id: Uuid) -> bool {
        self.workshop.folder.checkpoints(id).exists()
    }

    pub fn opens(&self, version: &str) -> artifact::Artifact {
        artifact::read(&self.workshop.folder.adapters(), version, self.base()).unwrap()
    }

    /// The version that an undisturbed run of this job publishes, worked out in a house of its own.
    pub async fn undisturbed(wanted: Wanted) -> String {
        let house = Self::new().await;
        let id = house.queue(wanted).await;
        house.work().await;
        assert_eq!(house.job(id).await.status, Status::Succeeded);
        house.version(wanted.name).await
    }
}

pub fn options() -> Options {
    Options { format: Format::Tsv, columns: Default::default(), on_bad_rows: OnBadRows::Refuse }
}

fn spec(base: &Base, wanted: Wanted, examples: &[Example]) -> Spec {
    let hyperparameters = Hyperparameters {
        epochs: Some(wanted.epochs),
        batch_size: Some(8),
        seed: Some(wanted.seed),
        learning_rate: Some(0.01),
        ..Hyperparameters::default()
    };
    let method = Some(adapter::Config::Lora(lora::Config::default()));
    let validation = Some(Validation::Fraction(wanted.validation));
    let request = Request { method, hyperparameters, validation, ..Request::default() };
    Spec::resolve(&request, &labels(examples), examples.len(), base).unwrap()
}
