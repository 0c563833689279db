//! Jobs and predictions of clients, and the checks of every answer.

use crate::Plan;
use crate::client::{Answer, Client, Request};
use crate::cluster::{Cluster, REPLICAS};
use crate::reference::{self, Reference};
use crate::report::Report;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time within which every replica knows the version that a name refers to, if nothing fails.
const NAME_DELAY: Duration = Duration::from_secs(2);

/// The same after a fault: a replica that could not look a name up tries again within 3 seconds.
const NAME_DELAY_AFTER_FAULT: Duration = Duration::from_secs(4);

/// Share of the jobs that are cancelled.
const CANCELLED: f64 = 0.05;

pub struct Load<'test> {
    plan: &'test Plan,
    cluster: &'test Cluster<'test>,
    reference: &'test Reference,
    report: &'test Report,
    started: Instant,
    pub jobs: Mutex<Vec<Job>>,
    names: Mutex<Vec<Name>>,
    predictions: AtomicU64,
}

#[derive(Debug, Clone)]
pub struct Job {
    pub id: String,
    pub name: usize,
    /// Index of its reference.
    pub reference: usize,
    /// When to cancel it.
    cancel_at: Option<Instant>,
    submitted: Instant,
    pub status: Option<String>,
}

#[derive(Default, Clone)]
struct Name {
    /// References of the versions in order, and when their jobs were known to have succeeded.
    versions: Vec<(usize, Instant)>,
    /// Reference of its unfinished job.
    pending: Option<usize>,
}

impl<'test> Load<'test> {
    pub fn new(
        plan: &'test Plan,
        cluster: &'test Cluster<'test>,
        reference: &'test Reference,
        report: &'test Report,
    ) -> Self {
        let names = vec![Name::default(); usize::try_from(plan.names).unwrap()];
        Self {
            plan,
            cluster,
            reference,
            report,
            started: Instant::now(),
            jobs: Mutex::default(),
            names: Mutex::new(names),
            predictions: AtomicU64::new(0),
        }
    }

    pub fn name(number: usize) -> String {
        format!("adapter-{number}")
    }

    fn random(&self, thread: u64) -> SmallRng {
        SmallRng::seed_from_u64(self.plan.seed.wrapping_mul(1000).wrapping_add(thread))
    }

    /// Waits until a share of the work is due; returns whether that is before the deadline.
    fn wait_for_turn(&self, number: u64, count: u64, deadline: Instant) -> bool {
        let due = self.started + self.plan.duration.mul_f64(number as f64 / count as f64);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        Instant::now() < deadline
    }

    /// Submits the jobs, evenly over the first nine tenths of the time.
    pub fn submit_jobs(&self, deadline: Instant) {
        let (mut random, mut client) = (self.random(0), Client::new(self.cluster, self.report));
        for number in 0..self.plan.jobs {
            if !self.wait_for_turn(9 * number, 10 * self.plan.jobs, deadline) {
                break;
            }
            let reference = random.random_range(0..self.reference.jobs.len());
            let Some(name) = self.free_name(&mut random, reference) else { continue };
            let mut body = self.reference.jobs[reference].job.clone();
            body["name"] = json!(Self::name(name));
            client.choose_replica(random.random_range(0..REPLICAS));
            let key = format!("job-{number}");
            let request = Request { method: "POST", path: "/jobs", body: Some(&body), idempotency_key: Some(&key) };
            let Some(answer) = client.send(request) else { continue };
            self.report.check(answer.status == 202, || format!("POST /jobs: {} {}", answer.status, answer.body));
            let Some(id) = answer.body["id"].as_str() else { continue };
            let is_cancelled = random.random_bool(CANCELLED);
            let cancel_at = is_cancelled.then(|| Instant::now() + Duration::from_millis(random.random_range(0..3000)));
            let job = Job { id: id.to_string(), name, reference, cancel_at, submitted: Instant::now(), status: None };
            self.jobs.lock().unwrap().push(job);
        }
    }

    /// A name without an unfinished job: one without a version while there is one.
    fn free_name(&self, random: &mut SmallRng, reference: usize) -> Option<usize> {
        let mut names = self.names.lock().unwrap();
        let free: Vec<usize> = (0..names.len()).filter(|name| names[*name].pending.is_none()).collect();
        let unused = free.iter().copied().find(|name| names[*name].versions.is_empty());
        let name = unused.or_else(|| (!free.is_empty()).then(|| free[random.random_range(0..free.len())]))?;
        names[name].pending = Some(reference);
        Some(name)
    }

