-- Retention: what was used last, what is superseded, what is deleted already, and owners whose data is being deleted.

-- last upload of the dataset, or submission of a job that uses it; null as at its creation
alter table datasets add column last_used_at timestamptz;
create index datasets_by_use on datasets (coalesce(last_used_at, created_at));
-- since when the adapter's name points to another adapter; null as at its creation
alter table adapters add column superseded_at timestamptz;
-- when the metrics events of the finished job were deleted
alter table jobs add column metrics_deleted_at timestamptz;
create index jobs_by_owner_and_finish on jobs (owner, finished_at, id) where finished_at is not null;
create index jobs_with_metrics_by_finish on jobs (finished_at, id)
    where finished_at is not null and metrics_deleted_at is null;
alter table tombstones add column deleted_at timestamptz;
update tombstones set deleted_at = (select now from db_now);
create index tombstones_by_owner on tombstones (owner);
create index tombstones_by_deletion on tombstones (deleted_at);

-- Owners whose data is being deleted. Nothing can be added for them until it is done.
create table owner_deletions (
    owner text primary key,
    started_at timestamptz not null
);
