-- Base model and kernel set that a job was submitted for; workers claim the jobs of theirs. Jobs of earlier versions have none here.
alter table jobs add column base text;
alter table jobs add column kernels text;
create index jobs_unfinished_by_platform on jobs (base, kernels, created_at, id) where status in ('queued', 'running');
create index jobs_queued_by_platform on jobs (owner, base, kernels, priority desc, created_at, id) where status = 'queued';