    /// Polls the unfinished jobs until the deadline, and cancels some.
    pub fn follow_jobs(&self, deadline: Instant) {
        let mut client = Client::new(self.cluster, self.report);
        while Instant::now() < deadline {
            self.poll_unfinished_jobs(&mut client);
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Number of jobs that have not ended.
    pub fn poll_unfinished_jobs(&self, client: &mut Client) -> usize {
        let unfinished =
            |jobs: &[Job]| (0..jobs.len()).filter(|index| jobs[*index].status.is_none()).collect::<Vec<_>>();
        let indices = unfinished(&self.jobs.lock().unwrap());
        for index in indices {
            let job = self.jobs.lock().unwrap()[index].clone();
            client.choose_replica(index % REPLICAS);
            if job.cancel_at.is_some_and(|at| at <= Instant::now()) {
                let answer = client.post(&format!("/jobs/{}/cancel", job.id), &json!({}));
                // 409 if it has ended.
                let is_right = answer.as_ref().is_none_or(|answer| matches!(answer.status, 200 | 409));
                self.report.check(is_right, || format!("cancel: {:?}", answer.map(|answer| answer.body)));
            }
            let Some(answer) = client.get(&format!("/jobs/{}", job.id)) else { continue };
            self.report.check(answer.status == 200, || format!("GET /jobs/{}: {}", job.id, answer.body));
            if let Some(status @ ("succeeded" | "failed" | "cancelled")) = answer.body["status"].as_str() {
                self.end_job(index, &job, status, &answer.body);
            }
        }
        unfinished(&self.jobs.lock().unwrap()).len()
    }

    fn end_job(&self, index: usize, job: &Job, status: &str, body: &Value) {
        let version = &body["adapter"]["version"];
        match status {
            "succeeded" => {
                let expected = &self.reference.jobs[job.reference].version;
                self.report.check(version == expected, || format!("job {}: {version}, not {expected}", job.id));
            }
            "cancelled" => self.report.check(job.cancel_at.is_some(), || format!("nobody cancelled job {}", job.id)),
            _ => self.report.add_violation(format!("job {} failed: {}", job.id, body["error"])),
        }
        self.jobs.lock().unwrap()[index].status = Some(status.to_string());
        let name = &mut self.names.lock().unwrap()[job.name];
        name.pending = None;
        if status == "succeeded" {
            name.versions.push((job.reference, Instant::now()));
        }
    }

    /// Predicts with random adapters until the deadline.
    pub fn predict(&self, number: u64, deadline: Instant) {
        let (mut random, mut client) = (self.random(1 + number), Client::new(self.cluster, self.report));
        let count = self.plan.predictions / crate::PREDICTING_CLIENTS;
        for turn in 0..count {
            if !self.wait_for_turn(turn, count, deadline) {
                break;
            }
            let ready = self.names_with_versions();
            if ready.is_empty() {
                continue;
            }
            let (name, text) =
                (ready[random.random_range(0..ready.len())], random.random_range(0..reference::text_count()));
            client.choose_replica(random.random_range(0..REPLICAS));
            self.predict_with(&mut client, name, text);
        }
    }

    pub fn names_with_versions(&self) -> Vec<usize> {
        let names = self.names.lock().unwrap();
        (0..names.len()).filter(|name| !names[*name].versions.is_empty()).collect()
    }

    /// Predicts a text with an adapter, and checks the answer.
    pub fn predict_with(&self, client: &mut Client, name: usize, text: usize) {
        let path = format!("/predict?adapter={}", Self::name(name));
        let Some(answer) = client.post(&path, &reference::request(text)) else { return };
        self.predictions.fetch_add(1, Ordering::Relaxed);
        if answer.status != 200 {
            self.report.add_violation(format!("{path}: {} {}", answer.status, answer.body));
            return;
        }
        let version = answer.body["adapter"]["version"].as_str().unwrap_or_default();
        let Some(found) = self.reference.by_version(version) else {
            self.report.add_violation(format!("{path}: the unknown version {version}"));
            return;
        };
        self.report.check(answer.body["predictions"] == self.reference.jobs[found].predictions[text], || {
            format!("{path}: {} is not what {version} predicts", answer.body["predictions"])
        });
        self.check_version(name, found, &answer);
    }

    fn check_version(&self, name: usize, found: usize, answer: &Answer) {
        let state = self.names.lock().unwrap()[name].clone();
        let settled_before = answer.sent - NAME_DELAY;
        let settled = state.versions.iter().rposition(|(_, at)| *at < settled_before);
        // A replica without its database serves the version that it knows.
        let is_calm = self.cluster.was_calm(answer.replica, answer.sent - NAME_DELAY_AFTER_FAULT);
        let oldest = settled.filter(|_| is_calm).unwrap_or(0);
        let is_current = state.versions[oldest..].iter().any(|(reference, _)| *reference == found);
        self.report.check(is_current || state.pending == Some(found), || {
            let current = state.versions.last().map(|(reference, _)| *reference);
            format!("{} answered with the version of job {found}; current is that of {current:?}", Self::name(name))
        });
    }

    /// Adds the totals of jobs and predictions to the report.
    pub fn report_totals(&self) {
        let jobs = self.jobs.lock().unwrap();
        let count = |status: &str| jobs.iter().filter(|job| job.status.as_deref() == Some(status)).count();
        let names = self.names_with_versions().len();
        self.report.add_line(format!(
            "{} jobs: {} succeeded, {} cancelled; {} predictions over {names} adapters",
            jobs.len(),
            count("succeeded"),
            count("cancelled"),
            self.predictions.load(Ordering::Relaxed),
        ));
    }

    /// Time since the submission of the oldest unfinished job.
    pub fn oldest_unfinished(&self) -> Option<(String, Duration)> {
        let jobs = self.jobs.lock().unwrap();
        jobs.iter().find(|job| job.status.is_none()).map(|job| (job.id.clone(), job.submitted.elapsed()))
    }
}
