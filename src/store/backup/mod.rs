//! Backups: the rows of the database and the blobs that they refer to, in a folder that is complete or absent.
//!
//! ```text
//! manifest.json            version, and size and sha256 of every other file
//! rows/<table>.jsonl       rows (`sql::dump`)
//! datasets/<hash>, adapters/<version>/, checkpoints/<job>/    as in the data folder
//! ```
//!
//! A backup locks the blobs against removal, then takes a snapshot of the rows, then copies the blobs. A blob is written before its row
//! and removed after it, so every row of the snapshot has its blob.

mod create;
mod files;
mod manifest;
mod restore;

pub use create::create;
pub use manifest::Manifest;
pub use restore::{ExistingRows, RestoreTarget, restore};
