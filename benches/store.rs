//! Time of the store's calls with many jobs and events in the database, beside those with few. Prints Markdown tables.
//!
//!     cargo bench --bench store -- LARGE_URL SMALL_URL [JOBS] [EVENTS] [ROUNDS]
//!
//! The URLs name databases without tables: sqlite://FILE or postgres://…. One job is added through the store, and its row is
//! copied JOBS times (200,000) in the large database and 1,000 times in the small one: 1 % of the copies are queued, the others finished,
//! most of them with success. The large one gets EVENTS (10,000,000) metrics events, the small one as many for each job. The calls
//! alternate between both. At the end retention deletes the events of the large one while the calls go on.

#[path = "support/job_rows.rs"]
mod job_rows;

use espalier::store::{self, DEFAULT_OWNER, PageRequest, RetentionPolicy, Status, Store, WorkerId};
use job_rows::{Outcome, add_template, claim_rules, percentiles};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

type Times = BTreeMap<String, Vec<f64>>;

const LEASE: Duration = Duration::from_secs(30);
/// Pages of the default and of the maximum size.
const PAGES: [PageRequest; 2] = [PageRequest { limit: 20, after: None }, PageRequest { limit: 100, after: None }];
const SMALL_JOBS: u64 = 1000;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A filled database.
struct Subject {
    store: Arc<dyn Store>,
    /// Some of its jobs, at random.
    jobs: Vec<Uuid>,
    times: Times,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the tables are this program's output")]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let [large, small, rest @ ..] = arguments.as_slice() else {
        return Err("LARGE_URL SMALL_URL [JOBS] [EVENTS] [ROUNDS]".into());
    };
    let number = |index: usize, default: u64| rest.get(index).map_or(Ok(default), |text| text.parse());
    let (jobs, events, rounds) = (number(0, 200_000)?, number(1, 10_000_000)?, number(2, 300)?);
    let events_per_job = events / jobs;
    let mut subjects = Vec::new();
    for (url, jobs) in [(large, jobs), (small, SMALL_JOBS)] {
        fill(url, jobs, events_per_job).await?;
        let started = Instant::now();
        let store = store::connect(url).await?;
        println!("{} with {jobs} jobs opened in {:.3} s", store.backend_name(), started.elapsed().as_secs_f64());
        subjects.push(Subject { store, jobs: random_jobs(url).await?, times: Times::new() });
    }
    for round in 0..rounds {
        for subject in &mut subjects {
            subject.measure(round as usize).await?;
        }
    }
    println!(
        "\n| {}, {jobs} jobs, {events} events | median, ms | p99, ms | with {SMALL_JOBS} jobs: median | p99 | p99 ratio |",
        subjects[0].store.backend_name()
    );
    println!("|---|---|---|---|---|---|");
    for (name, times) in &subjects[0].times {
        let [(median, p99), (small_median, small_p99)] =
            [times, &subjects[1].times[name]].map(|times| percentiles(times));
        println!("| {name} | {median:.2} | {p99:.2} | {small_median:.2} | {small_p99:.2} | {:.2} |", p99 / small_p99);
    }
    measure_retention(subjects.swap_remove(0)).await
}

impl Subject {
    async fn measure(&mut self, round: usize) -> Outcome<()> {
        let store = Arc::clone(&self.store);
        for page in PAGES {
            for status in [None, Some(Status::Failed), Some(Status::Running)] {
                let name = format!("list of {} jobs, {} per page", status.map_or("all", Status::as_str), page.limit);
                self.time(&name, store.jobs(DEFAULT_OWNER, status, page)).await?;
            }
        }
        self.time("counts (in the background of /metrics)", store.count_jobs_by_status()).await?;
        self.time("jobs with checkpoints (retention)", store.resumable_jobs(DAY)).await?;
        self.poll(round).await?;
        let worker = WorkerId { instance_id: Uuid::now_v7(), process_id: Uuid::now_v7() };
        let claimed = self.time("claim", store.claim(&worker, &claim_rules(LEASE))).await?.ok_or("nothing to claim")?;
        self.time("heartbeat", store.heartbeat(&claimed.lease, LEASE, None)).await?;
        store.requeue(&claimed.lease).await?;
        Ok(())
    }

    /// What a client does that follows a job.
    async fn poll(&mut self, round: usize) -> Outcome<()> {
        let (store, job) = (Arc::clone(&self.store), self.jobs[round % self.jobs.len()]);
        self.time("job by its id", store.job(DEFAULT_OWNER, job)).await?;
        self.time("events of a job after the 20th", store.events(job, 20, 100)).await?;
        Ok(())
    }

    async fn time<T>(&mut self, name: &str, call: impl Future<Output = espalier_core::error::Result<T>>) -> Outcome<T> {
        let started = Instant::now();
        let result = call.await?;
        self.times.entry(name.to_string()).or_default().push(started.elapsed().as_secs_f64() * 1e3);
        Ok(result)
    }
}

