//! Files that only their owner can read.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The permissions of each file that the local tool makes: its owner reads and writes, and nobody else.
pub(super) const MODE: u32 = 0o600;
/// The permissions of everybody but the owner.
const OTHERS: u32 = 0o077;

/// Writes a file that only its owner can read, or replaces the content of one.
pub(super) fn write(path: &Path, content: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(path)?;
    file.write_all(content.as_bytes())
}

/// Warns if others than the owner can use the file, and names the fix.
pub(super) fn warn_if_shared(path: &Path) {
    let Ok(metadata) = std::fs::metadata(path) else { return };
    let mode = metadata.permissions().mode();
    if metadata.is_file() && mode & OTHERS != 0 {
        let fix = format!("chmod 600 {}", path.display());
        let mode = format!("{:o}", mode & 0o777);
        tracing::warn!(outcome = "readable_by_others", path = %path.display(), mode, fix, "others than the owner can use a file");
    }
}
