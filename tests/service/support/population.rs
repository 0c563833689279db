//! A database and a data folder with jobs, datasets and adapters of two owners, and checks of their consistency.

use super::samples::*;
use espalier::store::blobs::DataDir;
use espalier::store::{
    AdapterDescription, ClaimRules, Lease, NewAdapter, NewDataset, NewJob, PageRequest, Reference, Status, Store,
    retention,
};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};
use uuid::Uuid;

pub const OWNERS: [&str; 2] = [OWNER, OTHER_OWNER];
const METRICS_ROWS: u64 = 20;
const EVERYTHING: PageRequest = PageRequest { limit: 100_000, after: None };
/// Files of an adapter, in the order of its version's hash.
const ADAPTER_FILES: [&str; 3] = ["adapter_config.json", "adapter_model.safetensors", "espalier.json"];

/// What the store lists of both owners, in a form that is the same on both databases.
#[derive(Debug, Clone, PartialEq)]
pub struct Contents {
    pub rows: BTreeMap<String, serde_json::Value>,
}

/// Adds `count` finished jobs with an adapter and a dataset each, then a paused and a running job for each owner. Every name has several
/// versions, and the owners share some files. All files are two hours old.
pub async fn populate(store: &dyn Store, data_dir: &DataDir, count: usize) {
    for index in 0..count {
        let owner = OWNERS[usize::from(index % 3 == 0)];
        let content = index % (count * 2 / 3).max(1);
        let lease = start_job(store, data_dir, owner, content).await;
        let rows: Vec<_> = (1..=METRICS_ROWS).map(|step| row(step, "train")).collect();
        store.record_metrics(&lease, &rows).await.unwrap();
        let description = put_adapter(data_dir, content);
        let name = Some(format!("name-{}", index % 7));
        let job_id = Some(lease.job_id);
        let adapter = NewAdapter {
            id: Uuid::now_v7(),
            owner: owner.to_string(),
            name,
            job_id,
            description,
            max_owner_bytes: None,
        };
        store.publish(&lease, adapter, &serde_json::json!({"accuracy": 0.5})).await.unwrap();
    }
    for (index, owner) in OWNERS.into_iter().enumerate() {
        start_job(store, data_dir, owner, count + index).await;
        let paused = add_job(store, data_dir, owner, count + 10 + index).await;
        store.pause_job(owner, paused).await.unwrap();
        let checkpoints = data_dir.job_checkpoint_dir(paused);
        fs::create_dir_all(&checkpoints).unwrap();
        fs::write(checkpoints.join("manifest-1.json"), "{}").unwrap();
    }
    // The marks on files that were written again.
    for entry in fs::read_dir(data_dir.adapters_dir().with_file_name("pins")).unwrap() {
        make_old(&entry.unwrap().path());
    }
}

async fn add_job(store: &dyn Store, data_dir: &DataDir, owner: &str, content: usize) -> Uuid {
    let text = format!("text,label\nnumber {content},a\n");
    let (hash, bytes) = (hex::encode(Sha256::digest(&text)), text.len() as u64);
    let file = data_dir.temp_dir().join("upload");
    fs::write(&file, text).unwrap();
    make_old(&data_dir.put_dataset(&file, &hash).unwrap());
    let dataset = NewDataset { owner: owner.to_string(), hash, bytes, ..new_dataset("") };
    let dataset = store.add_dataset(dataset).await.unwrap();
    let job = NewJob { owner: owner.to_string(), ..new_job(dataset.id) };
    store.add_job(job, u64::MAX >> 1).await.unwrap().id
}

async fn start_job(store: &dyn Store, data_dir: &DataDir, owner: &str, content: usize) -> Lease {
    let id = add_job(store, data_dir, owner, content).await;
    let rules = ClaimRules {
        platform: platform(),
        lease_duration: Duration::from_secs(3600),
        max_attempts: 3,
        max_running_per_owner: None,
    };
    let claimed = store.claim(&worker(), &rules).await.unwrap().unwrap();
    assert_eq!(claimed.job.id, id);
    claimed.lease
}

