-- Time in which the jobs of an owner used training slots, decayed up to `slot_time_at`.
alter table job_turns add column slot_time_ms integer not null default 0;
alter table job_turns add column slot_time_at integer;
