-- Pairs that the owner attaches to a job.
alter table jobs add column metadata jsonb not null default '{}';
