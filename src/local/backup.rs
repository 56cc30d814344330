//! `peergate backup`: copies the table into a file while peergate runs. A copy of the file alone lacks what is still in the
//! file `-wal` beside it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

use super::audit::{RecordSource, scan_all};
use super::table::EmbeddedTable;
use super::{Error, count_of, owner_only};
use crate::clock;

/// What to copy, and where to.
#[derive(Debug, clap::Args)]
pub struct BackupArgs {
    /// The new file.
    file: PathBuf,
    /// The file of the table.
    #[arg(long, default_value = "peergate.db")]
    store: PathBuf,
}

/// A file that is removed unless it gets its final name.
struct UnfinishedFile(PathBuf);

impl UnfinishedFile {
    /// An empty file beside `target`, which only its owner can read.
    fn create_beside(target: &Path) -> io::Result<Self> {
        let mut name = OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(format!(".{}", clock::nonce()));
        let path = target.with_file_name(name);
        OpenOptions::new().write(true).create_new(true).mode(owner_only::MODE).open(&path)?;
        Ok(Self(path))
    }

    /// Gives the file its name, once its content is on the disk. It replaces no other file.
    fn publish(self, target: &Path) -> io::Result<()> {
        File::open(&self.0)?.sync_all()?;
        std::fs::hard_link(&self.0, target)?;
        let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    }
}

impl Drop for UnfinishedFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Copies the table as it is at one moment. Other processes may write in the meantime. Returns the text to print.
///
/// # Errors
/// When the new file exists, or either file cannot be used.
pub async fn back_up(args: &BackupArgs) -> Result<String, Error> {
    let (file, store) = (args.file.display(), args.store.display());
    if args.file.symlink_metadata().is_ok() {
        return Err(format!("{file} exists, and a backup replaces no file: name another one").into());
    }
    if !args.store.exists() {
        return Err(format!("there is no table at {store}").into());
    }
    let unfinished =
        UnfinishedFile::create_beside(&args.file).map_err(|error| format!("cannot create {file}: {error}"))?;
    let (table, copy) = (EmbeddedTable::open(&args.store)?, unfinished.0.clone());
    spawn_blocking(move || table.copy_into(&copy))
        .await?
        .map_err(|error| format!("cannot copy {store} into {file}: {error}"))?;
    let source = RecordSource { store: args.store.clone(), aws: false };
    let copy = source.open_named(&unfinished.0.to_string_lossy()).await?;
    let records = scan_all(&copy).await?.len();
    unfinished.publish(&args.file).map_err(|error| format!("cannot write {file}: {error}"))?;
    Ok(format!("copied {} into {file}\n", count_of(records, "record", "records")))
}
