//! Turns of the owners in the job queue. The owner with the fewest running jobs is next. Of several such owners, the one with the shortest
//! recent slot time is next, and of those with equal slot times the one that took its turn least recently.

use super::connection::{SqlStore, Transaction};
use super::database_error::Context;
use super::dialect::{Dialect, RowLock, params};
use super::row_codec::{self, DecodeRow};
use espalier_core::error::Result;
use std::time::Duration;
use uuid::Uuid;

/// Time after which the use of a training slot counts half.
const SLOT_TIME_HALF_LIFE: Duration = Duration::from_secs(600);

/// An owner's place in the order of the owners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerTurn {
    pub owner: String,
    running: u64,
    /// Queued jobs, counted up to a limit.
    queued: u64,
    /// Time in which its jobs used training slots, decayed by [`SLOT_TIME_HALF_LIFE`].
    slot_time: Duration,
    /// Number of the last turn; 0 before the first.
    last_turn: i64,
    /// Limit of its own on running jobs.
    max_running: Option<u64>,
}

/// Owners with queued jobs and the owner `$2`, with their running and queued jobs, of which at most `$1` are counted. The recursion reads one
/// entry of the index `jobs_queued` for each owner with queued jobs. The orders make Postgres read that index.
const TURNS: &str = "with recursive queued(owner) as (
        select (select owner from jobs where status = 'queued' order by owner, priority desc, created_at, id limit 1)
        union all
        select (select owner from jobs where status = 'queued' and jobs.owner > queued.owner order by owner, priority desc, created_at, id limit 1)
        from queued where queued.owner is not null
    ),
    running(owner, jobs) as (select owner, count(*) from jobs where status = 'running' group by owner)
    select job_turns.owner, last_turn, slot_time_ms, slot_time_at, (select now from db_now) as now,
        coalesce(running.jobs, 0) as running,
        case when queued.owner is null then 0 when $1 = 1 then 1 else (select count(*) from (
            select 1 from jobs where status = 'queued' and jobs.owner = job_turns.owner
            order by priority desc, created_at, id limit $1
        ) as counted) end as queued,
        (select cast(limits ->> 'running_jobs' as bigint) from owners where owners.name = job_turns.owner) as max_running
    from job_turns
    left join queued on queued.owner = job_turns.owner
    left join running on running.owner = job_turns.owner
    where queued.owner is not null or job_turns.owner = $2";

/// Adds an owner that has no turn yet.
pub async fn add_owner<D: Dialect>(transaction: &mut Transaction<D>, owner: &str) -> Result<()> {
    let sql = "insert into job_turns (owner) values ($1) on conflict (owner) do nothing";
    transaction.execute(sql, params![owner]).await.context("adding an owner of jobs")?;
    Ok(())
}

/// Owners with queued jobs that may run another one, in the order of their turns. `max_running` is the limit of owners without one of their
/// own.
pub async fn waiting<D: Dialect>(transaction: &mut Transaction<D>, max_running: Option<u64>) -> Result<Vec<OwnerTurn>> {
    let rows =
        transaction.fetch_all(TURNS, params![1_i64, None::<&str>]).await.context("reading the turns of the owners")?;
    let mut turns = decode(&rows)?;
    turns.retain(|turn| turn.may_start(max_running));
    turns.sort_unstable_by(|one, other| (one.running, one.turn()).cmp(&(other.running, other.turn())));
    Ok(turns)
}

/// Owners with queued jobs that may run another one, have fewer running jobs than `owner`, and used training slots for at least
/// `time_slice` less than it lately.
pub async fn waiting_with_less_use<D: Dialect>(
    store: &SqlStore<D>,
    owner: &str,
    time_slice: Duration,
    max_running: Option<u64>,
) -> Result<Vec<OwnerTurn>> {
    let rows = store.fetch_all(TURNS, params![1_i64, owner]).await.context("reading the turns of the owners")?;
    let mut turns = decode(&rows)?;
    let Some(mine) = turns.iter().find(|turn| turn.owner == owner).cloned() else { return Ok(Vec::new()) };
    let has_less_use = |turn: &OwnerTurn| turn.running < mine.running && turn.slot_time + time_slice <= mine.slot_time;
    turns.retain(|turn| has_less_use(turn) && turn.may_start(max_running));
    Ok(turns)
}

