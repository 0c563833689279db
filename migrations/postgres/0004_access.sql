-- API keys, owners, shared adapters, the audit log and the usage of each day.

-- Limits of an owner. An owner without a row has the limits of the settings.
create table owners (
    name text primary key,
    limits jsonb not null default '{}',
    created_at timestamptz not null
);

create table api_keys (
    id uuid primary key,
    owner text not null,
    name text not null,
    -- first characters of the key, to recognize it
    prefix text not null,
    -- sha256 of the key, hexadecimal
    digest text not null unique,
    scopes jsonb not null,
    -- patterns of the names of adapters; null for all
    adapters jsonb,
    limits jsonb not null default '{}',
    created_by text not null,
    created_at timestamptz not null,
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz
);

create index api_keys_by_age on api_keys (created_at, id);

-- Increases with each change of a key or an owner, so that other processes notice it.
create table access_version (
    only_row boolean primary key default true check (only_row),
    version bigint not null default 0
);

insert into access_version default values;

-- Owners that may read and use an adapter of another owner; '*' stands for all.
create table adapter_shares (
    adapter_id uuid not null references adapters (id) on delete cascade,
    grantee text not null,
    created_at timestamptz not null,
    primary key (adapter_id, grantee)
);

create index adapter_shares_by_grantee on adapter_shares (grantee, adapter_id);

-- Who created a job: the name and id of a key, or another credential.
alter table jobs add column created_by text;

-- What callers changed. Rows are inserted and, after their time, deleted; never updated.
create table audit_log (
    id uuid primary key,
    created_at timestamptz not null,
    -- owner and credential of the caller; null where the request had none that is valid
    owner text,
    credential text,
    -- operation id of the API
    action text not null,
    -- path of the object, such as /jobs/{id}
    object text,
    status bigint not null,
    client_address text,
    request_id text not null
);

create index audit_log_by_age on audit_log (created_at, id);
create index audit_log_by_owner on audit_log (owner, created_at, id);

create table usage_daily (
    owner text not null,
    -- days since 1970, UTC
    day bigint not null,
    -- name of the adapter, or its id; empty for the base model
    adapter text not null,
    requests bigint not null,
    input_tokens bigint not null,
    output_tokens bigint not null,
    primary key (owner, day, adapter)
);
