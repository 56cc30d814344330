//! Puts back, from a copy of the table, what the table has lost.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Error;
use super::audit::{RecordSource, history_entries, scan_all};
use crate::approval::History;
use crate::store::{ScannedRecord, Store};

/// From where, and what.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// The copy: with --aws a table that was restored from a backup, else a file.
    #[arg(long)]
    from: String,
    /// Put back, too, what has another history now, or was edited.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    source: RecordSource,
}

/// What came of a record.
enum RestoreOutcome {
    Continued,
    Restored,
    Skipped(String),
}

/// Writes what is gone, or has lost its latest entries; what has gone on since the copy is left as it is. Returns what
/// to tell.
///
/// # Errors
/// When anything is left that is neither as in the copy nor went on from there, with all of it.
pub async fn restore(args: &RestoreArgs) -> Result<String, Error> {
    let store = args.source.open_store().await?;
    let present = scan_all(&store).await?.into_iter().map(|scanned| (scanned.id.clone(), scanned));
    let present = present.collect::<BTreeMap<_, _>>();
    let (mut told, mut went_on, mut put_back, mut left) = (String::new(), 0_usize, 0_usize, 0_usize);
    for copy in scan_all(&args.source.open_named(&args.from).await?).await? {
        match restore_record(&store, &copy, present.get(&copy.id), args.replace).await? {
            RestoreOutcome::Continued => went_on = went_on.saturating_add(1),
            RestoreOutcome::Restored => {
                put_back = put_back.saturating_add(1);
                writeln!(told, "{}: put back", copy.id)?;
            }
            RestoreOutcome::Skipped(why) => {
                left = left.saturating_add(1);
                writeln!(told, "{}: left as it is: {why}", copy.id)?;
            }
        }
    }
    writeln!(told, "{put_back} records are put back, {went_on} have gone on since, {left} are left as they are")?;
    if left == 0 { Ok(told) } else { Err(told.trim_end().into()) }
}

async fn restore_record(
    store: &Store,
    copy: &ScannedRecord,
    current: Option<&ScannedRecord>,
    replace: bool,
) -> Result<RestoreOutcome, Error> {
    let went_on = |current: &ScannedRecord| {
        current.is_from_newer_version() || current.stored.is_ok() && is_continuation_of(current, copy)
    };
    if current.is_some_and(went_on) {
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
        return Ok(RestoreOutcome::Skipped("it has another history now, or was edited; --replace puts it back".into()));
    }
    let written = store.restore_record(copy, current).await?;
    Ok(if written {
        RestoreOutcome::Restored
    } else {
        RestoreOutcome::Skipped("it changed meanwhile; try again".into())
    })
}

/// Whether both histories hold, `later` is unedited, and `later`'s history begins with all of `earlier`'s.
fn is_continuation_of(later: &ScannedRecord, earlier: &ScannedRecord) -> bool {
    let holds = |scanned: &ScannedRecord| History::verify(&scanned.id, &scanned.record).is_ok();
    let hash =
        |scanned: &ScannedRecord, position: usize| history_entries(&scanned.record).get(position)?.get("hash").cloned();
    let last = history_entries(&earlier.record).len().saturating_sub(1);
    holds(later) && later.item_problems().is_empty() && holds(earlier) && hash(later, last) == hash(earlier, last)
}
