//! Blobs: files that are too large for a row. They are in the data directory, or in object storage with the data directory as a cache
//! ([`BlobStore`]).
//!
//! ```text
//! format                   version of this layout
//! instances/<id>.lock      one for each process that uses the directory, locked with flock
//! datasets/<hash>          uploaded files, named by their sha256
//! adapters/<version>/      published adapters
//! checkpoints/<job>/       checkpoints of unfinished jobs
//! feature-cache/<key>      frozen features of datasets; may be deleted at any time
//! temporary/<instance>/    files that are still being written
//! pins/                    marks on blobs whose row is about to be added, and the lock of backups
//! ```
//!
//! Several processes can share it (an API server and workers), each with an instance of its own. A blob is written before
//! the row that refers to it, and removed after it. The caller passes the set of blobs that rows refer to.

mod backup_source;
mod blob_store;
mod cache_eviction;
mod checkpoint_objects;
mod checksum_mismatches;
mod data_dir;
mod file_digest;
mod garbage_collection;
mod gc_pins;
mod instances;
mod key_locks;
mod layout;
mod metrics;
mod missing_objects;
mod object_copies;
mod object_garbage;
mod object_storage;
mod reservation;

pub use backup_source::BackupSource;
pub use blob_store::BlobStore;
pub use data_dir::{DataDir, DiskSpace};
pub use file_digest::{DigestWriter, FileDigest, copy_all, digest};
pub use garbage_collection::{GcAction, GcReport, LiveBlobs};
pub use object_storage::ObjectStorage;
pub use reservation::Reservation;
