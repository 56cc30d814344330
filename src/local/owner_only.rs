//! Files that only their owner can read.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The permissions of each file that the local tool makes: its owner reads and writes, and nobody else.
pub(super) const MODE: u32 = 0o600;
/// The permissions of everybody but the owner.
const OTHERS: u32 = 0o077;
/// The permissions to write of everybody but the owner.
const OTHERS_WRITE: u32 = 0o022;

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
