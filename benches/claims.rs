//! Claims of several workers on one PostgreSQL with a long queue. Prints a Markdown table.
//!
//!     cargo bench --bench claims -- URL [QUEUED] [WORKERS] [CLAIMS]
//!
//! The URL names a database without tables. QUEUED (100,000) jobs of 100 owners are queued. Each of WORKERS (8) has connections of its own, claims
//! CLAIMS (1,000) jobs one after another and ends each. No job may be claimed twice. The other calls are those of one worker or replica: a poll of
//! the queue by a worker that finds no job of its platform, a heartbeat, and a lookup of a name.

#[path = "support/job_rows.rs"]
mod job_rows;

use espalier::store::{self, DEFAULT_OWNER, Reference, RequestedAction, WorkerId};
use job_rows::{Outcome, add_template, claim_rules, percentiles};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::collections::HashSet;
use std::time::{Duration, Instant};
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(30);
const CALLS: usize = 1000;

/// Claimed jobs, and the milliseconds of each claim.
type Claims = (Vec<Uuid>, Vec<f64>);

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the table is this program's output")]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let [url, rest @ ..] = arguments.as_slice() else { return Err("URL [QUEUED] [WORKERS] [CLAIMS]".into()) };
    let number = |index: usize, default: u64| rest.get(index).map_or(Ok(default), |text| text.parse());
    let (queued, workers, claims) = (number(0, 100_000)?, number(1, 8)?, number(2, 1000)?);
    add_template(store::connect(url).await?.as_ref()).await?;
    queue_copies(url, queued).await?;
    let started = Instant::now();
    let workers = (0..workers).map(|_| tokio::spawn(claim_jobs(url.clone(), claims))).collect::<Vec<_>>();
    let (mut jobs, mut times) = (Vec::new(), Vec::new());
    for worker in workers {
        let (claimed, took) = worker.await??;
        jobs.extend(claimed);
        times.extend(took);
    }
    let (seconds, (median, p99)) = (started.elapsed().as_secs_f64(), percentiles(&times));
    let distinct: HashSet<&Uuid> = jobs.iter().collect();
    if distinct.len() != jobs.len() {
        return Err(format!("{} jobs were claimed twice", jobs.len() - distinct.len()).into());
    }
    println!("| queued jobs | claims | claims/s | median, ms | p99, ms | longest, ms |");
    println!("|---|---|---|---|---|---|");
    let longest = times.iter().copied().fold(0.0, f64::max);
    println!(
        "| {queued} | {} | {:.0} | {median:.1} | {p99:.1} | {longest:.1} |",
        jobs.len(),
        jobs.len() as f64 / seconds
    );
    println!("\n| call | median, ms | p99, ms |\n|---|---|---|");
    for (name, times) in other_calls(url).await? {
        let (median, p99) = percentiles(&times);
        println!("| {name} | {median:.2} | {p99:.2} |");
    }
    Ok(())
}

/// Milliseconds of calls that every worker or replica repeats.
async fn other_calls(url: &str) -> Outcome<[(&'static str, Vec<f64>); 3]> {
    let store = store::connect(url).await?;
    let worker = WorkerId { instance_id: Uuid::now_v7(), process_id: Uuid::now_v7() };
    let mut rules = claim_rules(LEASE);
    let claimed = store.claim(&worker, &rules).await?.ok_or("nothing to claim")?;
    rules.platform.kernels = "none".to_string();
    let missing = Reference::Name("missing".to_string());
    let (mut polls, mut heartbeats, mut lookups) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..CALLS {
        let started = Instant::now();
        store.claim(&worker, &rules).await?;
        polls.push(started.elapsed().as_secs_f64() * 1e3);
        let started = Instant::now();
        store.heartbeat(&claimed.lease, LEASE, None).await?;
        heartbeats.push(started.elapsed().as_secs_f64() * 1e3);
        let started = Instant::now();
        // A name that does not exist is looked up in the same way.
        let _ = store.resolve_adapter(DEFAULT_OWNER, &missing).await;
        lookups.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok([("poll without a job", polls), ("heartbeat", heartbeats), ("lookup of a name", lookups)])
}

async fn claim_jobs(url: String, count: u64) -> Outcome<Claims> {
    let store = store::connect(&url).await?;
    let worker = WorkerId { instance_id: Uuid::now_v7(), process_id: Uuid::now_v7() };
    let (mut jobs, mut times) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let started = Instant::now();
        let claimed = store.claim(&worker, &claim_rules(LEASE)).await?.ok_or("nothing to claim")?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
        jobs.push(claimed.job.id);
        store.complete_requested_action(&claimed.lease, RequestedAction::Cancel).await?;
    }
    Ok((jobs, times))
}

/// Queues copies of the only job for 100 owners.
async fn queue_copies(url: &str, copies: u64) -> Outcome<()> {
    let columns = "dataset_id, options, spec, base, kernels, attempt, last_sequence";
    let sql = format!(
        "insert into jobs (id, owner, status, created_at, {columns})
         select gen_random_uuid(), 'owner-' || (number % 100), 'queued', created_at + number * interval '1 second', {columns}
         from jobs, generate_series(1, {copies}) as number;
         insert into job_turns (owner) select distinct owner from jobs where owner like 'owner-%'"
    );
    let mut connection = PgConnection::connect(url).await?;
    connection.execute(AssertSqlSafe(sql)).await?;
    connection.execute("vacuum analyze").await?;
    Ok(())
}
