//! Library that a server preloads: faults of the file operations in its data folder, and jumps of its clock.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub const EIO: u64 = 5;
pub const ENOSPC: u64 = 28;

const FIELDS: u64 = 6;

/// Control file of the library (`struct control` in `tests/fixtures/fault_injection.c`).
pub struct FaultControl {
    file: File,
    path: PathBuf,
}

impl FaultControl {
    pub fn create(path: &Path) -> Self {
        let file = File::options().create(true).truncate(true).read(true).write(true).open(path).unwrap();
        file.set_len(FIELDS * 8).unwrap();
        Self { file, path: path.to_path_buf() }
    }

    /// Environment of the server with this data folder.
    pub fn environment(&self, data_dir: &Path) -> [(&'static str, String); 3] {
        let text = |path: &Path| path.to_str().unwrap().to_string();
        [("LD_PRELOAD", text(library())), ("FAULT_DIR", text(data_dir)), ("FAULT_CONTROL", text(&self.path))]
    }

    /// Makes `count` operations from the `first` on fail; 0 ends the faults.
    pub fn set(&self, first: u64, count: u64, error: u64) {
        self.write(0, 0);
        for (index, value) in [(1, count), (2, error), (3, 0), (4, 0), (0, first)] {
            self.write(index, value);
        }
    }

    /// Sets the clock ahead of the machine's by this many seconds.
    pub fn set_clock_offset(&self, seconds: i64) {
        self.write(5, seconds.cast_unsigned());
    }

    pub fn failures(&self) -> u64 {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, 4 * 8).unwrap();
        u64::from_ne_bytes(bytes)
    }

    fn write(&self, index: u64, value: u64) {
        self.file.write_all_at(&value.to_ne_bytes(), index * 8).unwrap();
    }
}

/// Compiles the library.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = LIBRARY.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fault_injection.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fault_injection.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&path).arg(source).arg("-ldl");
        assert!(compiler.status().expect("a C compiler").success());
        (folder, path)
    });
    path
}