fn put_adapter(data_dir: &DataDir, content: usize) -> AdapterDescription {
    let files = ADAPTER_FILES.map(|name| (name, format!("{name} of {content}")));
    let lines = files.iter().map(|(name, text)| format!("{}  {name}\n", hex::encode(Sha256::digest(text))));
    let version = hex::encode(Sha256::digest(lines.collect::<String>()));
    let folder = data_dir.adapters_dir().join(&version);
    if !folder.exists() {
        let new = data_dir.temp_dir().join(&version);
        fs::create_dir(&new).unwrap();
        files.iter().for_each(|(name, text)| fs::write(new.join(name), text).unwrap());
        make_old(&new);
        fs::rename(new, folder).unwrap();
    }
    let bytes = files.iter().map(|(_, text)| text.len() as u64).sum();
    AdapterDescription { version, bytes, ..description("") }
}

fn make_old(path: &Path) {
    File::open(path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
}

impl Contents {
    /// Reads everything, with times cut to milliseconds, which is what SQLite stores.
    pub async fn read(store: &dyn Store) -> Self {
        let mut rows = BTreeMap::new();
        for owner in OWNERS {
            for dataset in store.datasets(owner, EVERYTHING).await.unwrap() {
                let fields = (&dataset.hash, dataset.bytes, &dataset.report, dataset.created_at.timestamp_millis());
                rows.insert(format!("{owner} dataset {}", dataset.id), serde_json::json!([fields, dataset.options]));
            }
            for adapter in store.adapters(owner, EVERYTHING).await.unwrap() {
                let fields = (&adapter.name, adapter.job_id, adapter.is_current, adapter.created_at.timestamp_millis());
                let value = serde_json::json!([fields, adapter.description]);
                rows.insert(format!("{owner} adapter {}", adapter.id), value);
            }
            for job in store.jobs(owner, None, EVERYTHING).await.unwrap() {
                let events = store.events(job.id, 0, 100_000).await.unwrap();
                let events: Vec<_> = events.iter().map(|event| (event.sequence, event.kind, &event.data)).collect();
                let times =
                    [Some(job.created_at), job.started_at, job.finished_at].map(|time| Some(time?.timestamp_millis()));
                let fields = (job.status, job.dataset_id, job.adapter_id, &job.metrics, &job.metadata, times);
                rows.insert(format!("{owner} job {}", job.id), serde_json::json!([fields, job.spec, events]));
            }
        }
        Self { rows }
    }

    /// Number of rows of a kind, `dataset`, `adapter` or `job`, of an owner.
    pub fn count(&self, owner: &str, kind: &str) -> usize {
        self.rows.keys().filter(|key| key.starts_with(&format!("{owner} {kind} "))).count()
    }
}

/// Checks that every row has its file, that names point to adapters, and that unfinished jobs have their dataset.
pub async fn assert_nothing_dangles(store: &dyn Store, data_dir: &Path) {
    for owner in OWNERS {
        for dataset in store.datasets(owner, EVERYTHING).await.unwrap() {
            let text = fs::read(data_dir.join("datasets").join(&dataset.hash)).expect("every dataset has its file");
            assert_eq!(hex::encode(Sha256::digest(&text)), dataset.hash);
        }
        for adapter in store.adapters(owner, EVERYTHING).await.unwrap() {
            let folder = data_dir.join("adapters").join(&adapter.description.version);
            assert!(ADAPTER_FILES.iter().all(|name| folder.join(name).exists()), "{} lacks files", folder.display());
            let name = Reference::Name(adapter.name.unwrap());
            store.resolve_adapter(owner, &name).await.expect("a name with adapters points to one");
        }
        for job in store.jobs(owner, None, EVERYTHING).await.unwrap() {
            if !job.status.is_terminal() {
                store.dataset(owner, job.dataset_id).await.expect("an unfinished job has its dataset");
            }
            if job.status == Status::Paused {
                assert!(data_dir.join("checkpoints").join(job.id.to_string()).join("manifest-1.json").exists());
            }
        }
    }
}

/// Checks that every file has a row, after garbage collection.
pub async fn assert_no_garbage(store: &dyn Store, data_dir: &Path) {
    let live = retention::live_blobs(store, Duration::ZERO).await.unwrap();
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(data_dir.join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert_eq!(names("datasets"), live.dataset_hashes.into_iter().collect());
    assert_eq!(names("adapters"), live.adapter_versions.into_iter().collect());
    let resumable: BTreeSet<String> = live.resumable_jobs.iter().map(Uuid::to_string).collect();
    assert!(names("checkpoints").is_subset(&resumable));
}
