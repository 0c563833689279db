//! Tests of `espalier train FILE` while it watches the job: server restart and Ctrl-C.

use crate::api::job_traces::{JobResult, uninterrupted_result};
use crate::api::kill_points::checkpoint_steps;
use crate::api::server_process::{ServerConfig, ServerProcess};
use espalier_core::task::Target;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

/// Running `espalier train` command.
struct CliFollow {
    child: Child,
    lines: BufReader<ChildStdout>,
    output: String,
}

impl CliFollow {
    fn start(app: &ServerProcess, file: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_espalier"));
        command.arg("train").arg(file).args(arguments).args(["--server", &app.url("")]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines, output: String::new() }
    }

    /// Reads the output up to a line with the text.
    fn wait_for(&mut self, text: &str) {
        loop {
            let mut line = String::new();
            assert_ne!(
                self.lines.read_line(&mut line).unwrap(),
                0,
                "the command ended without \"{text}\":\n{}",
                self.output
            );
            self.output.push_str(&line);
            if line.contains(text) {
                return;
            }
        }
    }

    fn finish(mut self) -> (ExitStatus, String) {
        self.lines.read_to_string(&mut self.output).unwrap();
        (self.child.wait().unwrap(), self.output)
    }
}

/// Writes the examples of the uninterrupted job to a file.
fn dataset(folder: &Path) -> std::path::PathBuf {
    let lines = espalier_testing::jobs::examples(60).into_iter().map(|example| {
        let Target::Label(label) = example.target else { panic!("a label was expected") };
        serde_json::json!({"text": example.text, "label": label}).to_string() + "\n"
    });
    let file = folder.join("questions.jsonl");
    std::fs::write(&file, lines.collect::<String>()).unwrap();
    file
}

#[test]
fn watch_reconnects_after_a_server_restart() {
    let (expected, _) = uninterrupted_result();
    let mut app =
        ServerConfig::new().with_arguments(&["--checkpoint-interval", "50ms", "--log-level", "debug"]).start();
    let epochs = crate::api::job_traces::long_job()["hyperparameters"]["epochs"].to_string();
    let arguments = ["--wait", "--name", "questions", "--epochs", &epochs, "--seed", "7", "--method", "lora"];
    let file = dataset(app.setup.folder.path());
    let mut watcher = CliFollow::start(&app, &file, &arguments);
    app.wait_for_log("checkpoint saved");
    watcher.wait_for("step");
    let address = app.url("").trim_start_matches("http://").to_string();
    let id = app.get("/jobs").json()["data"][0]["id"].as_str().unwrap().to_string();
    let (mut setup, _) = app.kill();
    watcher.wait_for("does not answer: retrying");
    setup.listen = address;
    app = setup.start();
    let (status, output) = watcher.finish();
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(output.contains(&format!("job {id} succeeded")) && output.contains("predict with it:"), "{output}");
    assert_eq!(&JobResult::wait_for_result(&app, &id), expected);
}

#[test]
fn ctrl_c_detaches_and_prints_the_watch_command() {
    let app = ServerConfig::new().with_arguments(&["--checkpoint-interval", "50ms"]).start();
    let mut watcher =
        CliFollow::start(&app, &dataset(app.setup.folder.path()), &["--epochs", "500", "--method", "lora"]);
    watcher.wait_for("step");
    assert!(Command::new("kill").args(["-2", &watcher.child.id().to_string()]).status().unwrap().success());
    let (status, output) = watcher.finish();
    let id = app.get("/jobs").json()["data"][0]["id"].as_str().unwrap().to_string();
    assert_eq!(status.code(), Some(0), "{output}");
    let watch_command = format!("espalier jobs watch {id} --server {}", app.url(""));
    assert!(output.contains("the job continues") && output.contains(&watch_command), "{output}");
    assert_eq!(app.wait_for_job(&id)["status"], "succeeded");
    assert!(checkpoint_steps(&app.setup.data_dir(), &id).is_empty());
}
