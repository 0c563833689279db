//! Jobs and their reference results: the files and the predictions of each adapter, from a server without faults.

use crate::server_process::{ServerConfig, small_job};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const METHODS: [&str; 4] = ["lora", "ia3", "bias", "head"];
const SEEDS: usize = 2;

const TEXTS: [&str; 4] =
    ["where is my card", "why was I charged a fee", "how do I change the pin of my new card, please?", "and?"];

/// A job without a name, and its result.
pub struct ReferenceJob {
    pub job: Value,
    pub version: String,
    /// Contents by file name.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Predictions for each text.
    pub predictions: Vec<Value>,
}

pub struct Reference {
    pub jobs: Vec<ReferenceJob>,
}

impl Reference {
    pub fn train() -> Self {
        let server = ServerConfig::new().start();
        let train = |number: usize| {
            let method = METHODS[number % METHODS.len()];
            let epochs = if method == "head" { 800 } else { 80 };
            let fields = json!({"method": {"type": method}, "hyperparameters": {"epochs": epochs, "seed": number}});
            let mut job = small_job(36 + number, fields);
            job["name"] = json!(format!("reference-{number}"));
            let trained = server.train_to_success(&job);
            let version = trained["adapter"]["version"].as_str().unwrap().to_string();
            let folder = server.setup.data_dir().join("adapters").join(version.trim_start_matches("sha256:"));
            let file = |entry: std::io::Result<std::fs::DirEntry>| {
                let entry = entry.unwrap();
                (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
            };
            let predict = |text: usize| {
                let path = format!("/predict?adapter=reference-{number}");
                server.post(&path, &request(text)).json()["predictions"].clone()
            };
            ReferenceJob {
                job,
                version,
                files: std::fs::read_dir(folder).unwrap().map(file).collect(),
                predictions: (0..TEXTS.len()).map(predict).collect(),
            }
        };
        Self { jobs: (0..METHODS.len() * SEEDS).map(train).collect() }
    }

    pub fn by_version(&self, version: &str) -> Option<usize> {
        self.jobs.iter().position(|job| job.version == version)
    }
}

/// Number of texts of [`request`].
pub const fn text_count() -> usize {
    TEXTS.len()
}

/// Body of a prediction.
pub fn request(text: usize) -> Value {
    json!({"inputs": [TEXTS[text]]})
}
