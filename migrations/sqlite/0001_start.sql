-- Times are milliseconds since 1970, ids are the 16 bytes of a UUID, and JSON is text.

-- Offset of the store's clock. Only tests change it. Every time in every table comes from `db_now`.
create table test_clock (
    only_row integer primary key default 1 check (only_row = 1),
    clock_offset integer not null default 0
) strict;

insert into test_clock default values;

create view db_now as select cast(round(unixepoch('subsec') * 1000) as integer) + clock_offset as now from test_clock;

create table datasets (
    id blob not null primary key,
    owner text not null,
    file_name text,
    hash text not null,
    bytes integer not null,
    options text not null,
    -- sha256 of the options
    options_hash text not null,
    report text not null,
    created_at integer not null,
    unique (owner, hash, options_hash)
) strict;

create index datasets_by_age on datasets (owner, created_at, id);
create index datasets_by_hash on datasets (hash);

-- dataset_id, validation_dataset_id and adapter_id are not foreign keys: a finished job outlives these rows.
create table jobs (
    id blob not null primary key,
    owner text not null,
    name text,
    status text not null check (status in ('queued', 'paused', 'running', 'succeeded', 'failed', 'cancelled')),
    requested_action text check (requested_action in ('cancel', 'pause')),
    dataset_id blob not null,
    validation_dataset_id blob,
    options text not null,
    spec text not null,
    progress text,
    metrics text,
    adapter_id blob,
    error text,
    -- number of claims
    attempt integer not null default 0,
    -- consecutive claims without a new checkpoint
    attempts_without_progress integer not null default 0,
    -- step of the newest checkpoint
    checkpoint_step integer not null default -1,
    lease_epoch integer not null default 0,
    lease_expires_at integer,
    worker_instance blob,
    worker_process blob,
    -- sequence of the newest event
    last_sequence integer not null default 0,
    created_at integer not null,
    started_at integer,
    finished_at integer,
    check ((status = 'running') = (lease_expires_at is not null))
) strict;

create index jobs_by_age on jobs (owner, created_at, id);
create index jobs_by_status on jobs (status, created_at, id);

create table events (
    job_id blob not null references jobs (id),
    sequence integer not null,
    kind text not null check (kind in ('status', 'metrics')),
    -- null except for metrics rows
    step integer,
    split text,
    data text not null,
    created_at integer not null,
    primary key (job_id, sequence),
    unique (job_id, step, split)
) strict, without rowid;

create table adapters (
    id blob not null primary key,
    owner text not null,
    name text,
    job_id blob references jobs (id),
    version text not null,
    description text not null,
    created_at integer not null
) strict;

create index adapters_by_age on adapters (owner, created_at, id);
create index adapters_by_name on adapters (owner, name, created_at, id);
create index adapters_by_version on adapters (version);

-- The adapter that each name points to.
create table adapter_names (
    owner text not null,
    name text not null,
    adapter_id blob not null references adapters (id),
    primary key (owner, name)
) strict, without rowid;

create index adapter_names_by_adapter on adapter_names (adapter_id);

-- Sort keys of deleted datasets and adapters, so that their ids stay valid as cursors of a list.
create table tombstones (
    id blob not null primary key,
    owner text not null,
    created_at integer not null
) strict;
