//! Puts back, from a copy of the table, what the table has lost.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Error;
use super::audit::{Source, all, history};
use crate::approval::History;
use crate::store::{Scanned, Store};

/// From where, and what.
#[derive(Debug, clap::Args)]
pub struct Wish {
    /// The copy: with --aws a table that was restored from a backup, else a file.
    #[arg(long)]
    from: String,
    /// Put back, too, what has another history now, or was edited.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    source: Source,
}

/// What came of a record.
enum Fate {
    WentOn,
    PutBack,
    Left(String),
}

/// Writes what is gone, or has lost its latest entries; what has gone on since the copy is left as it is. Returns what
/// to tell.
///
/// # Errors
/// When anything is left that is neither as in the copy nor went on from there, with all of it.
pub async fn restore(wish: &Wish) -> Result<String, Error> {
    let store = wish.source.open().await?;
    let present = all(&store).await?.into_iter().map(|scanned| (scanned.id.clone(), scanned));
    let present = present.collect::<BTreeMap<_, _>>();
    let (mut told, mut went_on, mut put_back, mut left) = (String::new(), 0_usize, 0_usize, 0_usize);
    for copy in all(&wish.source.elsewhere(&wish.from).await?).await? {
        match put(&store, &copy, present.get(&copy.id), wish.replace).await? {
            Fate::WentOn => went_on = went_on.saturating_add(1),
            Fate::PutBack => {
                put_back = put_back.saturating_add(1);
                writeln!(told, "{}: put back", copy.id)?;
            }
            Fate::Left(why) => {
                left = left.saturating_add(1);
                writeln!(told, "{}: left as it is: {why}", copy.id)?;
            }
        }
    }
    writeln!(told, "{put_back} records are put back, {went_on} have gone on since, {left} are left as they are")?;
    if left == 0 { Ok(told) } else { Err(told.trim_end().into()) }
}

async fn put(store: &Store, copy: &Scanned, current: Option<&Scanned>, replace: bool) -> Result<Fate, Error> {
    let went_on = |current: &Scanned| current.is_newer() || current.stored.is_ok() && goes_on(current, copy);
    if current.is_some_and(went_on) {
        return Ok(Fate::WentOn);
    }
    if let Err(error) = &copy.stored {
        return Ok(Fate::Left(format!("in the copy, {error}")));
    }
    if let Err(broken) = History::verify(&copy.id, &copy.record) {
        return Ok(Fate::Left(format!("in the copy, {broken}")));
    }
    if let Some(problem) = copy.problems().into_iter().next() {
        return Ok(Fate::Left(format!("in the copy, {problem}")));
    }
    if !replace && current.is_some_and(|current| !goes_on(copy, current)) {
        return Ok(Fate::Left("it has another history now, or was edited; --replace puts it back".into()));
    }
    let written = store.put_back(copy, current).await?;
    Ok(if written { Fate::PutBack } else { Fate::Left("it changed meanwhile; try again".into()) })
}

/// Whether both histories hold, `later` is unedited, and `later`'s history begins with all of `earlier`'s.
fn goes_on(later: &Scanned, earlier: &Scanned) -> bool {
    let holds = |scanned: &Scanned| History::verify(&scanned.id, &scanned.record).is_ok();
    let hash = |scanned: &Scanned, position: usize| history(&scanned.record).get(position)?.get("hash").cloned();
    let last = history(&earlier.record).len().saturating_sub(1);
    holds(later) && later.problems().is_empty() && holds(earlier) && hash(later, last) == hash(earlier, last)
}
