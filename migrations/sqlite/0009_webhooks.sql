-- Endpoints that are called when a job ends.
create table webhooks (
    id blob not null primary key,
    owner text not null,
    url text not null,
    events text not null,
    -- key of the signatures
    secret text not null,
    disabled_at integer,
    consecutive_failures integer not null default 0,
    created_at integer not null
) strict;

create index webhooks_by_age on webhooks (owner, created_at, id);

-- webhook_id is not a foreign key: a job that ends must not fail because a webhook is deleted at that moment.
create table webhook_deliveries (
    id blob not null primary key,
    webhook_id blob not null,
    event text not null,
    payload text not null,
    status text not null default 'pending' check (status in ('pending', 'delivered', 'failed')),
    attempts integer not null default 0,
    next_attempt_at integer,
    lease_expires_at integer,
    -- of the last attempt
    response_status integer,
    error text,
    created_at integer not null,
    finished_at integer
) strict;

create index webhook_deliveries_by_age on webhook_deliveries (webhook_id, created_at, id);
create index webhook_deliveries_due on webhook_deliveries (next_attempt_at, id) where status = 'pending';
create index webhook_deliveries_by_finish on webhook_deliveries (finished_at) where finished_at is not null;
