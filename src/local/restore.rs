//! `peergate restore`: restores what the table has lost, from a copy of the table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::audit::{RecordSource, history_entries, scan_all};
use super::{Error, count_of};
use crate::approval::History;
use crate::config::Environment;
use crate::store::{ScannedRecord, Store};

/// The copy, and what to restore from it.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// The copy: with --aws the name of a table that was restored from a backup, else a file of `peergate backup`.
    #[arg(long)]
    from: String,
    /// Also restore records that now have another history, or were edited.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    source: RecordSource,
}

impl RestoreArgs {
    /// Whether both names lead to the same table.
    fn is_onto_itself(&self) -> bool {
        if self.source.aws {
            return Environment::from_process().is_ok_and(|environment| environment.table == self.from);
        }
        let identity = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
        let copy = identity(Path::new(&self.from));
        copy.is_some() && copy == identity(&self.source.store)
    }
}

/// The result for a record.
enum RestoreOutcome {
    /// The stored record is the copy, or has continued since.
    Continued,
    Restored,
    /// Why the record was not restored.
    Skipped(String),
}

/// Restores records that are missing or have lost their latest entries. A record that has continued since the copy stays
/// unchanged. Returns the text to print.
///
/// # Errors
/// When a record was skipped. The error has the whole text.
pub async fn restore(args: &RestoreArgs) -> Result<String, Error> {
    if args.is_onto_itself() {
        return Err(
            format!("{} is the table itself, and not a copy of it: name a backup with --from", args.from).into()
        );
    }
    let store = args.source.open_store().await?;
    let present = scan_all(&store).await?.into_iter().map(|scanned| (scanned.id.clone(), scanned));
    let present = present.collect::<BTreeMap<_, _>>();
    let (mut text, mut continued, mut restored, mut skipped) = (String::new(), 0_usize, 0_usize, 0_usize);
    for copy in scan_all(&args.source.open_named(&args.from).await?).await? {
        match restore_record(&store, &copy, present.get(&copy.id), args.replace).await? {
            RestoreOutcome::Continued => continued = continued.saturating_add(1),
            RestoreOutcome::Restored => {
                restored = restored.saturating_add(1);
                writeln!(text, "{}: restored", copy.id)?;
            }
            RestoreOutcome::Skipped(why) => {
                skipped = skipped.saturating_add(1);
                writeln!(text, "{}: skipped: {why}", copy.id)?;
            }
        }
    }
    let restored = count_of(restored, "record", "records");
    writeln!(text, "restored {restored}, skipped {skipped}, kept {continued} that continued since the copy")?;
    if skipped == 0 { Ok(text) } else { Err(text.trim_end().into()) }
}

async fn restore_record(
    store: &Store,
    copy: &ScannedRecord,
    current: Option<&ScannedRecord>,
    replace: bool,
) -> Result<RestoreOutcome, Error> {
    let has_continued = |current: &ScannedRecord| {
        current.is_from_newer_version() || current.stored.is_ok() && is_continuation_of(current, copy)
    };
    if current.is_some_and(has_continued) {
        return Ok(RestoreOutcome::Continued);
    }
    if let Err(error) = &copy.stored {
        return Ok(RestoreOutcome::Skipped(format!("in the copy, {error}")));
    }
    if let Err(broken) = History::verify(&copy.id, &copy.record) {
        return Ok(RestoreOutcome::Skipped(format!("in the copy, {broken}")));
    }
    if let Some(problem) = copy.item_problems().into_iter().next() {
        return Ok(RestoreOutcome::Skipped(format!("in the copy, {problem}")));
    }
    if !replace && current.is_some_and(|current| !is_continuation_of(copy, current)) {
        return Ok(RestoreOutcome::Skipped(
            "it now has another history, or was edited; use --replace to restore it".into(),
        ));
    }
    let is_written = store.restore_record(copy, current).await?;
    Ok(if is_written {
        RestoreOutcome::Restored
    } else {
        RestoreOutcome::Skipped("it has just changed; try again".into())
    })
}

/// Whether both histories are valid, `later` is unedited, and its history begins with the whole history of `earlier`.
fn is_continuation_of(later: &ScannedRecord, earlier: &ScannedRecord) -> bool {
    let is_valid = |scanned: &ScannedRecord| History::verify(&scanned.id, &scanned.record).is_ok();
    let hash =
        |scanned: &ScannedRecord, position: usize| history_entries(&scanned.record).get(position)?.get("hash").cloned();
    let last = history_entries(&earlier.record).len().saturating_sub(1);
    is_valid(later) && later.item_problems().is_empty() && is_valid(earlier) && hash(later, last) == hash(earlier, last)
}
