-- Pairs that the owner attaches to a job.
alter table jobs add column metadata text not null default '{}';
