//! Finds the requests that wait for us: each region of each target is listed, and what is new, or not as it was, is
//! looked at and written down. The failure of one region stops no other.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, timeout_at};

use crate::accept::{self, EXAMINATION};
use crate::app::App;
use crate::approval::{Approval, ApprovalId, Approver, Grounds, State};
use crate::clock;
use crate::config::Target;
use crate::logging::Chain;
use crate::peering::{Connection, Status};
use crate::preflight;
use crate::store::{self, Saved, Stored};

/// How many regions, and requests of a region, are looked at at once.
const AT_ONCE: usize = 32;
/// What is beyond this many pages of a region is not looked at, and said not to be.
const MOST_PAGES: usize = 100;
/// What stood against a request may have been mended: it is looked at again after this.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_mins(5);

/// Looks everywhere until `stop_at`; returns how many requests were new or had changed.
pub(super) async fn discover(app: &App, now: Timestamp, stop_at: Instant) -> u32 {
    let mut regions = vec![];
    for (name, target) in &app.config.targets {
        for region in &target.regions {
            regions.push(async move {
                let looked = timeout_at(stop_at, look_in(app, name, target, region, now)).await;
                looked.unwrap_or_else(|_elapsed| {
                    tracing::error!(
                        outcome = "out_of_time",
                        target = name,
                        region,
                        "a region is left to the next tick"
                    );
                    0
                })
            });
        }
    }
    let found: Vec<u32> = stream::iter(regions).buffer_unordered(AT_ONCE).collect().await;
    found.into_iter().fold(0, u32::saturating_add)
}

/// Lists a region, and looks at what is new.
async fn look_in(app: &App, name: &str, target: &Target, region: &str, now: Timestamp) -> u32 {
    let waiting: BTreeMap<_, _> = waiting_in(app, name, target, region, now).await.into_iter().collect();
    let ids: Vec<_> = waiting.keys().cloned().collect();
    let known = match app.store.load_many(&ids).await {
        Ok(known) => known,
        Err(error) => {
            tracing::error!(outcome = "store_failed", error = %Chain(&error), "what was listed can't be compared");
            return 0;
        }
    };
    let mut looks = vec![];
    for (id, connection) in waiting {
        let stored = match known.get(&id) {
            None => None,
            Some(Ok(stored)) if is_news(app, &stored.approval, &connection, now) => Some(stored.clone()),
            // Nothing is new; or it is there, but not for this version to touch.
            Some(_) => continue,
        };
        looks.push(look(app, id, stored, now));
    }
    let looks: Vec<bool> = stream::iter(looks).buffer_unordered(AT_ONCE).collect().await;
    u32::try_from(looks.into_iter().filter(|changed| *changed).count()).unwrap_or(u32::MAX)
}

/// The requests of a region that wait for this target.
async fn waiting_in(
    app: &App,
    name: &str,
    target: &Target,
    region: &str,
    now: Timestamp,
) -> Vec<(ApprovalId, Connection)> {
    let (mut waiting, mut left_out, mut next_token) = (vec![], 0_usize, None);
    for _ in 0..MOST_PAGES {
        match accept::list(app, name, (region, None), next_token.as_deref(), now).await {
            Ok(page) => {
                let ours = page.connections.into_iter().filter(|connection| {
                    connection.status == Status::Accepting && connection.accepter.account == target.account
                });
                let id = |connection: &Connection| ApprovalId {
                    target: name.to_owned(),
                    instance_id: connection.instance_id.clone(),
                };
                waiting.extend(ours.map(|connection| (id(&connection), connection)));
                left_out = left_out.saturating_add(page.left_out);
                next_token = page.next_token;
            }
            Err(error) => {
                let problem = error.problem();
                tracing::error!(
                    outcome = "not_listed",
                    target = name,
                    region,
                    alicloud.code = problem.code,
                    alicloud.request_id = problem.request_id,
                    "a region could not be listed"
                );
                return waiting;
            }
        }
        if next_token.is_none() {
            break;
        }
    }
    if left_out > 0 || next_token.is_some() {
        let more = next_token.is_some();
        tracing::error!(
            outcome = "listed_in_part",
            target = name,
            region,
            left_out,
            more,
            "not all could be looked at"
        );
    }
    waiting
}

/// Whether a request that we know is worth a look: it waits, and something about it is not as it was, or not known, or
/// may have been mended; or it was taken for deleted.
fn is_news(app: &App, approval: &Approval, connection: &Connection, now: Timestamp) -> bool {
    let findings = &approval.findings;
    let rests = now.duration_since(approval.examined_at) < LOOK_AGAIN;
    match approval.state {
        State::Deleted => true,
        State::Pending => {
            approval.fingerprint != connection.fingerprint()
                || approval.terms != app.config.policy.terms(&approval.id.target, connection)
                || (approval.terms.accepts_by_itself() && preflight::all_passed(findings))
                || match preflight::objection(findings) {
                    Some(_) => !rests,
                    None => preflight::is_incomplete(findings),
                }
        }
        State::Approved
        | State::Activating
        | State::Activated
        | State::Rejecting
        | State::Rejected
        | State::Expired
        | State::Failed { .. } => false,
    }
}

/// Looks at one request, as it is at this moment: the list may be older than what somebody has decided meanwhile.
async fn look(app: &App, id: ApprovalId, stored: Option<Stored>, now: Timestamp) -> bool {
    let (id, policy) = (&id, &app.config.policy);
    let connection = match accept::read(app, &id.target, &id.instance_id, now).await {
        Ok(connection) if connection.status == Status::Accepting => connection,
        // It is over, or will be read in the next tick.
        Ok(_) | Err(_) => return false,
    };
    let by = Approver::peergate(&id.target).principal;
    let until = Instant::now() + EXAMINATION;
    let findings = accept::examine(app, &id.target, &connection, &by, &clock::nonce(), now, until).await;
    let terms = policy.terms(&id.target, &connection);
    let grounds = Grounds {
        id,
        connection: &connection,
        terms: &terms,
        findings: &findings,
        electorate: &|principal| policy.electorate(&id.target, &connection, principal),
    };
    match write(app, stored, &grounds, now).await {
        Ok(written) => {
            if let Some(approval) = &written {
                let (rule, state) = (approval.terms.rule.as_deref(), approval.state.name());
                tracing::info!(
                    outcome = "discovered",
                    target = id.target,
                    peering.id = id.instance_id.as_str(),
                    peering.state = state,
                    rule,
                    "a request was looked at"
                );
            }
            written.is_some()
        }
        Err(error) => {
            let (target, peering) = (&id.target, id.instance_id.as_str());
            tracing::error!(outcome = "store_failed", target, peering.id = peering, error = %Chain(&error), "not stored");
            false
        }
    }
}

/// What was written, if anything was: somebody may have been first.
async fn write(
    app: &App,
    stored: Option<Stored>,
    grounds: &Grounds<'_>,
    now: Timestamp,
) -> Result<Option<Approval>, store::Error> {
    match stored {
        None => match app.store.save(&Approval::discover(grounds, now), 0).await? {
            Saved::Done(stored) => Ok(Some(stored.approval)),
            Saved::Conflict(_) => Ok(None),
        },
        Some(stored) => {
            let mut changed = false;
            let look = |approval: &mut Approval| {
                changed = approval.look(grounds, now);
                changed
            };
            let stored = app.store.update(stored, look).await?;
            Ok(changed.then_some(stored.approval))
        }
    }
}
