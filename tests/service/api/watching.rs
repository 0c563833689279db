//! `espalier train FILE`, while it waits: it bears a server that restarts, and Ctrl-C leaves the job alone.

use crate::api::app::{App, Setup};
use crate::api::moments::checkpoints;
use crate::api::traces::{Trace, undisturbed};
use espalier_core::task::Target;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

/// A running client.
struct Watcher {
    child: Child,
    lines: BufReader<ChildStdout>,
    said: String,
}

impl Watcher {
    fn start(app: &App, file: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_espalier"));
        command.arg("train").arg(file).args(arguments).args(["--server", &app.url("")]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines, said: String::new() }
    }

    /// Until it has said it.
    fn wait_for(&mut self, text: &str) {
        loop {
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "it ended without \"{text}\":\n{}", self.said);
            self.said.push_str(&line);
            if line.contains(text) {
                return;
            }
        }
    }

    fn end(mut self) -> (ExitStatus, String) {
        self.lines.read_to_string(&mut self.said).unwrap();
        (self.child.wait().unwrap(), self.said)
    }
}

/// The examples of the undisturbed job, as a file.
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
fn a_command_that_waits_goes_on_following_when_the_server_is_killed_and_restarted() {
    let (expected, _) = undisturbed();
    let mut app = Setup::new().with(&["--checkpoint-every", "50ms", "--log-level", "debug"]).start();
    let epochs = crate::api::traces::long_job()["hyperparameters"]["epochs"].to_string();
    let arguments = ["--wait", "--name", "questions", "--epochs", &epochs, "--seed", "7", "--method", "lora"];
    let file = dataset(app.setup.folder.path());
    let mut watcher = Watcher::start(&app, &file, &arguments);
    app.wait_for_log("checkpoint saved");
    watcher.wait_for("step");
    let address = app.url("").trim_start_matches("http://").to_string();
    let id = app.get("/jobs").json()["data"][0]["id"].as_str().unwrap().to_string();
    let (mut setup, _) = app.kill();
    watcher.wait_for("waiting for it");
    setup.listen = address;
    app = setup.start();
    let (status, said) = watcher.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains(&format!("job {id} succeeded")) && said.contains("predict with it:"), "{said}");
    assert_eq!(&Trace::of(&app, &id), expected);
}

#[test]
fn ctrl_c_leaves_the_job_and_says_how_to_come_back() {
    let app = Setup::new().with(&["--checkpoint-every", "50ms"]).start();
    let mut watcher = Watcher::start(&app, &dataset(app.setup.folder.path()), &["--epochs", "500", "--method", "lora"]);
    watcher.wait_for("step");
    assert!(Command::new("kill").args(["-2", &watcher.child.id().to_string()]).status().unwrap().success());
    let (status, said) = watcher.end();
    let id = app.get("/jobs").json()["data"][0]["id"].as_str().unwrap().to_string();
    assert_eq!(status.code(), Some(0), "{said}");
    let back = format!("espalier jobs watch {id} --server {}", app.url(""));
    assert!(said.contains("the job goes on without you") && said.contains(&back), "{said}");
    assert_eq!(app.wait(&id)["status"], "succeeded");
    assert!(checkpoints(&app.setup.data(), &id).is_empty());
}
