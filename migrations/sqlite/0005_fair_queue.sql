-- Claims take the owners in turn. The priority orders the queued jobs of one owner.
alter table jobs add column priority integer not null default 0 check (priority between -100 and 100);
-- When a shutdown returned the running job to the queue; null once it goes on or leaves the queue.
alter table jobs add column interrupted_at integer;

-- The next job of each owner.
create index jobs_queued on jobs (owner, priority desc, created_at, id) where status = 'queued';
-- Jobs that go on before others start: those of expired leases, and those that a shutdown interrupted.
create index jobs_by_lease on jobs (lease_expires_at) where lease_expires_at is not null;
create index jobs_interrupted on jobs (interrupted_at) where interrupted_at is not null;

-- Owners of jobs. The turns are numbered in the order in which the owners took them.
create table job_turns (
    owner text not null primary key,
    -- number of the owner's last turn
    last_turn integer not null default 0
) strict, without rowid;

insert into job_turns (owner) select distinct owner from jobs;
