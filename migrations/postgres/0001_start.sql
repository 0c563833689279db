-- Offset of the store's clock. Only tests change it. Every time in every table comes from `db_now`.
create table test_clock (
    only_row boolean primary key default true check (only_row),
    clock_offset interval not null default interval '0'
);

insert into test_clock default values;

-- clock_timestamp() instead of now(): a transaction that waits for a lock must not write a time from before the wait.
create view db_now as select clock_timestamp() + clock_offset as now from test_clock;

create table datasets (
    id uuid primary key,
    owner text not null,
    file_name text,
    hash text not null,
    bytes bigint not null,
    options jsonb not null,
    -- sha256 of the options, which may be too long for an index
    options_hash text not null,
    report jsonb not null,
    created_at timestamptz not null,
    unique (owner, hash, options_hash)
);

create index datasets_by_age on datasets (owner, created_at, id);
create index datasets_by_hash on datasets (hash);

-- dataset_id, validation_dataset_id and adapter_id are not foreign keys: a finished job outlives these rows.
create table jobs (
    id uuid primary key,
    owner text not null,
    name text,
    status text not null check (status in ('queued', 'paused', 'running', 'succeeded', 'failed', 'cancelled')),
    requested_action text check (requested_action in ('cancel', 'pause')),
    dataset_id uuid not null,
    validation_dataset_id uuid,
    options jsonb not null,
    spec jsonb not null,
    progress jsonb,
    metrics jsonb,
    adapter_id uuid,
    error jsonb,
    -- number of claims
    attempt bigint not null default 0,
    -- consecutive claims without a new checkpoint
    attempts_without_progress bigint not null default 0,
    -- step of the newest checkpoint
    checkpoint_step bigint not null default -1,
    lease_epoch bigint not null default 0,
    lease_expires_at timestamptz,
    worker_instance uuid,
    worker_process uuid,
    -- sequence of the newest event
    last_sequence bigint not null default 0,
    created_at timestamptz not null,
    started_at timestamptz,
    finished_at timestamptz,
    check ((status = 'running') = (lease_expires_at is not null))
);

create index jobs_by_age on jobs (owner, created_at, id);
create index jobs_by_status on jobs (status, created_at, id);

create table events (
    job_id uuid not null references jobs (id),
    sequence bigint not null,
    kind text not null check (kind in ('status', 'metrics')),
    -- null except for metrics rows
    step bigint,
    split text,
    data jsonb not null,
    created_at timestamptz not null,
    primary key (job_id, sequence),
    unique (job_id, step, split)
);

create table adapters (
    id uuid primary key,
    owner text not null,
    name text,
    job_id uuid references jobs (id),
    version text not null,
    description jsonb not null,
    created_at timestamptz not null
);

create index adapters_by_age on adapters (owner, created_at, id);
create index adapters_by_name on adapters (owner, name, created_at, id);
create index adapters_by_version on adapters (version);

-- The adapter that each name points to.
create table adapter_names (
    owner text not null,
    name text not null,
    adapter_id uuid not null references adapters (id),
    primary key (owner, name)
);

create index adapter_names_by_adapter on adapter_names (adapter_id);

-- Sort keys of deleted datasets and adapters, so that their ids stay valid as cursors of a list.
create table tombstones (
    id uuid primary key,
    owner text not null,
    created_at timestamptz not null
);
