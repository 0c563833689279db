//! The data folder: what is too big for a row.
//!
//! ```text
//! format                   the version of this layout
//! instances/<id>.lock      one for each process that uses the folder, held by flock
//! datasets/<hash>          files as they were sent, by their sha256
//! adapters/<version>/      published adapters
//! checkpoints/<job>/       where jobs resume from
//! remembered/<key>         what the frozen base computed of datasets: may be removed at any time
//! temporary/<instance>/    what is not yet what it will be
//! holds/                   blobs that a row is about to need
//! ```
//!
//! Several processes may share it, an api and some workers, each under an instance of its own. A blob is written before
//! the row that needs it, and removed after. Knows nothing of SQL: which blobs are needed it is told.

mod durable_fs;
mod garbage_collection;
mod gc_pins;
mod instances;

pub use garbage_collection::{GcReport, LiveBlobs};

use espalier_core::artifact::{PriorFolder, PublishedAdapter};
use espalier_core::error::{Context, Error, Result};
use gc_pins::GcPins;
use instances::Instance;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use uuid::Uuid;

/// What this version writes, and all it can read.
const FORMAT_VERSION: u32 = 1;

const SUBDIRECTORIES: [&str; 7] =
    ["instances", "datasets", "adapters", "checkpoints", "remembered", "temporary", "holds"];

/// How long a blob that was put again is kept from being removed: its row must be there by then.
const GC_PIN_TTL: Duration = Duration::from_secs(3600);

/// A data folder that this process uses; its instance is let go when this is dropped, or when the process dies.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    instance: Instance,
    stale_instances: Vec<Uuid>,
    gc_pins: GcPins,
}

impl DataDir {
    /// Makes the folder where it is missing, and takes an instance in it: the oldest that nobody holds, or a new one.
    ///
    /// # Errors
    /// `Invalid` where the folder cannot be written to, was made by a newer espalier, or is something else.
    pub fn open(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(|error| unusable_data_dir(path, &error))?;
        check_format(path)?;
        Self::acquire(path).map_err(|error| unusable_data_dir(path, &error))
    }

    fn acquire(path: &Path) -> io::Result<Self> {
        // absolute, so that a later change of the working folder moves nothing
        let root = path.canonicalize()?;
        for subdirectory in SUBDIRECTORIES {
            fs::create_dir_all(root.join(subdirectory))?;
        }
        let unlocked = instances::lock_unused(&root.join("instances"))?;
        let temp_root = root.join("temporary");
        instances::remove_stale_temp_dirs(&temp_root, &root.join("instances"), &unlocked)?;
        fs::create_dir_all(temp_root.join(unlocked.own.id.to_string()))?;
        durable_fs::sync_dir(&root)?;
        let holds = GcPins::new(root.join("holds"));
        let (instance, stale_instances) = unlocked.remove_stale()?;
        Ok(Self { root, instance, stale_instances, gc_pins: holds })
    }

    /// Under which this process claims jobs.
    pub fn instance_id(&self) -> Uuid {
        self.instance.id
    }

    /// The instances that nobody held when this one was taken, this one included: whoever ran under them is dead, and
    /// their leases are to be taken back at once.
    pub fn stale_instances(&self) -> &[Uuid] {
        &self.stale_instances
    }

    /// The file of a dataset.
    pub fn dataset_path(&self, hash: &str) -> PathBuf {
        self.datasets_dir().join(hash)
    }

    /// The folder whose sub-folders are adapter versions.
    pub fn adapters_dir(&self) -> PathBuf {
        self.root.join("adapters")
    }

    /// Where a job's checkpoints are.
    pub fn job_checkpoint_dir(&self, job: Uuid) -> PathBuf {
        self.checkpoints_dir().join(job.to_string())
    }

    /// What the frozen base computed of datasets, to be read again.
    pub fn feature_cache_dir(&self) -> PathBuf {
        self.root.join("remembered")
    }

    /// For files that are not yet what they will be, on the same file system as all others; emptied at start.
    pub fn temp_dir(&self) -> PathBuf {
        self.root.join("temporary").join(self.instance.id.to_string())
    }

    /// Moves a finished file, whose sha256 is `hash`, to its place and onto the disk. One that is there already has the
    /// same content and is replaced.
    pub fn put_dataset(&self, temp_file: &Path, hash: &str) -> Result<PathBuf> {
        check_blob_name(hash)?;
        let target = self.dataset_path(hash);
        self.move_into_place(temp_file, hash, &target).with_context(|| format!("keeping the dataset {hash}"))?;
        Ok(target)
    }

    fn move_into_place(&self, temp_file: &Path, hash: &str, target: &Path) -> io::Result<()> {
        let file = File::options().write(true).open(temp_file)?;
        file.set_modified(SystemTime::now())?;
        file.sync_all()?;
        let _guard = self.gc_pins.lock()?;
        if target.exists() {
            self.gc_pins.pin(hash)?;
        }
        fs::rename(temp_file, target)?;
        durable_fs::sync_dir(&self.datasets_dir())
    }

