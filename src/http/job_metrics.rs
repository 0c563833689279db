//! Job metrics of `GET /metrics`, read from the database in the background, so that a scrape neither waits for the database nor
//! counts the jobs itself.

use crate::store::{Job, Status, Store};
use espalier_core::error::Result;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use uuid::Uuid;

/// Interval of the reads.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);
/// Time without a scrape after which the reads end.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Time limit of the first scrape for the first read.
const FIRST_READ_TIMEOUT: Duration = Duration::from_millis(500);
/// Maximum number of running jobs with progress metrics.
const MAX_RUNNING_JOBS: u32 = 100;

/// Numbers of jobs at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSnapshot {
    pub counts: Vec<(Status, u64)>,
    pub running: Vec<RunningJob>,
}

/// Progress of a running job.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningJob {
    pub id: Uuid,
    /// Fraction of the steps that are done.
    pub progress: f64,
    pub examples_per_second: f64,
}

/// Reads the jobs while they are scraped.
pub struct JobMetrics {
    store: Arc<dyn Store>,
    snapshot: watch::Sender<Option<Arc<JobSnapshot>>>,
    /// `None` while nothing reads.
    last_scrape: Mutex<Option<Instant>>,
}

impl JobMetrics {
    pub fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { store, snapshot: watch::Sender::new(None), last_scrape: Mutex::default() })
    }

    /// Newest snapshot, a few seconds old; `None` if the database has not answered yet.
    pub async fn latest(self: &Arc<Self>) -> Option<Arc<JobSnapshot>> {
        if self.lock_last_scrape().replace(Instant::now()).is_none() {
            self.snapshot.send_replace(None);
            tokio::spawn(Arc::clone(self).refresh_loop());
        }
        let mut receiver = self.snapshot.subscribe();
        let first_read = tokio::time::timeout(FIRST_READ_TIMEOUT, receiver.wait_for(Option::is_some));
        first_read.await.ok()?.ok()?.clone()
    }

    async fn refresh_loop(self: Arc<Self>) {
        while !self.is_idle() {
            match self.read().await {
                Ok(snapshot) => drop(self.snapshot.send_replace(Some(Arc::new(snapshot)))),
                // The last snapshot stays.
                Err(error) => tracing::warn!(%error, "job metrics not refreshed"),
            }
            tokio::time::sleep(REFRESH_INTERVAL).await;
        }
    }

    fn is_idle(&self) -> bool {
        let mut last_scrape = self.lock_last_scrape();
        let is_idle = last_scrape.is_none_or(|scrape| scrape.elapsed() > IDLE_TIMEOUT);
        if is_idle {
            *last_scrape = None;
        }
        is_idle
    }

    async fn read(&self) -> Result<JobSnapshot> {
        let counts = self.store.count_jobs_by_status().await?;
        let jobs = self.store.running_jobs(MAX_RUNNING_JOBS).await?;
        Ok(JobSnapshot { counts, running: jobs.iter().filter_map(running_job).collect() })
    }

    fn lock_last_scrape(&self) -> MutexGuard<'_, Option<Instant>> {
        self.last_scrape.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn running_job(job: &Job) -> Option<RunningJob> {
    let progress = job.progress.as_ref()?;
    Some(RunningJob {
        id: job.id,
        progress: progress.step as f64 / progress.total_steps.max(1) as f64,
        examples_per_second: progress.examples_per_second,
    })
}
