//! Tests of SIGKILL at any time: the job finishes and its adapter is byte-identical to that of an uninterrupted run.

use crate::api::job_traces::{
    self, JobResult, assert_clean_after_delete, attempts, events, is_soak, long_job, uninterrupted_result,
};
use crate::api::kill_points::{KillPoint, checkpoint_steps, file_names, wait_for_cleanup, wait_until};
use crate::api::server_process::{ServerConfig, ServerProcess, small_job};
use crate::support::database::Database;
use espalier_tensor::seeded_rng::SeededRng;
use serde_json::{Value, json};
use std::fs::File;
use std::time::{Duration, Instant};

/// Maximum time to resume a job after a kill; less than the lease.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(100);

/// Frequent checkpoints, so that kills hit them, no limit on attempts, and a lease that a restart cannot wait for.
const FREQUENT_CHECKPOINTS: [&str; 8] =
    ["--checkpoint-interval", "50ms", "--max-attempts", "1000", "--log-level", "debug", "--lease-duration", "10m"];

#[test]
fn repeatedly_killed_job_is_bit_identical_on_sqlite() {
    for seed in seeds(1) {
        kill_until_done(&ServerConfig::new().with_arguments(&FREQUENT_CHECKPOINTS), seed);
    }
}

#[test]
fn repeatedly_killed_job_is_bit_identical_on_postgres() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for seed in seeds(2) {
        let database = runtime.block_on(Database::postgres());
        kill_until_done(
            &ServerConfig::new().with_database(database.url().to_string()).with_arguments(&FREQUENT_CHECKPOINTS),
            seed,
        );
        runtime.block_on(database.drop_database());
    }
}

fn seeds(first: u64) -> std::ops::Range<u64> {
    first..first + if is_soak() { 5 } else { 1 }
}

/// Kill points during training, during a checkpoint and around publishing.
fn kill_points(seed: u64, whole: Duration, result: &JobResult) -> Vec<KillPoint> {
    let mut random = SeededRng::new(seed, &["kills"]);
    let count = if is_soak() { 9 } else { 2 };
    // The random delays end before half of the run, even where it is faster now, so that every kill hits it.
    let longest = whole.as_millis() as usize / 2 / count;
    let half = result.rows.iter().filter_map(|row| row["step"].as_u64()).max().unwrap() / 2;
    let delay = |_| KillPoint::After(Duration::from_millis(random.uniform_below(longest) as u64), half);
    let mut moments: Vec<KillPoint> = (0..count).map(delay).collect();
    moments.extend(vec![KillPoint::Checkpoint; count / 2]);
    random.shuffle(&mut moments);
    moments.extend([KillPoint::Adapter, KillPoint::Folder, KillPoint::Row]);
    moments
}

fn kill_until_done(setup: &ServerConfig, seed: u64) {
    let (expected, whole) = uninterrupted_result();
    let mut app = setup.start();
    let id = app.submit_job(&long_job());
    let (mut kills, mut newest) = (0, None);
    for moment in kill_points(seed, *whole, expected) {
        (app, newest) = kill_at(app, &id, moment, newest);
        kills += 1;
        if app.get(&format!("/jobs/{id}")).json()["status"] == "succeeded" {
            break;
        }
    }
    println!("seed {seed}: {kills} kills");
    assert!(kills >= if is_soak() { 14 } else { 4 }, "only {kills} kills met the job");
    assert_eq!(&JobResult::wait_for_result(&app, &id), expected);
    let events = events(&app, &id);
    // The last kill may occur after the job's end.
    assert!((kills..=kills + 1).contains(&attempts(&events)), "{events:#?}");
    assert_clean_after_delete(app, &expected.version);
}

/// Waits for an attempt that resumes from the given checkpoint, kills the server, restarts it, and returns it with its newest
/// checkpoint.
fn kill_at(app: ServerProcess, id: &str, moment: KillPoint, newest: Option<u64>) -> (ServerProcess, Option<u64>) {
    let started = Instant::now();
    app.wait_for_log_since_start("attempt started");
    assert!(started.elapsed() < RECOVERY_TIMEOUT, "the attempt began after {:?}", started.elapsed());
    moment.wait_until_reached(&app, id);
    let (setup, log) = app.kill();
    assert_resumed(&log, newest);
    let newest = checkpoint_steps(&setup.data_dir(), id).last().copied();
    (setup.start(), newest)
}

/// Checks that the attempt resumed from the newest checkpoint, if it started training.
fn assert_resumed(log: &[String], newest: Option<u64>) {
    let lines = log.iter().filter(|line| line.contains("\"training ")).map(|line| serde_json::from_str(line).unwrap());
    for line in lines.collect::<Vec<Value>>() {
        match newest {
            Some(step) => assert_eq!((&line["message"], &line["step"]), (&json!("training resumes"), &json!(step))),
            None => assert_eq!(line["message"], "training starts"),
        }
    }
}