/// Adds the time that a job of the owner used a training slot.
pub async fn add_slot_time<D: Dialect>(store: &SqlStore<D>, owner: &str, time: Duration) -> Result<()> {
    let mut transaction = store.begin().await?;
    let sql = "select slot_time_ms, slot_time_at, (select now from db_now) as now from job_turns where owner = $1";
    let row = transaction.fetch_locked(sql, RowLock::Update, params![owner]).await;
    if let Some(row) = row.context("reading the slot time of an owner")? {
        let total = i64::try_from((decode_slot_time(&row)? + time).as_millis()).unwrap_or(i64::MAX);
        let sql = "update job_turns set slot_time_ms = $2, slot_time_at = (select now from db_now) where owner = $1";
        transaction.execute(sql, params![owner, total]).await.context("recording the slot time of an owner")?;
    }
    transaction.commit().await
}

/// Records that the owner has taken its turn.
pub async fn take<D: Dialect>(transaction: &mut Transaction<D>, owner: &str) -> Result<()> {
    let sql = "update job_turns set last_turn = (select max(last_turn) + 1 from job_turns) where owner = $1";
    transaction.execute(sql, params![owner]).await.context("recording the turn of an owner")?;
    Ok(())
}

/// Number of queued jobs that are claimed before this one, if no other job is added and all jobs take equally long; 0 for a job that is
/// not queued.
pub async fn position<D: Dialect>(store: &SqlStore<D>, id: Uuid) -> Result<u64> {
    let sql = "select mine.owner, mine.interrupted_at,
                   (select count(*) from jobs where status = 'running' and owner = mine.owner) as running,
                   (select count(*) from jobs as other
                    where other.status = 'queued' and other.owner = mine.owner
                        and (other.priority > mine.priority
                            or other.priority = mine.priority and (other.created_at, other.id) < (mine.created_at, mine.id))
                   ) as ahead
               from jobs as mine where mine.id = $1 and mine.status = 'queued'";
    let row = store.fetch_optional(sql, params![id]).await.context("counting the jobs ahead in the queue")?;
    let Some(row) = row else { return Ok(0) };
    if row.opt_timestamp("interrupted_at")?.is_some() {
        return interrupted_ahead(store, id).await;
    }
    let (owner, ahead) = (row.text("owner")?, row_codec::decode_u64(&row, "ahead")?);
    let most = row_codec::decode_u64(&row, "running")? + ahead + 1;
    let rows = store.fetch_all(TURNS, params![row_codec::to_sql_integer(most)?, owner.as_str()]).await;
    let (mine, others): (Vec<OwnerTurn>, _) =
        decode(&rows.context("reading the turns of the owners")?)?.into_iter().partition(|turn| turn.owner == owner);
    Ok(mine.first().map_or(ahead, |mine| mine.jobs_before(ahead, &others)))
}

/// Number of jobs that were interrupted before this one.
async fn interrupted_ahead<D: Dialect>(store: &SqlStore<D>, id: Uuid) -> Result<u64> {
    let sql = "select count(*) as jobs from jobs as other join jobs as mine on mine.id = $1
               where (other.interrupted_at, other.id) < (mine.interrupted_at, mine.id)";
    let row = store.fetch_one(sql, params![id]).await.context("counting the interrupted jobs")?;
    row_codec::decode_u64(&row, "jobs")
}

fn decode(rows: &[impl DecodeRow]) -> Result<Vec<OwnerTurn>> {
    let turns = rows.iter().map(|row| {
        let (running, queued) = (row_codec::decode_u64(row, "running")?, row_codec::decode_u64(row, "queued")?);
        let max_running = row.opt_integer("max_running")?.and_then(|limit| u64::try_from(limit).ok());
        Ok(OwnerTurn {
            owner: row.text("owner")?,
            running,
            queued,
            slot_time: decode_slot_time(row)?,
            last_turn: row.integer("last_turn")?,
            max_running,
        })
    });
    turns.collect()
}

/// Slot time of a row, decayed up to now.
fn decode_slot_time(row: &impl DecodeRow) -> Result<Duration> {
    let milliseconds = row_codec::decode_u64(row, "slot_time_ms")?;
    let (at, now) = (row.opt_timestamp("slot_time_at")?, row.timestamp("now")?);
    let age = at.map_or(0.0, |at| (now - at).as_seconds_f64());
    Ok(decay(Duration::from_millis(milliseconds), age))
}

