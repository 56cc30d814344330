//! Files and directories that only their owner can read.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::clock;

/// The permissions of each file that the local tool makes: its owner reads and writes, and nobody else.
pub(super) const MODE: u32 = 0o600;
/// The permissions of a directory that only its owner can use.
const DIRECTORY_MODE: u32 = 0o700;
/// The permissions of everybody but the owner.
const OTHERS: u32 = 0o077;
/// The permissions to write of everybody but the owner.
const OTHERS_WRITE: u32 = 0o022;

/// A new directory among the system's temporary files. It is removed with the value.
#[derive(Debug)]
pub(super) struct TemporaryDirectory {
    path: PathBuf,
}

impl TemporaryDirectory {
    /// Makes one that only its owner can use.
    pub(super) fn create() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("peergate-{}", clock::nonce()));
        DirBuilder::new().mode(DIRECTORY_MODE).create(&path)?;
        Ok(Self { path })
    }

    /// The path of a file in it.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // Files that cannot be removed stay among the system's temporary files.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Writes a file that only its owner can read, or replaces the content of one.
pub(super) fn write(path: &Path, content: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(path)?;
    file.write_all(content.as_bytes())
}

/// Warns if others than the owner can use the file, and names the fix.
pub(super) fn warn_if_shared(path: &Path) {
    if let Some(mode) = granted(path, OTHERS) {
        let (path, fix) = (path.display(), format!("chmod 600 {}", path.display()));
        tracing::warn!(outcome = "readable_by_others", %path, mode, fix, "others than the owner can use a file");
    }
}

/// Warns if others than the owner can write the file, and names the fix.
pub(super) fn warn_if_writable(path: &Path) {
    if let Some(mode) = granted(path, OTHERS_WRITE) {
        let (path, fix) = (path.display(), format!("chmod go-w {}", path.display()));
        tracing::warn!(outcome = "writable_by_others", %path, mode, fix, "others than the owner can write a file");
    }
}

/// The permissions of a file, in octal digits, if they grant one of these.
fn granted(path: &Path, unwanted: u32) -> Option<String> {
    let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let mode = metadata.permissions().mode() & 0o777;
    (mode & unwanted != 0).then(|| format!("{mode:o}"))
}
