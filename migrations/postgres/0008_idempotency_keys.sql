-- Requests with an idempotency key.
create table idempotency_keys (
    owner text not null,
    -- sha256 of the key
    key_hash text not null,
    -- sha256 of the method, the path and the query
    request_hash text not null,
    -- id of the object that the request creates
    object_id uuid not null,
    -- number of the attempt
    epoch bigint not null default 1,
    -- of the process that carries the request out
    instance_id uuid not null,
    -- null while no attempt is in flight
    lease_expires_at timestamptz,
    -- sha256 of the body; null, as the response, until an attempt has succeeded
    body_hash text,
    status bigint,
    headers jsonb,
    -- null if it is too large or holds a secret
    body text,
    created_at timestamptz not null,
    primary key (owner, key_hash)
);

create index idempotency_keys_by_age on idempotency_keys (created_at);
create index idempotency_keys_in_flight on idempotency_keys (instance_id) where lease_expires_at is not null;