#[test]
fn torn_checkpoint_falls_back_to_the_previous_one() {
    let (expected, _) = uninterrupted_result();
    let app = ServerConfig::new().with_arguments(&FREQUENT_CHECKPOINTS).start();
    let id = app.submit_job(&long_job());
    for _ in 0..3 {
        app.wait_for_log("checkpoint saved");
    }
    let (setup, _) = app.kill();
    let steps = checkpoint_steps(&setup.data_dir(), &id);
    let [.., before, newest] = steps[..] else { panic!("two are kept, not {steps:?}") };
    let blob = setup.data_dir().join("checkpoints").join(&id).join(format!("step-{newest}.safetensors"));
    let length = blob.metadata().unwrap().len();
    File::options().write(true).open(blob).unwrap().set_len(length / 2).unwrap();
    let app = setup.start();
    app.wait_for_log_since_start("does not verify");
    let line: Value = serde_json::from_str(&app.wait_for_log_since_start("training resumes")).unwrap();
    assert_eq!(line["step"], before);
    assert_eq!(&JobResult::wait_for_result(&app, &id), expected);
    assert_clean_after_delete(app, &expected.version);
}

#[test]
fn job_without_progress_fails_after_max_attempts() {
    let rarely = ["--checkpoint-interval", "1h", "--max-attempts", "2", "--log-level", "debug"];
    let mut app = ServerConfig::new().with_arguments(&rarely).start();
    let id = app.submit_job(&small_job(60, json!({"hyperparameters": {"epochs": 100_000}})));
    // Each attempt saves its next checkpoint after half a second, so it is killed before. The first or the second attempt makes
    // progress, depending on whether the store has recorded the checkpoint of step 0 before the first kill.
    app.wait_for_log("checkpoint saved");
    let path = format!("/jobs/{id}");
    for _ in 0..3 {
        app = app.kill_and_restart();
        wait_until("the next attempt", || {
            app.log().iter().any(|line| line.contains("training resumes"))
                || app.get(&path).json()["status"] == "failed"
        });
    }
    let job = app.get(&path).json();
    assert_eq!(job["status"], "failed", "{job:#}");
    assert!(job["attempt"].as_u64().unwrap() <= 3, "{job:#}");
    assert_eq!(job["error"]["code"], "attempts_exhausted");
    assert_eq!(app.get("/adapters").json()["data"], json!([]));
    // Its checkpoints are kept for a retry, until their time is over.
    assert!(!checkpoint_steps(&app.setup.data_dir(), &id).is_empty());
    let setup = app.kill().0.with_arguments(&["--keep-checkpoints", "1ms"]);
    wait_for_cleanup(&setup.start());
}

#[test]
fn accepted_jobs_survive_sigkill_with_their_blobs() {
    let mut random = SeededRng::new(3, &["kills of uploads"]);
    let mut setup = ServerConfig::new().with_arguments(&["--role", "api"]);
    let mut accepted = Vec::new();
    for round in 0..if is_soak() { 20 } else { 4 } {
        let app = setup.start();
        let pid = app.pid();
        let patience = Duration::from_millis(random.uniform_below(300) as u64);
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| submit_until_killed(&app, round));
            // The delay is the random input of this test, not a wait for a condition.
            std::thread::sleep(patience);
            send_sigkill(pid);
            accepted.extend(sending.join().unwrap());
        });
        setup = app.kill().0;
    }
    assert!(!accepted.is_empty());
    let app = setup.start();
    for id in &accepted {
        assert_eq!(app.get(&format!("/jobs/{id}")).json()["status"], "queued");
    }
    let files = file_names(&app.setup.data_dir().join("datasets"));
    let rows = list_all(&app, "/datasets");
    for row in &rows {
        let hash = row["hash"].as_str().unwrap();
        assert!(files.iter().any(|file| file == hash), "{row:#} has no file among {files:?}");
    }
    println!("{} jobs were accepted, {} datasets have rows", accepted.len(), rows.len());
    job_traces::assert_no_temporary_files(&app.setup.data_dir());
}

/// Returns all rows of a list.
fn list_all(app: &ServerProcess, path: &str) -> Vec<Value> {
    let mut page = app.get(&format!("{path}?limit=100")).json();
    let mut rows = page["data"].as_array().unwrap().clone();
    while let Some(next) = page["next"].as_str() {
        page = app.get(&format!("{path}?limit=100&after={next}")).json();
        rows.extend(page["data"].as_array().unwrap().iter().cloned());
    }
    rows
}

fn send_sigkill(pid: i32) {
    assert!(std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

/// Submits jobs until the server is killed and returns the ids of those answered with 202.
fn submit_until_killed(app: &ServerProcess, round: usize) -> Vec<String> {
    let mut accepted = Vec::new();
    for count in 0..100 {
        // Every job has its own dataset.
        let job = small_job(30 + 1000 * round + count, json!({"hyperparameters": {"epochs": 1}})).to_string();
        let sent = app.agent().post(app.url("/jobs")).header("content-type", "application/json").send(job.as_bytes());
        let Ok(mut answer) = sent else { break };
        assert_eq!(answer.status().as_u16(), 202);
        let Ok(body) = answer.body_mut().read_to_string() else { break };
        let job: Value = serde_json::from_str(&body).unwrap();
        accepted.push(job["id"].as_str().unwrap().to_string());
    }
    accepted
}