/// Deletes the metrics of all finished jobs, and measures polls and writes meanwhile.
#[expect(clippy::print_stdout, reason = "the table is this program's output")]
async fn measure_retention(mut subject: Subject) -> Outcome<()> {
    let policy = RetentionPolicy {
        keep_jobs: None,
        max_finished_jobs: None,
        keep_events: Some(DAY),
        keep_datasets: None,
        keep_versions: None,
        keep_superseded: None,
        keep_checkpoints: DAY,
    };
    let store = Arc::clone(&subject.store);
    store.advance_clock(DAY * 30).await?;
    let (before, started) = (store.database_bytes().await?, Instant::now());
    let retention = tokio::spawn(async move {
        let deleted = store.delete_old_rows(&policy).await?;
        store.reclaim_space().await?;
        Ok::<_, espalier_core::error::Error>(deleted)
    });
    subject.times.clear();
    let mut round = 0;
    while !retention.is_finished() {
        subject.poll(round).await?;
        let store = Arc::clone(&subject.store);
        subject.time("write", store.check_write()).await?;
        round += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let deleted = retention.await??;
    let after = subject.store.database_bytes().await?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "\nretention deleted {} events in {:.0} s: {:.0} MiB before, {:.0} MiB after; meanwhile:",
        deleted.events,
        started.elapsed().as_secs_f64(),
        mib(before),
        mib(after)
    );
    println!("\n| call | times | median, ms | p99, ms | longest, ms |\n|---|---|---|---|---|");
    for (name, times) in &subject.times {
        let (median, p99) = percentiles(times);
        let longest = times.iter().copied().fold(0.0, f64::max);
        println!("| {name} | {} | {median:.2} | {p99:.2} | {longest:.2} |", times.len());
    }
    Ok(())
}

/// Fills a database without tables.
async fn fill(url: &str, jobs: u64, events_per_job: u64) -> Outcome<()> {
    let store = store::connect(url).await?;
    add_template(store.as_ref()).await?;
    copy_job(url, jobs).await?;
    add_events(url, events_per_job).await
}

async fn random_jobs(url: &str) -> Outcome<Vec<Uuid>> {
    let sql = "select id from jobs where finished_at is not null order by random() limit 500";
    Ok(match url.starts_with("sqlite") {
        true => sqlx::query_scalar(sql).fetch_all(&mut SqliteConnection::connect(url).await?).await?,
        false => sqlx::query_scalar(sql).fetch_all(&mut PgConnection::connect(url).await?).await?,
    })
}

/// Copies the only job `copies` times, a second apart, by SQL.
async fn copy_job(url: &str, copies: u64) -> Outcome<()> {
    let status = "case when number % 100 = 0 then 'queued' when number % 10 = 1 then 'failed' else 'succeeded' end";
    let owner = "case when number % 100 = 0 then 'owner-' || (number / 100 % 100) else owner end";
    let columns = "dataset_id, options, spec, base, kernels, attempt, last_sequence";
    let (id, created_at, finished_at, numbers) = match url.starts_with("sqlite") {
        true => (
            "randomblob(16)",
            "created_at + number * 1000",
            "created_at + number * 1000",
            format!(
                "with recursive numbers(number) as (select 1 union all select number + 1 from numbers where number < {copies})"
            ),
        ),
        false => (
            "gen_random_uuid()",
            "created_at + number * interval '1 second'",
            "created_at + number * interval '1 second'",
            format!("with numbers as (select generate_series(1, {copies}) as number)"),
        ),
    };
    let sql = format!(
        "insert into jobs (id, owner, status, created_at, finished_at, {columns})
         {numbers}
         select {id}, {owner}, {status}, {created_at}, case when number % 100 = 0 then null else {finished_at} end, {columns}
         from jobs, numbers;
         insert into job_turns (owner) select distinct owner from jobs where owner like 'owner-%'"
    );
    match url.starts_with("sqlite") {
        true => SqliteConnection::connect(url).await?.execute(AssertSqlSafe(sql + "; analyze")).await.map(drop)?,
        false => {
            let mut connection = PgConnection::connect(url).await?;
            connection.execute(AssertSqlSafe(sql)).await?;
            connection.execute("analyze").await?;
        }
    }
    Ok(())
}

/// Adds metrics events to all finished jobs, in the order of the jobs' ids.
async fn add_events(url: &str, events_per_job: u64) -> Outcome<()> {
    let data = r#"{"step": 10, "split": "train", "metrics": {"loss": 0.6931471805599453}}"#;
    let insert = "insert into events (job_id, sequence, kind, step, split, data, created_at)";
    match url.starts_with("sqlite") {
        true => {
            let mut connection = SqliteConnection::connect(url).await?;
            // A transaction for each sixteenth of the ids, so that the log stays small.
            for digit in 0..16 {
                let sql = format!(
                    "{insert}
                     with recursive numbers(number) as (select 2 union all select number + 1 from numbers where number <= {events_per_job})
                     select id, number, 'metrics', number, 'train', '{data}', created_at
                     from jobs cross join numbers
                     where finished_at is not null and id >= x'{digit:x}0' and id < {}
                     order by id, number",
                    if digit == 15 { "x'ffffffffffffffffffffffffffffffffff'".to_string() } else { format!("x'{:x}0'", digit + 1) }
                );
                connection.execute(AssertSqlSafe(sql)).await?;
            }
            connection.execute("analyze").await?;
        }
        false => {
            let sql = format!(
                "{insert}
                 select id, number, 'metrics', number, 'train', '{data}', created_at
                 from jobs cross join generate_series(2, {events_per_job} + 1) as number
                 where finished_at is not null"
            );
            let mut connection = PgConnection::connect(url).await?;
            connection.execute(AssertSqlSafe(sql)).await?;
            connection.execute("vacuum analyze").await?;
        }
    }
    Ok(())
}
