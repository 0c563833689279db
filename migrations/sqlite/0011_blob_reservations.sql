-- Blobs of object storage whose rows are about to be added.
create table blob_reservations (
    id blob not null primary key,
    -- dataset, adapter, or all while a backup copies them
    kind text not null,
    -- sha256
    name text not null,
    -- the blob may not be deleted before
    reserved_until integer not null
) strict, without rowid;

create index blob_reservations_by_name on blob_reservations (kind, name);

-- Blobs of object storage that are being deleted.
create table blob_deletions (
    kind text not null,
    name text not null,
    -- the blob may not be reserved before
    deleting_until integer not null,
    primary key (kind, name)
) strict, without rowid;
