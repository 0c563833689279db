//! Tests of training and managing adapters with the command line.

use crate::api::server_process::ServerConfig;
use crate::cli::run::{dataset, run};
use serde_json::Value;

#[test]
fn train_prints_a_predict_command_that_works() {
    let app = ServerConfig::new().start();
    let (folder, server) = (tempfile::tempdir().unwrap(), app.url(""));
    let file = dataset(folder.path(), 60);
    let file = file.to_str().unwrap();
    let shown = run(&["train", file, "--server", &server, "--name", "questions", "--label-column", "kind", "--wait"])
        .success_stdout();
    assert!(shown.contains(&format!("{file}: 60 rows, 60 examples\n  3 labels, 20 to 20 examples each")), "{shown}");
    assert!(shown.contains("validation accuracy"), "{shown}");
    let line = shown.lines().find(|line| line.trim_start().starts_with("espalier predict")).unwrap();
    let words: Vec<&str> = line.split_whitespace().skip(1).take_while(|word| !word.starts_with('"')).collect();
    let text = "why was I charged a transfer number 55";
    let (label, score) = run(&[&words[..], &[text]].concat()).success_stdout().split_once('\t').map(owned).unwrap();
    assert_eq!(label, "fee");
    assert!((0.0..=1.0).contains(&score.trim().parse::<f64>().unwrap()));

    let columns = ["--text-column", "text", "--label-column", "kind"];
    let predict = ["predict", "--server", &server, "--adapter", "questions", "--file", file];
    let shown = run(&[&predict[..], &columns].concat()).success_stdout();
    assert!(shown.contains("of 60 labels are right: accuracy "), "{shown}");
    let answer: Value =
        serde_json::from_str(&run(&[&predict[..], &columns, &["--json"]].concat()).success_stdout()).unwrap();
    assert_eq!(answer["predictions"].as_array().unwrap().len(), 60);
}

fn owned((first, second): (&str, &str)) -> (String, String) {
    (first.to_string(), second.to_string())
}

#[test]
fn invalid_rows_are_reported_by_file_and_line_and_no_job_is_queued() {
    let app = ServerConfig::new().start();
    let (folder, server) = (tempfile::tempdir().unwrap(), app.url(""));
    let file = folder.path().join("rows.csv");
    std::fs::write(&file, "text,label\none,a\n,b\ntwo,b\nthree\n").unwrap();
    let file = file.to_str().unwrap();
    let output = run(&["train", file, "--server", &server]);
    assert_eq!(output.code, 2);
    for line in [3, 5] {
        assert!(output.err.contains(&format!("\n{file}:{line}: ")), "{}", output.err);
    }
    assert!(output.err.contains("--on-bad-rows skip") && !output.err.contains('{'), "{}", output.err);
    assert_eq!(app.get("/jobs").json()["data"].as_array().unwrap().len(), 0);

    let missing = run(&["train", "/nowhere/rows.csv", "--server", &server]);
    assert_eq!(missing.code, 2);
    assert!(missing.err.contains("/nowhere/rows.csv: "), "{}", missing.err);
    let unknown = run(&["train", file, "--server", &server, "--on-bad-rows", "skip", "--method", "magic"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("lora"), "the error lists the methods: {}", unknown.err);
}

#[test]
fn adapters_are_listed_downloaded_imported_and_deleted() {
    let app = ServerConfig::new().start();
    let (folder, server) = (tempfile::tempdir().unwrap(), app.url(""));
    let file = dataset(folder.path(), 30);
    let trained = ["train", file.to_str().unwrap(), "--name", "first", "--label-column", "kind", "--epochs", "1"];
    let job: Value =
        serde_json::from_str(&run(&[&trained[..], &["--json", "--server", &server]].concat()).success_stdout())
            .unwrap();
    let adapters = |arguments: &[&str]| run(&[&["adapters"], arguments, &["--server", &server]].concat());
    assert!(adapters(&["list"]).success_stdout().contains("first"));
    let version = job["adapter"]["version"].as_str().or(job["adapter"].as_str()).unwrap();
    assert!(adapters(&["show", "first"]).success_stdout().contains(version));

    let zip = folder.path().join("first.zip");
    let zip = zip.to_str().unwrap();
    adapters(&["download", "first", "--output", zip]).success_stdout();
    let shown = adapters(&["upload", zip, "--name", "second"]).success_stdout();
    assert!(shown.contains(version), "equal files have equal versions: {shown}");
    adapters(&["delete", "second"]).success_stdout();
    let deleted = adapters(&["show", "second"]);
    assert_eq!(deleted.code, 2);
    assert!(deleted.err.starts_with("error: ") && !deleted.err.contains('{'), "{}", deleted.err);

    let jobs = run(&["jobs", "list", "--server", &server]).success_stdout();
    assert!(jobs.contains("first") && jobs.contains("succeeded"), "{jobs}");
    let id = job["id"].as_str().unwrap();
    assert!(run(&["jobs", "events", id, "--server", &server]).success_stdout().contains("succeeded"));
    assert_eq!(run(&["jobs", "pause", id, "--server", &server]).code, 1, "a finished job cannot be paused");
}

#[test]
fn a_threshold_decides_which_labels_are_predicted() {
    let app = ServerConfig::new().start();
    let (folder, server) = (tempfile::tempdir().unwrap(), app.url(""));
    let file = folder.path().join("tags.csv");
    let rows: String = (0..12).map(|index| format!("card number {index},card\npin number {index},pin\n")).collect();
    std::fs::write(&file, format!("text,labels\n{rows}")).unwrap();
    run(&["train", file.to_str().unwrap(), "--server", &server, "--name", "tags", "--epochs", "1", "--wait"])
        .success_stdout();
    let predict = |threshold: &str| {
        run(&["predict", "--server", &server, "--adapter", "tags", "--threshold", threshold, "card number 3"])
    };
    assert!(predict("pin=0").success_stdout().starts_with("pin\t"));
    assert!(predict("pin=1").success_stdout().starts_with("card\t"));
    let refused = predict("often");
    assert!(refused.code == 2 && refused.err.contains("give a number between 0 and 1"), "{}", refused.err);
}
