//! Tests of `espalier doctor`.

use crate::api::otlp_collector::Collector;
use crate::api::server_process::ServerConfig;
use crate::cli::run::run;
use espalier_testing::jobs;

#[test]
fn doctor_passes_on_a_healthy_machine() {
    let setup = ServerConfig::new();
    let app = setup.start();
    let (model, data) = (jobs::fixture("tiny-bert"), setup.data_dir());
    let flags = ["--model", model.to_str().unwrap(), "--data-dir", data.to_str().unwrap(), "--listen"];
    let address = app.url("").trim_start_matches("http://").to_string();
    let shown = run(&[&["doctor"], &flags[..], &[&address]].concat()).success_stdout();
    assert!(shown.contains("tiny-bert") && shown.contains("sha256:"), "{shown}");
    assert!(shown.contains(&format!("espalier {} is running", env!("CARGO_PKG_VERSION"))), "{shown}");
    assert!(shown.contains("sqlite answers"), "{shown}");
}

#[test]
fn doctor_checks_metrics_and_traces() {
    let setup = ServerConfig::new().with_environment("ESPALIER_API_KEYS", "the-key-of-the-server");
    let (app, collector) = (setup.start(), Collector::start());
    let (model, data) = (jobs::fixture("tiny-bert"), setup.data_dir());
    let address = app.url("").trim_start_matches("http://").to_string();
    let flags =
        ["doctor", "--model", model.to_str().unwrap(), "--data-dir", data.to_str().unwrap(), "--listen", &address];
    let key = ["--api-keys", "the-key-of-the-server"];
    let shown = run(&[&flags[..], &key, &["--otlp-endpoint", &collector.endpoint]].concat()).success_stdout();
    assert!(shown.contains("/metrics answers with") && shown.contains("accepts traces"), "{shown}");
    assert_eq!(collector.spans().len(), 0, "an export without spans");
    let failed =
        run(&[&flags[..], &["--api-keys", "the-key-of-another-server"], &["--otlp-endpoint", "http://127.0.0.1:1"]]
            .concat());
    assert_eq!(failed.code, 1);
    assert!(failed.out.contains("refuses the key") && failed.out.contains("does not accept traces"), "{}", failed.out);
}

#[test]
fn doctor_reports_problems_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let flags =
        ["doctor", "--model", "/nowhere", "--listen", "127.0.0.1:0", "--json", "--data-dir", data.to_str().unwrap()];
    let output = run(&flags);
    assert_eq!(output.code, 1);
    let results: serde_json::Value = serde_json::from_str(&output.out).unwrap();
    assert_eq!(results[0]["status"], "fail");
    assert!(results[0]["detail"].as_str().unwrap().contains("/nowhere"));
    assert!(!data.exists(), "doctor creates nothing");
}
