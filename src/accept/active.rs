//! The checks of activated connections that have changed.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Error, list_connections};
use crate::alicloud::{self, ListScope};
use crate::app::App;
use crate::clock;
use crate::config::Target;
use crate::peering::Connection;
use crate::preflight::{self, Finding, UsedCidrs};

/// How long the watcher waits for a list of all peerings.
const LIST_ALL_TIMEOUT: Duration = Duration::from_secs(20);
/// The most pages of a region in that list.
const MAX_LISTED_PAGES: u32 = 1000;

/// Makes the checks of an activated connection that has changed. If Alibaba Cloud does not list all peerings in time, one
/// result is unknown.
pub async fn check_active(app: &App, target: &str, connection: &Connection, now: Timestamp) -> Vec<Finding> {
    let Some(account) = app.config.targets.get(target).map(|target| target.account) else { return vec![] };
    let until = Instant::now() + LIST_ALL_TIMEOUT;
    let used = timeout_at(until, app.used_cidrs.get_or_list(list_all_used_cidrs(app))).await.ok().flatten();
    preflight::check_active(connection, account, used.as_deref().map(Vec::as_slice), now)
}

/// The CIDR blocks of every peering of the configured accounts. `None` if not all of them could be listed.
async fn list_all_used_cidrs(app: &App) -> Option<Vec<UsedCidrs>> {
    let mut all = vec![];
    for (target, Target { regions, .. }) in &app.config.targets {
        for region in regions {
            all.extend(list_used_cidrs(app, target, region).await?);
        }
    }
    Some(all)
}

/// The CIDR blocks of the peerings of a region. `None` if not all of them could be listed.
async fn list_used_cidrs(app: &App, target: &str, region: &str) -> Option<Vec<UsedCidrs>> {
    let (mut used, mut next_token): (Vec<UsedCidrs>, Option<String>) = (vec![], None);
    for _ in 0..MAX_LISTED_PAGES {
        let scope = ListScope::of_region(region);
        let page = match list_connections(app, target, scope, next_token.as_deref(), clock::now()).await {
            Ok(page) => page,
            Err(Error::Api(alicloud::Error::RateLimited(wait))) => {
                sleep(wait).await;
                continue;
            }
            Err(_) => return None,
        };
        if page.has_unreadable_token || !page.unreadable.is_empty() {
            return None;
        }
        used.extend(page.connections.iter().flat_map(UsedCidrs::of));
        next_token = page.next_token;
        if next_token.is_none() {
            return Some(used);
        }
    }
    None
}
