//! Data of earlier releases, opened by this version. `scripts/release-fixture.sh` makes it.

use crate::api::server_process::{ServerConfig, ServerProcess};
use crate::support::database::Database;
use espalier_testing::jobs::fixture;
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Releases, whatever their age, keep their rows.
const KEEP: [&str; 4] = ["--keep-jobs", "forever", "--keep-events", "forever"];

fn releases() -> Vec<PathBuf> {
    let folder = fixture("releases");
    let releases: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!releases.is_empty());
    releases
}

fn unpack(archive: &Path, target: &Path) {
    tar::Archive::new(GzDecoder::new(File::open(archive).unwrap())).unpack(target).unwrap();
}

fn read(path: &Path) -> String {
    let mut text = String::new();
    GzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&read(path)).unwrap()
}

#[test]
fn sqlite_data_of_every_release_is_served_unchanged() {
    for release in releases() {
        let setup = ServerConfig::new().with_arguments(&KEEP);
        unpack(&release.join("sqlite.tar.gz"), &setup.data_dir());
        check(&setup, &read_json(&release.join("sqlite.json.gz")));
    }
}

#[test]
fn postgres_data_of_every_release_is_served_unchanged() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for release in releases() {
        let dump = read(&release.join("postgres.sql.gz"));
        let database = runtime.block_on(Database::postgres_from(&dump));
        let setup = ServerConfig::new().with_arguments(&KEEP).with_database(database.url().to_string());
        unpack(&release.join("postgres.tar.gz"), &setup.data_dir());
        check(&setup, &read_json(&release.join("postgres.json.gz")));
        runtime.block_on(database.drop_database());
    }
}

/// Compares lists, jobs, events and predictions with those of the release, then lets its paused job go on.
fn check(setup: &ServerConfig, expected: &Value) {
    let app = setup.start();
    for (path, answer) in expected["answers"].as_object().unwrap() {
        assert_has_fields(&get(&app, path), answer, path);
    }
    for (adapter, answer) in expected["predictions"].as_object().unwrap() {
        let inputs = json!({"inputs": expected["inputs"]});
        let predicted = app.post(&format!("/predict?adapter={adapter}"), &inputs).json();
        assert_has_fields(&predicted, answer, adapter);
    }
    let jobs = expected["answers"]["/jobs?limit=100"]["data"].as_array().unwrap();
    let named = |name: &str| jobs.iter().find(|job| job["name"] == name).unwrap()["id"].as_str().unwrap().to_string();
    let (paused, uninterrupted) = (named("paused"), named("uninterrupted"));
    assert_eq!(app.post(&format!("/jobs/{paused}/resume"), &json!({})).status, 200);
    app.wait_for_log_since_start("training resumes");
    let version = app.wait_for_job(&paused)["adapter"]["version"].clone();
    assert_eq!(version, get(&app, &format!("/jobs/{uninterrupted}"))["adapter"]["version"]);
}

fn get(app: &ServerProcess, path: &str) -> Value {
    let response = app.agent().get(app.url(path)).header("accept", "application/json").call().unwrap();
    serde_json::from_str(&response.into_body().read_to_string().unwrap()).unwrap()
}

/// Checks that everything expected is there and equal. Later versions may add fields.
#[track_caller]
fn assert_has_fields(actual: &Value, expected: &Value, path: &str) {
    match (actual, expected) {
        (Value::Object(actual), Value::Object(expected)) => {
            for (field, expected) in expected {
                let actual = actual.get(field).unwrap_or_else(|| panic!("{path}/{field} is gone"));
                assert_has_fields(actual, expected, &format!("{path}/{field}"));
            }
        }
        (Value::Array(actual), Value::Array(expected)) => {
            assert_eq!(actual.len(), expected.len(), "{path}");
            for (index, (actual, expected)) in actual.iter().zip(expected).enumerate() {
                assert_has_fields(actual, expected, &format!("{path}/{index}"));
            }
        }
        _ => assert_eq!(actual, expected, "{path}"),
    }
}
