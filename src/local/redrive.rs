//! Has notices that no channel took tried again at once.

use super::Error;
use super::audit::RecordSource;
use crate::clock;

/// Which.
#[derive(Debug, clap::Args)]
pub struct RedriveArgs {
    /// Of this channel only, by its name in the configuration.
    #[arg(long)]
    channel: Option<String>,
    /// Those that were given up, too: their channel was gone, or refused them for a week.
    #[arg(long)]
    given_up: bool,
    #[command(flatten)]
    source: RecordSource,
}

/// Makes them due; the watcher posts them. Returns what to tell.
pub async fn redrive(args: &RedriveArgs) -> Result<String, Error> {
    let store = args.source.open_store().await?;
    let (mut posts, mut records, mut unreadable) = (0, 0, 0);
    for scanned in args.source.scan_records().await? {
        let Ok(stored) = scanned.stored else {
            unreadable += 1;
            continue;
        };
        let mut redriven = 0;
        let redrive = |approval: &mut crate::approval::Approval| {
            redriven = approval.redrive(args.channel.as_deref(), args.given_up, clock::now());
            redriven > 0
        };
        store.update(stored, redrive).await?;
        (posts, records) = (posts + redriven, records + usize::from(redriven > 0));
    }
    let left_alone = if unreadable > 0 { format!("; {unreadable} records cannot be read") } else { String::new() };
    Ok(format!("{posts} posts of {records} connections are due now{left_alone}\n"))
}
