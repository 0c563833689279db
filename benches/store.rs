//! Time of the store's calls with many finished jobs in the database. Prints a Markdown table of medians.
//!
//!     cargo bench --bench store -- DATABASE_URL [JOBS] [ROUNDS]
//!
//! DATABASE_URL names a database without tables: sqlite://FILE or postgres://…. One job is added through the store, and its row is
//! copied JOBS times (200,000): 1 % of the copies are queued, the others finished, most of them with success.

use espalier::store::{self, DEFAULT_OWNER, Metadata, NewDataset, NewJob, PageRequest, Status, Store, WorkerId};
use espalier_core::dataset::{Format, Options, Report};
use espalier_core::training::hyperparameters::DefaultsContext;
use espalier_core::training::{Hyperparameters, Plan, Spec, Validation};
use espalier_core::{adapter, task};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};
use std::time::{Duration, Instant};
use uuid::Uuid;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const LEASE: Duration = Duration::from_secs(30);
const MAX_ATTEMPTS: u32 = 10;
/// Pages of the default and of the maximum size.
const PAGES: [PageRequest; 2] = [PageRequest { limit: 20, after: None }, PageRequest { limit: 100, after: None }];

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let [url, rest @ ..] = arguments.as_slice() else { return Err("DATABASE_URL [JOBS] [ROUNDS]".into()) };
    let jobs: u64 = rest.first().map_or(Ok(200_000), |text| text.parse())?;
    let rounds: usize = rest.get(1).map_or(Ok(50), |text| text.parse())?;
    let store = store::connect(url).await?;
    add_template(store.as_ref()).await?;
    copy_job(url, jobs).await?;
    let worker = WorkerId { instance_id: Uuid::now_v7(), process_id: Uuid::now_v7() };
    let mut table = Vec::new();
    for _ in 0..rounds {
        let mut times = Vec::new();
        for page in PAGES {
            for status in [None, Some(Status::Failed), Some(Status::Running)] {
                let name = format!("{} jobs, {} per page", status.map_or("all", Status::as_str), page.limit);
                times.push((name, timed(store.jobs(DEFAULT_OWNER, status, page)).await?));
            }
        }
        times.push(("counts (in the background of /metrics)".to_string(), timed(store.count_jobs_by_status()).await?));
        let started = Instant::now();
        let claimed = store.claim(&worker, LEASE, MAX_ATTEMPTS).await?.ok_or("nothing to claim")?;
        times.push(("claim".to_string(), started.elapsed()));
        store.requeue(&claimed.lease).await?;
        table.push(times);
    }
    report(store.backend_name(), jobs, &table);
    Ok(())
}

async fn timed<T>(call: impl Future<Output = espalier_core::error::Result<T>>) -> Outcome<Duration> {
    let started = Instant::now();
    call.await?;
    Ok(started.elapsed())
}

#[expect(clippy::print_stdout, reason = "the table is this program's output")]
fn report(database: &str, jobs: u64, table: &[Vec<(String, Duration)>]) {
    println!("| {database}, {jobs} jobs | median, ms | longest, ms |\n|---|---|---|");
    for (column, (name, _)) in table[0].iter().enumerate() {
        let mut times: Vec<f64> = table.iter().map(|row| row[column].1.as_secs_f64() * 1e3).collect();
        times.sort_by(f64::total_cmp);
        println!("| {name} | {:.2} | {:.2} |", times[times.len() / 2], times[times.len() - 1]);
    }
}

async fn add_template(store: &dyn Store) -> Outcome<()> {
    let options = Options::new(Format::Csv);
    let dataset = NewDataset {
        owner: DEFAULT_OWNER.to_string(),
        file_name: None,
        hash: "da".repeat(32),
        bytes: 1,
        options: options.clone(),
        report: Report::default(),
        limits: Default::default(),
    };
    let dataset_id = store.add_dataset(dataset).await?.id;
    let spec: Plan = template_spec().into();
    let (id, owner) = (Uuid::now_v7(), DEFAULT_OWNER.to_string());
    let job = NewJob {
        id,
        owner,
        name: None,
        dataset_id,
        validation_dataset_id: None,
        options,
        spec,
        metadata: Metadata::new(),
        created_by: None,
        trace_context: None,
    };
    store.add_job(job, 1000).await?;
    Ok(())
}

/// Specification with 77 labels, as of a job on banking77.
fn template_spec() -> Spec {
    let task = task::Config::default();
    let context = DefaultsContext {
        examples: 10_000,
        max_tokens: 128,
        learning_rate: 1e-3,
        min_steps: 1,
        metric_names: &["accuracy"],
        held_out_examples: None,
        task_defaults: task.defaults(),
    };
    Spec {
        task,
        method: adapter::Config::default(),
        from_adapter: None,
        hyperparameters: Hyperparameters::default().resolve(context, &mut Vec::new()),
        validation: Validation::Fraction(0.1),
        selection_metric: None,
        samples: None,
        labels: (0..77).map(|label| format!("label_number_{label}")).collect(),
        micro_batch_tokens: 4096,
        kernels: "cpu".to_string(),
        base: "ba".repeat(32),
    }
}

/// Copies the only job `copies` times, a second apart, by SQL.
async fn copy_job(url: &str, copies: u64) -> Outcome<()> {
    let status = "case when number % 100 = 0 then 'queued' when number % 10 = 1 then 'failed' else 'succeeded' end";
    let columns = "owner, dataset_id, options, spec, attempt, last_sequence";
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
        "insert into jobs (id, status, created_at, finished_at, {columns})
         {numbers}
         select {id}, {status}, {created_at}, case when number % 100 = 0 then null else {finished_at} end, {columns}
         from jobs, numbers"
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
