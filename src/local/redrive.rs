//! `peergate redrive`: makes notifications that no channel took due at once.

use super::audit::RecordSource;
use super::{Error, count_of};
use crate::approval::Approval;
use crate::clock;

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
    let store = args.source.open_store().await?;
    let (mut notifications, mut records, mut unreadable) = (0, 0, 0);
    for scanned in args.source.scan_records().await? {
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