    /// Removes the file of a dataset that no row needs. One that was put again within the last hour is left to the
    /// sweep, because the row that needs it may be on its way.
    pub fn remove_dataset(&self, hash: &str) -> Result<()> {
        check_blob_name(hash)?;
        let _guard = self.gc_pins.lock().context("locking the data folder")?;
        if self.gc_pins.is_pinned(hash, GC_PIN_TTL) {
            return Ok(());
        }
        durable_fs::remove_file_if_exists(&self.dataset_path(hash))
            .with_context(|| format!("removing the dataset {hash}"))
    }

    /// Has an adapter's folder written by `write`, which is told the place of all adapters and one for temporary files, and
    /// keeps it from being removed until its row is there.
    pub fn put_adapter(&self, write: impl Fn(&Path, &Path) -> Result<PublishedAdapter>) -> Result<PublishedAdapter> {
        loop {
            let published = write(&self.adapters_dir(), &self.temp_dir())?;
            // A new folder is nobody else's. Once another is held it is not removed, so a second round is the last.
            if published.prior_folder == PriorFolder::Absent || self.pin_adapter(&published.version)? {
                return Ok(published);
            }
        }
    }

    /// To be called with an adapter's folder written and its row not yet: keeps it from being removed, because an equal
    /// one may just be deleted, for an hour. False where that has happened: the folder has to be written again.
    #[must_use = "where it answers false, the folder has to be written again"]
    pub fn pin_adapter(&self, version: &str) -> Result<bool> {
        check_blob_name(version)?;
        let _guard = self.gc_pins.lock().context("locking the data folder")?;
        self.gc_pins.pin(version).with_context(|| format!("holding the adapter {version}"))?;
        Ok(self.adapters_dir().join(version).exists())
    }

    /// Removes the folder of an adapter that no row needs, unless it is held.
    pub fn remove_adapter(&self, version: &str) -> Result<()> {
        check_blob_name(version)?;
        let _guard = self.gc_pins.lock().context("locking the data folder")?;
        if self.gc_pins.is_pinned(version, GC_PIN_TTL) {
            return Ok(());
        }
        durable_fs::remove_dir_atomically(&self.adapters_dir().join(version), &self.temp_dir())
            .with_context(|| format!("removing the adapter {version}"))
    }

    /// Removes what a job would have resumed from.
    pub fn remove_checkpoints(&self, job: Uuid) -> Result<()> {
        durable_fs::remove_dir_atomically(&self.job_checkpoint_dir(job), &self.temp_dir())
            .with_context(|| format!("removing the checkpoints of the job {job}"))
    }

    fn datasets_dir(&self) -> PathBuf {
        self.root.join("datasets")
    }

    fn checkpoints_dir(&self) -> PathBuf {
        self.root.join("checkpoints")
    }
}

/// Writes the format into an empty folder, and refuses one that is not ours: the sweep removes what it does not know.
fn check_format(root: &Path) -> Result<()> {
    let file = root.join("format");
    let format = match fs::read_to_string(&file) {
        Ok(format) => format,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return init_format(root, &file),
        Err(error) => return Err(unusable_data_dir(root, &error)),
    };
    match format.trim().parse::<u32>() {
        Ok(FORMAT_VERSION) => Ok(()),
        Ok(found) => {
            let detail = format!(
                "the data folder {} has format {found}, and this espalier knows {FORMAT_VERSION}: start the version that made it, \
                 or give another folder",
                root.display()
            );
            Err(Error::invalid("data_folder_too_new", detail))
        }
        Err(_) => Err(not_a_data_dir(root, "its file \"format\" is not ours")),
    }
}

fn init_format(root: &Path, file: &Path) -> Result<()> {
    for name in SUBDIRECTORIES {
        if root.join(name).exists() {
            // another process that starts just now may have been faster: it writes the format before the folders
            if file.exists() {
                return check_format(root);
            }
            return Err(not_a_data_dir(root, &format!("it has \"{name}\" but no file \"format\"")));
        }
    }
    durable_fs::write_atomically(file, format!("{FORMAT_VERSION}\n").as_bytes())
        .map_err(|error| unusable_data_dir(root, &error))
}

fn not_a_data_dir(root: &Path, reason: &str) -> Error {
    let detail = format!(
        "{} is not a data folder of espalier ({reason}): give an empty folder, or one that espalier has made",
        root.display()
    );
    Error::invalid("data_folder_unknown", detail)
}

fn unusable_data_dir(root: &Path, error: &io::Error) -> Error {
    let detail = format!(
        "cannot use {} as the data folder: {error}; give a folder on a local disk that espalier may write to",
        root.display()
    );
    Error::invalid("data_folder_unusable", detail)
}

/// Names of blobs are hashes, so no name leads out of its folder.
fn check_blob_name(name: &str) -> Result<()> {
    match is_sha256_hex(name) {
        true => Ok(()),
        false => Err(Error::internal(format!("\"{name}\" is not a sha256 in lower case"))),
    }
}

fn is_sha256_hex(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
