//! Server processes without a common folder: their blobs are in object storage.

use crate::api::job_traces::{JobResult, long_job, uninterrupted_result};
use crate::api::server_process::{ServerConfig, ServerProcess, small_job};
use crate::support::database::Database;
use crate::support::s3_server::{Fault, S3Server};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// A Postgres database and a bucket, which hosts with data folders of their own share.
struct Deployment {
    runtime: Runtime,
    database: Database,
    s3: S3Server,
}

impl Deployment {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let database = runtime.block_on(Database::postgres());
        Self { runtime, database, s3: S3Server::start() }
    }

    /// Settings of a host with an empty disk.
    fn host(&self, arguments: &[&str]) -> ServerConfig {
        let config = ServerConfig::new().with_database(self.database.url().to_string());
        let config = config.with_arguments(&["--blob-store", &self.s3.url("blobs")]).with_arguments(arguments);
        S3Server::credentials().iter().fold(config, |config, (name, value)| config.with_environment(name, value))
    }

    fn drop_database(self) {
        self.runtime.block_on(self.database.drop_database());
    }
}

fn predict(host: &ServerProcess, adapter: &str) -> Value {
    let answer = host.post(&format!("/predict?adapter={adapter}"), &json!({"inputs": ["where is my card"]}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["predictions"].clone()
}

#[test]
fn every_host_serves_what_another_one_stored() {
    let deployment = Deployment::new();
    let (first, second) = (deployment.host(&[]).start(), deployment.host(&["--role", "api"]).start());
    let id = first.submit_job(&small_job(30, json!({"name": "intents", "hyperparameters": {"epochs": 2}})));
    let adapter = first.wait_for_job(&id)["adapter_id"].as_str().unwrap().to_string();
    assert_eq!(predict(&first, "intents"), predict(&second, "intents"));
    let dataset = second.get(&format!("/jobs/{id}")).json()["dataset_id"].as_str().unwrap().to_string();
    for path in [format!("/datasets/{dataset}/examples"), format!("/adapters/{adapter}/lineage")] {
        let [one, other] = [&first, &second].map(|host| host.get(&path));
        assert_eq!((one.status, one.text()), (other.status, other.text()), "{path}");
    }
    let [zip, other_zip] = [&first, &second].map(|host| host.get(&format!("/adapters/{adapter}/download")).body);
    assert_eq!(zip, other_zip);
    // The other host trains on a dataset that it does not have.
    let third = deployment.host(&["--role", "worker"]).start();
    drop(first);
    let again =
        json!({"dataset_id": dataset, "name": "again", "hyperparameters": {"epochs": 2}, "from_adapter": "intents"});
    let again = second.submit_job(&again);
    second.wait_for_job(&again);
    predict(&second, "again");
    // What is deleted on one host is gone from the bucket.
    assert_eq!(deployment.s3.objects("blobs/adapters").len(), 6);
    for name in ["again", "intents"] {
        assert_eq!(second.delete(&format!("/adapters/{name}")).status, 204);
    }
    assert_eq!(deployment.s3.objects("blobs/adapters").len(), 0);
    assert_eq!(deployment.s3.objects("blobs/checkpoints").len(), 0);
    drop((second, third));
    deployment.drop_database();
}

#[test]
fn a_job_of_a_killed_host_resumes_on_another_one_with_an_empty_disk() {
    let deployment = Deployment::new();
    let short = ["--lease-duration", "3s", "--heartbeat-interval", "500ms", "--poll-interval", "50ms"];
    let often = ["--checkpoint-interval", "100ms"];
    let first = deployment.host(&short).with_arguments(&often).start();
    let id = first.submit_job(&long_job());
    let checkpoints = format!("blobs/checkpoints/{id}");
    while deployment.s3.objects(&checkpoints).is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let second = deployment.host(&short).with_arguments(&often).start();
    let killed = Instant::now();
    first.kill();
    // Damaged transfers are repeated; the checkpoint itself is intact.
    deployment.s3.set_fault(Fault::WrongByte(3));
    let line = second.wait_for_log("resuming from a checkpoint in object storage");
    println!("resumed {:.1} s after the kill: {line}", killed.elapsed().as_secs_f64());
    let result = JobResult::wait_for_result(&second, &id);
    assert_eq!(result, uninterrupted_result().0);
    assert_eq!(deployment.s3.objects(&checkpoints).len(), 0);
    assert_eq!(deployment.s3.objects("blobs/quarantine").len(), 0);
    drop(second);
    deployment.drop_database();
}

#[test]
fn faults_of_the_object_storage_are_retried() {
    let deployment = Deployment::new();
    let (first, second) = (deployment.host(&[]).start(), deployment.host(&["--role", "api"]).start());
    let faults = [
        Fault::InternalError(3),
        Fault::SlowDown(3),
        Fault::CutBody(2),
        Fault::WrongByte(2),
        Fault::Delay(Duration::from_millis(30)),
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        let before = deployment.s3.injected_faults();
        deployment.s3.set_fault(fault);
        let name = format!("intents-{number}");
        let job = json!({"name": name, "hyperparameters": {"epochs": 2, "seed": number}});
        let id = first.submit_job(&small_job(30, job));
        first.wait_for_job(&id);
        assert_eq!(predict(&second, &name), predict(&first, &name), "{fault:?}");
        if !matches!(fault, Fault::Delay(_)) {
            assert!(deployment.s3.injected_faults() > before, "{fault:?}");
        }
    }
    drop((first, second));
    deployment.drop_database();
}

#[test]
fn requests_for_blobs_get_503_while_the_object_storage_is_down() {
    let deployment = Deployment::new();
    let (first, second) = (deployment.host(&[]).start(), deployment.host(&["--role", "api"]).start());
    let id = first.submit_job(&small_job(30, json!({"name": "intents", "hyperparameters": {"epochs": 2}})));
    first.wait_for_job(&id);
    let warm = predict(&first, "intents");
    deployment.s3.set_fault(Fault::Down);
    assert_eq!(predict(&first, "intents"), warm, "a warm adapter needs no object storage");
    let cold = second.post("/predict?adapter=intents", &json!({"inputs": ["where is my card"]}));
    assert_eq!((cold.status, &cold.json()["code"]), (503, &json!("object_storage_unavailable")), "{}", cold.text());
    assert!(cold.header("retry-after").is_some());
    let upload = first.post("/jobs", &small_job(40, json!({})));
    assert_eq!((upload.status, &upload.json()["code"]), (503, &json!("object_storage_unavailable")));
    deployment.s3.set_fault(Fault::None);
    assert_eq!(predict(&second, "intents"), warm);
    drop((first, second));
    deployment.drop_database();
}

#[test]
fn damaged_copies_are_replaced_and_damaged_objects_are_quarantined() {
    let deployment = Deployment::new();
    let first = deployment.host(&[]).start();
    let id = first.submit_job(&small_job(30, json!({"name": "intents", "hyperparameters": {"epochs": 2}})));
    first.wait_for_job(&id);
    let expected = predict(&first, "intents");
    let version = first.get("/adapters/intents").json()["version"].as_str().unwrap().replace("sha256:", "");
    let damage = |path: std::path::PathBuf| {
        let mut bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    let setup = first.setup.clone();
    drop(first);
    // The copy on the disk of the host.
    let weights = format!("adapters/{version}/adapter_model.safetensors");
    damage(setup.data_dir().join(&weights));
    let first = setup.start();
    assert_eq!(predict(&first, "intents"), expected);
    // The object itself.
    damage(deployment.s3.file(format!("blobs/{weights}")));
    let second = deployment.host(&["--role", "api"]).start();
    let answer = second.post("/predict?adapter=intents", &json!({"inputs": ["where is my card"]}));
    assert_eq!((answer.status, &answer.json()["code"]), (409, &json!("adapter_damaged")), "{}", answer.text());
    assert_eq!(deployment.s3.objects("blobs/quarantine/adapters").len(), 3);
    // An upload of the same adapter repairs it for every host.
    let zip = first.get("/adapters/intents/download").body;
    let repaired = first.post_bytes("/adapters?name=intents", "application/zip", &zip);
    assert_eq!(repaired.status, 201, "{}", repaired.text());
    assert_eq!(predict(&second, "intents"), expected);
    drop((first, second));
    deployment.drop_database();
}

#[test]
fn a_backup_has_the_blobs_of_object_storage_and_is_restored_into_another_bucket() {
    let (source, target) = (Deployment::new(), Deployment::new());
    let first = source.host(&[]).start();
    let id = first.submit_job(&small_job(30, json!({"name": "intents", "hyperparameters": {"epochs": 2}})));
    first.wait_for_job(&id);
    let expected = predict(&first, "intents");
    drop(first);
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup").into_os_string().into_string().unwrap();
    // On hosts with empty disks.
    for (deployment, command) in [(&source, "backup"), (&target, "restore")] {
        let host = deployment.host(&[]);
        // Makes the data folder.
        drop(host.start());
        let data_dir = host.data_dir().into_os_string().into_string().unwrap();
        let url = deployment.s3.url("blobs");
        let arguments = [
            command,
            &backup,
            "--data-dir",
            &data_dir,
            "--database-url",
            deployment.database.url(),
            "--blob-store",
            &url,
        ];
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_espalier"))
            .args(arguments)
            .envs(S3Server::credentials())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && !text.contains("damaged"),
            "{command}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let restored = target.host(&[]).start();
    assert_eq!(predict(&restored, "intents"), expected);
    drop(restored);
    source.drop_database();
    target.drop_database();
}
