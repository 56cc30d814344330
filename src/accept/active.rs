//! The checks of activated connections that have changed.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;

use super::region::visit_region;
use crate::app::App;
use crate::config::Target;
use crate::peering::Connection;
use crate::preflight::{self, Finding, UsedCidrs};

/// How long the watcher waits for a list of all peerings.
const LIST_ALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Makes the checks of an activated connection that has changed. If Alibaba Cloud does not list all peerings in time, one
/// result is unknown.
pub async fn check_active(app: &App, target: &str, connection: &Connection, now: Timestamp) -> Vec<Finding> {
    let Some(account) = app.config.targets.get(target).map(|target| target.account) else { return vec![] };
    let list = async { timeout(LIST_ALL_TIMEOUT, list_all_used_cidrs(app)).await.ok().flatten() };
    let used = app.used_cidrs.get_or_list(list).await;
    preflight::check_active(connection, account, used.as_deref().map(Vec::as_slice), now)
}

/// The CIDR blocks of every peering of the configured accounts. `None` if not all of them could be listed.
async fn list_all_used_cidrs(app: &App) -> Option<Vec<UsedCidrs>> {
    let mut all = vec![];
    for (target, Target { regions, .. }) in &app.config.targets {
        for region in regions {
            let add = |connection: Connection| all.extend(UsedCidrs::of(&connection));
            let gaps = visit_region(app, target, region, || true, add).await;
            if !gaps.is_empty() {
                return None;
            }
        }
    }
    Some(all)
}
