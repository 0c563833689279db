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

mod disk;
mod holds;
mod instances;
mod sweep;

pub use sweep::{Needed, Swept};

use espalier_core::artifact::{Before, Published};
use espalier_core::error::{Context, Error, Result};
use holds::Holds;
use instances::Instance;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use uuid::Uuid;

/// What this version writes, and all it can read.
const FORMAT: u32 = 1;

const FOLDERS: [&str; 7] = ["instances", "datasets", "adapters", "checkpoints", "remembered", "temporary", "holds"];

/// How long a blob that was put again is kept from being removed: its row must be there by then.
const HOLD: Duration = Duration::from_secs(3600);

/// A data folder that this process uses; its instance is let go when this is dropped, or when the process dies.
#[derive(Debug)]
pub struct DataFolder {
    root: PathBuf,
    instance: Instance,
    abandoned: Vec<Uuid>,
    holds: Holds,
}

impl DataFolder {
    /// Makes the folder where it is missing, and takes an instance in it: the oldest that nobody holds, or a new one.
    ///
    /// # Errors
    /// `Invalid` where the folder cannot be written to, was made by a newer espalier, or is something else.
    pub fn open(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(|error| unusable(path, &error))?;
        check_format(path)?;
        Self::take(path).map_err(|error| unusable(path, &error))
    }

    fn take(path: &Path) -> io::Result<Self> {
        // absolute, so that a later change of the working folder moves nothing
        let root = path.canonicalize()?;
        for folder in FOLDERS {
            fs::create_dir_all(root.join(folder))?;
        }
        let unheld = instances::take(&root.join("instances"))?;
        let temporary = root.join("temporary");
        instances::clear_temporary(&temporary, &root.join("instances"), &unheld)?;
        fs::create_dir_all(temporary.join(unheld.own.id.to_string()))?;
        disk::sync_folder(&root)?;
        let holds = Holds::new(root.join("holds"));
        let (instance, abandoned) = unheld.forget_others()?;
        Ok(Self { root, instance, abandoned, holds })
    }

    /// Under which this process claims jobs.
    pub fn instance(&self) -> Uuid {
        self.instance.id
    }

    /// The instances that nobody held when this one was taken, this one included: whoever ran under them is dead, and
    /// their leases are to be taken back at once.
    pub fn abandoned(&self) -> &[Uuid] {
        &self.abandoned
    }

    /// The file of a dataset.
    pub fn dataset(&self, hash: &str) -> PathBuf {
        self.datasets().join(hash)
    }

    /// The folder whose sub-folders are adapter versions.
    pub fn adapters(&self) -> PathBuf {
        self.root.join("adapters")
    }

    /// Where a job's checkpoints are.
    pub fn checkpoints(&self, job: Uuid) -> PathBuf {
        self.all_checkpoints().join(job.to_string())
    }

    /// What the frozen base computed of datasets, to be read again.
    pub fn remembered(&self) -> PathBuf {
        self.root.join("remembered")
    }

    /// For files that are not yet what they will be, on the same file system as all others; emptied at start.
    pub fn temporary(&self) -> PathBuf {
        self.root.join("temporary").join(self.instance.id.to_string())
    }

    /// Moves a finished file, whose sha256 is `hash`, to its place and onto the disk. One that is there already has the
    /// same content and is replaced.
    pub fn put_dataset(&self, temporary_file: &Path, hash: &str) -> Result<PathBuf> {
        check_name(hash)?;
        let place = self.dataset(hash);
        self.put(temporary_file, hash, &place).with_context(|| format!("keeping the dataset {hash}"))?;
        Ok(place)
    }

    fn put(&self, temporary_file: &Path, hash: &str, place: &Path) -> io::Result<()> {
        let file = File::options().write(true).open(temporary_file)?;
        file.set_modified(SystemTime::now())?;
        file.sync_all()?;
        let _guard = self.holds.lock()?;
        if place.exists() {
            self.holds.renew(hash)?;
        }
        fs::rename(temporary_file, place)?;
        disk::sync_folder(&self.datasets())
    }

