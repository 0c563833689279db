//! A worker context with its own data folder and SQLite database.

use espalier::store::blobs::{BlobStore, DataDir};
use espalier::store::{self, DEFAULT_OWNER, Job, NewDataset, NewJob, PageRequest, Reference, Status, Store};
use espalier::worker::{Settings, WorkerContext, run_next};
use espalier_core::adapter::{self, lora};
use espalier_core::dataset::{Format, Options, Report};
use espalier_core::model::BaseModel;
use espalier_core::task::{Example, Target};
use espalier_core::training::{self, Hyperparameters, Spec, Validation, spec::Request};
use espalier_core::{artifact, dataset};
use espalier_testing::jobs::{examples, labels, tiny_base};
use sha2::{Digest, Sha256};
use sqlx::{Connection, Executor, SqliteConnection};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

pub const LEASE: Duration = Duration::from_secs(30);
pub const ALL_ROWS: PageRequest = PageRequest { limit: 1000, after: None };

/// A worker context whose data folder and database are deleted on drop.
pub struct WorkerFixture {
    pub context: WorkerContext,
    temp_dir: tempfile::TempDir,
}

/// Parameters of a training job in a test.
#[derive(Clone, Copy)]
pub struct JobParams {
    pub name: &'static str,
    pub epochs: u32,
    pub seed: u64,
    /// Fraction of the examples in the validation split.
    pub validation: f64,
}

impl WorkerFixture {
    pub async fn new() -> Self {
        let temp_dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(&temp_dir.path().join("data")).unwrap();
        let store = store::connect(&store::sqlite_url(&temp_dir.path().join("espalier.db"))).await.unwrap();
        let training = training::Settings {
            threads: 1,
            checkpoint_interval: Duration::ZERO,
            feature_cache_bytes: 1 << 20,
            activation_memory_bytes: u64::MAX,
        };
        let data = dataset::Limits { max_bytes: 1 << 20, max_rows: 1000, max_record_bytes: 1 << 16, max_labels: 100 };
        let settings = Settings {
            slots: 1,
            lease_duration: LEASE,
            heartbeat_interval: Duration::from_millis(5),
            poll_interval: Duration::from_secs(60),
            exit_when_idle: None,
            max_attempts: 3,
            time_slice: Duration::from_secs(3600),
            max_running_per_owner: None,
            training,
            data,
        };
        let context = WorkerContext {
            base: tiny_base(),
            blobs: Arc::new(BlobStore::new(Arc::new(data_dir), Arc::clone(&store), None, 0)),
            store,
            settings,
            metrics: Default::default(),
        };
        Self { context, temp_dir }
    }

    pub fn store(&self) -> &dyn Store {
        self.context.store.as_ref()
    }

    /// Executes a statement on the database.
    pub async fn execute(&self, statement: &'static str) {
        let url = store::sqlite_url(&self.temp_dir.path().join("espalier.db"));
        SqliteConnection::connect(&url).await.unwrap().execute(statement).await.unwrap();
    }

    pub fn base(&self) -> &Arc<BaseModel> {
        &self.context.base
    }

    /// Queues a LoRA job with three labels and 24 examples.
    pub async fn queue_job(&self, params: JobParams) -> Uuid {
        self.queue_job_with_examples(params, &examples(24)).await
    }

    pub async fn queue_job_of(&self, owner: &str, params: JobParams) -> Uuid {
        self.queue(owner, params, &examples(24)).await
    }

    pub async fn queue_job_with_examples(&self, params: JobParams, examples: &[Example]) -> Uuid {
        self.queue(DEFAULT_OWNER, params, examples).await
    }

