//! `peergate redrive`: makes undelivered notifications due at once.

use std::collections::BTreeSet;

use super::audit::RecordSource;
use super::{Error, count_of};
use crate::approval::Approval;
use crate::clock;
use crate::config::Config;
use crate::store::ScannedRecord;

/// The notifications to make due.
#[derive(Debug, clap::Args)]
pub struct RedriveArgs {
    /// Only those of this channel, by its name in the configuration.
    #[arg(long)]
    channel: Option<String>,
    /// Also those that peergate has given up, because their channel was gone or refused them for a week.
    #[arg(long)]
    given_up: bool,
    #[command(flatten)]
    source: RecordSource,
}

/// Makes the notifications due. The watcher then posts them. Returns the text to print.
pub async fn redrive(args: &RedriveArgs) -> Result<String, Error> {
    let scanned_records = args.source.scan_records().await?;
    if let Some(channel) = &args.channel {
        check_channel(channel, &args.source, &scanned_records)?;
    }
    let store = args.source.open_store().await?;
    let (mut notifications, mut records, mut unreadable) = (0, 0, 0);
    for scanned in scanned_records {
        let Ok(stored) = scanned.stored else {
            unreadable += 1;
            continue;
        };
        let mut redriven = 0;
        let redrive = |approval: &mut Approval| {
            redriven = approval.redrive(args.channel.as_deref(), args.given_up, clock::now());
            redriven > 0
        };
        store.update(stored, redrive).await?;
        (notifications, records) = (notifications + redriven, records + usize::from(redriven > 0));
    }
    let notifications = count_of(notifications, "notification", "notifications");
    let connections = count_of(records, "connection", "connections");
    let unreadable = match unreadable {
        0 => String::new(),
        number => format!("; could not read {}", count_of(number, "record", "records")),
    };
    Ok(format!("made {notifications} of {connections} due{unreadable}\n"))
}

/// Checks that the configuration or a record knows the channel, so that a mistyped name does not look like success.
fn check_channel(channel: &str, source: &RecordSource, records: &[ScannedRecord]) -> Result<(), Error> {
    let approvals = records.iter().filter_map(|scanned| scanned.stored.as_ref().ok()).map(|stored| &stored.approval);
    let notifications = approvals.flat_map(|approval| approval.outbox().iter());
    let mut known: BTreeSet<String> =
        notifications.flat_map(|notification| notification.deliveries.keys().cloned()).collect();
    // The command needs no configuration. If there is one, it may name a channel that has heard of nothing yet.
    if let Ok(config) = Config::load(&source.environment()?.config) {
        known.extend(config.channels.into_keys());
    }
    if known.contains(channel) {
        return Ok(());
    }
    let names = known.into_iter().collect::<Vec<_>>().join(", ");
    let names = if names.is_empty() { "no channel".to_owned() } else { names };
    Err(format!("no channel is named {channel}: the records and the configuration have {names}").into())
}