    /// Removes the file of a dataset that no row needs. One that was put again within the last hour is left to the
    /// sweep, because the row that needs it may be on its way.
    pub fn remove_dataset(&self, hash: &str) -> Result<()> {
        check_name(hash)?;
        let _guard = self.holds.lock().context("locking the data folder")?;
        if self.holds.is_fresh(hash, HOLD) {
            return Ok(());
        }
        disk::remove_file(&self.dataset(hash)).with_context(|| format!("removing the dataset {hash}"))
    }

    /// Has an adapter's folder written by `write`, which is told the place of all adapters and one for temporary files, and
    /// keeps it from being removed until its row is there.
    pub fn put_adapter(&self, write: impl Fn(&Path, &Path) -> Result<Published>) -> Result<Published> {
        loop {
            let published = write(&self.adapters(), &self.temporary())?;
            // A new folder is nobody else's. Once another is held it is not removed, so a second round is the last.
            if published.before == Before::Nothing || self.hold_adapter(&published.version)? {
                return Ok(published);
            }
        }
    }

    /// To be called with an adapter's folder written and its row not yet: keeps it from being removed, because an equal
    /// one may just be deleted, for an hour. False where that has happened: the folder has to be written again.
    #[must_use = "where it answers false, the folder has to be written again"]
    pub fn hold_adapter(&self, version: &str) -> Result<bool> {
        check_name(version)?;
        let _guard = self.holds.lock().context("locking the data folder")?;
        self.holds.renew(version).with_context(|| format!("holding the adapter {version}"))?;
        Ok(self.adapters().join(version).exists())
    }

    /// Removes the folder of an adapter that no row needs, unless it is held.
    pub fn remove_adapter(&self, version: &str) -> Result<()> {
        check_name(version)?;
        let _guard = self.holds.lock().context("locking the data folder")?;
        if self.holds.is_fresh(version, HOLD) {
            return Ok(());
        }
        disk::remove_folder(&self.adapters().join(version), &self.temporary())
            .with_context(|| format!("removing the adapter {version}"))
    }

    /// Removes what a job would have resumed from.
    pub fn remove_checkpoints(&self, job: Uuid) -> Result<()> {
        disk::remove_folder(&self.checkpoints(job), &self.temporary())
            .with_context(|| format!("removing the checkpoints of the job {job}"))
    }

    fn datasets(&self) -> PathBuf {
        self.root.join("datasets")
    }

    fn all_checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }
}

/// Writes the format into an empty folder, and refuses one that is not ours: the sweep removes what it does not know.
fn check_format(root: &Path) -> Result<()> {
    let file = root.join("format");
    let format = match fs::read_to_string(&file) {
        Ok(format) => format,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return start_format(root, &file),
        Err(error) => return Err(unusable(root, &error)),
    };
    match format.trim().parse::<u32>() {
        Ok(FORMAT) => Ok(()),
        Ok(newer) => {
            let detail = format!(
                "the data folder {} has format {newer}, and this espalier knows {FORMAT}: start the version that made it, \
                 or give another folder",
                root.display()
            );
            Err(Error::invalid("data_folder_too_new", detail))
        }
        Err(_) => Err(foreign(root, "its file \"format\" is not ours")),
    }
}

fn start_format(root: &Path, file: &Path) -> Result<()> {
    for name in FOLDERS {
        if root.join(name).exists() {
            // another process that starts just now may have been faster: it writes the format before the folders
            if file.exists() {
                return check_format(root);
            }
            return Err(foreign(root, &format!("it has \"{name}\" but no file \"format\"")));
        }
    }
    disk::write_new(file, format!("{FORMAT}\n").as_bytes()).map_err(|error| unusable(root, &error))
}

fn foreign(root: &Path, why: &str) -> Error {
    let detail = format!(
        "{} is not a data folder of espalier ({why}): give an empty folder, or one that espalier has made",
        root.display()
    );
    Error::invalid("data_folder_unknown", detail)
}

fn unusable(root: &Path, error: &io::Error) -> Error {
    let detail = format!(
        "cannot use {} as the data folder: {error}; give a folder on a local disk that espalier may write to",
        root.display()
    );
    Error::invalid("data_folder_unusable", detail)
}

/// Names of blobs are hashes, so no name leads out of its folder.
fn check_name(name: &str) -> Result<()> {
    match is_hash(name) {
        true => Ok(()),
        false => Err(Error::internal(format!("\"{name}\" is not a sha256 in lower case"))),
    }
}

fn is_hash(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