    async fn queue(&self, owner: &str, params: JobParams, examples: &[Example]) -> Uuid {
        let (hash, options) = (self.write_dataset(examples), options());
        let dataset = NewDataset {
            owner: owner.to_string(),
            file_name: None,
            hash,
            bytes: 1,
            options: options.clone(),
            report: Report::default(),
            limits: Default::default(),
        };
        let dataset = self.store().add_dataset(dataset).await.unwrap();
        let (id, owner, name) = (Uuid::now_v7(), owner.to_string(), Some(params.name.to_string()));
        let spec = spec(self.base(), params, examples).into();
        let job = NewJob {
            id,
            owner,
            name,
            dataset_id: dataset.id,
            validation_dataset_id: None,
            options,
            spec,
            metadata: Default::default(),
            created_by: None,
            trace_context: None,
            priority: 0,
        };
        self.store().add_job(job, 1000).await.unwrap().id
    }

    /// Writes the examples to the data folder as a TSV file and returns its sha256.
    fn write_dataset(&self, examples: &[Example]) -> String {
        let format_row = |example: &Example| {
            let Target::Label(label) = &example.target else { panic!("expected a label") };
            format!("{}\t{label}\n", example.text)
        };
        let text: String =
            std::iter::once("text\tlabel\n".to_string()).chain(examples.iter().map(format_row)).collect();
        let hash = hex::encode(Sha256::digest(text.as_bytes()));
        let file = self.context.blobs.data_dir().temp_dir().join(Uuid::now_v7().to_string());
        std::fs::write(&file, text).unwrap();
        self.context.blobs.data_dir().put_dataset(&file, &hash).unwrap();
        hash
    }

    pub async fn job(&self, id: Uuid) -> Job {
        self.store().job(DEFAULT_OWNER, id).await.unwrap()
    }

    /// Runs queued jobs until the queue is empty.
    pub async fn run_queued_jobs(&self) {
        while run_next(&self.context).await.unwrap().is_some() {}
    }

    /// Polls the job until `condition` holds, for at most 60 seconds.
    pub async fn wait_until(&self, id: Uuid, condition: impl Fn(&Job) -> bool) {
        let polling = async {
            while !condition(&self.job(id).await) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), polling).await.expect("the condition holds within 60 seconds");
    }

    pub async fn adapter_version(&self, name: &str) -> String {
        let reference = Reference::Name(name.to_string());
        self.store().adapter(DEFAULT_OWNER, &reference).await.unwrap().description.version
    }

    pub async fn adapter_count(&self) -> usize {
        self.store().adapters(DEFAULT_OWNER, ALL_ROWS).await.unwrap().len()
    }

    /// Number of adapter folders on disk.
    pub fn adapter_directory_count(&self) -> usize {
        std::fs::read_dir(self.context.blobs.data_dir().adapters_dir()).unwrap().count()
    }

    pub fn has_checkpoints(&self, id: Uuid) -> bool {
        self.context.blobs.data_dir().job_checkpoint_dir(id).exists()
    }

    pub fn load_artifact(&self, version: &str) -> artifact::Artifact {
        artifact::load_published(&self.context.blobs.data_dir().adapters_dir(), version, self.base()).unwrap()
    }

    /// Version that an uninterrupted run of the same job publishes, computed in a separate fixture.
    pub async fn uninterrupted_version(params: JobParams) -> String {
        let fixture = Self::new().await;
        let id = fixture.queue_job(params).await;
        fixture.run_queued_jobs().await;
        assert_eq!(fixture.job(id).await.status, Status::Succeeded);
        fixture.adapter_version(params.name).await
    }
}

pub fn options() -> Options {
    Options::new(Format::Tsv)
}

fn spec(base: &BaseModel, params: JobParams, examples: &[Example]) -> Spec {
    let hyperparameters = Hyperparameters {
        epochs: Some(params.epochs),
        batch_size: Some(8),
        seed: Some(params.seed),
        learning_rate: Some(0.01),
        ..Hyperparameters::default()
    };
    let method = Some(adapter::Config::Lora(lora::Config::default()));
    let validation = Some(Validation::Fraction(params.validation));
    let request = Request { method, hyperparameters, validation, ..Request::default() };
    Spec::resolve(&request, &labels(examples), examples.len(), base).unwrap()
}
