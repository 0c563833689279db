-- Requests with an idempotency key.
create table idempotency_keys (
    owner text not null,
    -- sha256 of the key
    key_hash text not null,
    -- sha256 of the method, the path and the query
    request_hash text not null,
    -- id of the object that the request creates
    object_id blob not null,
    -- number of the attempt
    epoch integer not null default 1,
    -- of the process that carries the request out
    instance_id blob not null,
    -- null while no attempt is in flight
    lease_expires_at integer,
    -- sha256 of the body; null, as the response, until an attempt has succeeded
    body_hash text,
    status integer,
    headers text,
    -- null if it is too large or holds a secret
    body text,
    created_at integer not null,
    primary key (owner, key_hash)
) strict, without rowid;

create index idempotency_keys_by_age on idempotency_keys (created_at);
create index idempotency_keys_in_flight on idempotency_keys (instance_id) where lease_expires_at is not null;