/// What is left of a slot time after `seconds`.
fn decay(slot_time: Duration, seconds: f64) -> Duration {
    slot_time.mul_f64(0.5_f64.powf(seconds.max(0.0) / SLOT_TIME_HALF_LIFE.as_secs_f64()))
}

impl OwnerTurn {
    /// Whether the owner has a queued job and is below its limit on running jobs.
    fn may_start(&self, max_running: Option<u64>) -> bool {
        self.queued > 0 && self.max_running.or(max_running).is_none_or(|limit| self.running < limit)
    }

    /// Place among owners with equally many running jobs.
    fn turn(&self) -> (Duration, i64, &str) {
        (self.slot_time, self.last_turn, &self.owner)
    }

    /// Number of queued jobs that are claimed before the job that has `ahead` of its owner's queued jobs before it.
    fn jobs_before(&self, ahead: u64, others: &[Self]) -> u64 {
        // Running jobs of the owner when the job is claimed, unless some finish before; as many of the other owners' would finish too.
        let running = self.running + ahead;
        let before = |other: &Self| {
            // The owner with more running jobs took its turn before, once the other has as many.
            let is_first = (other.running, self.turn()) > (self.running, other.turn());
            (running + u64::from(is_first)).saturating_sub(other.running).min(other.queued)
        };
        ahead + others.iter().map(before).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(owner: &str, running: u64, queued: u64, last_turn: i64) -> OwnerTurn {
        OwnerTurn { owner: owner.to_string(), running, queued, slot_time: Duration::ZERO, last_turn, max_running: None }
    }

    /// Owners in the order in which they take their turns, if no job finishes.
    fn claim_order(mut turns: Vec<OwnerTurn>) -> Vec<String> {
        let mut order = Vec::new();
        let mut last_turn = turns.iter().map(|turn| turn.last_turn).max().unwrap_or(0);
        while let Some(next) = turns
            .iter_mut()
            .filter(|turn| turn.queued > 0)
            .min_by(|one, other| (one.running, one.turn()).cmp(&(other.running, other.turn())))
        {
            last_turn += 1;
            (next.queued, next.running, next.last_turn) = (next.queued - 1, next.running + 1, last_turn);
            order.push(next.owner.clone());
        }
        order
    }

    #[test]
    fn the_owner_that_used_slots_less_is_next_among_owners_with_equally_many_running_jobs() {
        let with_slot_time = |turn: OwnerTurn, seconds| OwnerTurn { slot_time: Duration::from_secs(seconds), ..turn };
        let heavy = with_slot_time(turn("heavy", 0, 3, 1), 600);
        let light = with_slot_time(turn("light", 0, 3, 9), 5);
        assert_eq!(claim_order(vec![heavy.clone(), light.clone()])[..2], ["light", "heavy"]);
        assert_eq!(heavy.jobs_before(0, std::slice::from_ref(&light)), 1);
        assert_eq!(light.jobs_before(0, &[heavy]), 0);
    }

    #[test]
    fn slot_time_decays() {
        let used = Duration::from_secs(100);
        assert_eq!(decay(used, 0.0), used);
        assert_eq!(decay(used, 1200.0), used / 4);
        assert_eq!(decay(used, -5.0), used, "a clock that went back");
    }

    #[test]
    fn the_jobs_before_a_job_are_those_that_are_claimed_before_it() {
        let cases = [
            vec![turn("a", 0, 5, 0), turn("b", 0, 2, 0)],
            vec![turn("a", 3, 5, 7), turn("b", 0, 9, 4), turn("c", 1, 1, 6)],
            vec![turn("a", 1, 4, 9), turn("b", 1, 4, 8), turn("c", 0, 4, 0)],
            vec![turn("a", 2, 20, 5), turn("b", 5, 3, 2)],
        ];
        for turns in cases {
            let order = claim_order(turns.clone());
            for (index, mine) in turns.iter().enumerate() {
                let mut others = turns.clone();
                others.remove(index);
                let places = order.iter().zip(0..).filter(|(owner, _)| **owner == mine.owner);
                for ((_, place), ahead) in places.zip(0..) {
                    assert_eq!(mine.jobs_before(ahead, &others), place, "{} {ahead} of {turns:?}", mine.owner);
                }
            }
        }
    }
}
