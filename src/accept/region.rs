//! The whole list of a region.

use std::collections::HashSet;

use tokio::time::sleep;

use super::{Error, list_connections};
use crate::alicloud::{self, ListScope};
use crate::app::App;
use crate::clock;
use crate::peering::Connection;

/// The most pages of a region, with the calls that wait for their turn.
const MAX_PAGES: u32 = 1000;

/// Passes each connection of a region to `visit`, once. `may_call` is asked before each page. Returns what could not be
/// listed or read, and why.
pub(super) async fn visit_region(
    app: &App,
    target: &str,
    region: &str,
    may_call: impl Fn() -> bool,
    mut visit: impl FnMut(Connection),
) -> Vec<String> {
    let (mut gaps, mut seen) = (vec![], HashSet::new());
    let mut next_token: Option<String> = None;
    let mut is_next = true;
    for _ in 0..MAX_PAGES {
        // A page that waits for its turn is asked for once.
        if is_next && !may_call() {
            gaps.push(format!("{target} in {region}: people asked for too many lists in the last minute"));
            return gaps;
        }
        is_next = true;
        let scope = ListScope::of_region(region);
        match list_connections(app, target, scope, next_token.as_deref(), clock::now()).await {
            Ok(page) => {
                let unreadable = page.unreadable.iter().filter(|it| seen.insert(it.id.clone()));
                gaps.extend(unreadable.map(|it| format!("{target}/{}: the answer cannot be understood", it.id)));
                let new = page.connections.into_iter().filter(|it| seen.insert(it.instance_id.as_str().to_owned()));
                new.for_each(&mut visit);
                if page.has_unreadable_token {
                    gaps.push(format!("{target} in {region}: the rest of the list cannot be asked for"));
                }
                next_token = page.next_token;
                if next_token.is_none() {
                    return gaps;
                }
            }
            Err(Error::Api(alicloud::Error::RateLimited(wait))) => {
                is_next = false;
                sleep(wait).await;
            }
            Err(error) => {
                gaps.push(format!("{target} in {region}: {}", error.to_problem().code));
                return gaps;
            }
        }
    }
    gaps.push(format!("{target} in {region}: the list does not end"));
    gaps
}
