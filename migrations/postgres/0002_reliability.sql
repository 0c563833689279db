-- Failed attempts are counted by their reason, and the next one may have to wait.

-- consecutive attempts without a new checkpoint that ended with their process
alter table jobs add column process_deaths bigint not null default 0;
-- consecutive attempts without a new checkpoint that ended in an internal error
alter table jobs add column internal_errors bigint not null default 0;
-- earliest time of the next attempt of a queued job
alter table jobs add column next_attempt_at timestamptz;
alter table jobs drop column attempts_without_progress;

-- Claims read the unfinished jobs in order, whatever the number of finished ones.
create index jobs_unfinished on jobs (created_at, id) where status in ('queued', 'running');
-- Lists of one status.
create index jobs_by_owner_and_status on jobs (owner, status, created_at, id);
-- Retention.
create index jobs_by_finish on jobs (finished_at) where finished_at is not null;
create index adapters_by_job on adapters (job_id);
