//! Lists the connections of a region. A page shows a hundred connections, those that peergate follows and those that
//! are new.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use tokio::time::sleep;

use super::job::{Job, JobResult, Listing, RegionKey, RegionWork, VpcReading};
use super::reconcile::is_outdated;
use super::repeat_detector::RepeatDetector;
use crate::accept;
use crate::alicloud::{self, ListScope, MAX_PAGE_SIZE, UnreadableConnection};
use crate::app::App;
use crate::approval::{ApprovalId, IndexState, activation_recheck_at};
use crate::clock;
use crate::peering::{Connection, Status};
use crate::store::{self, IndexEntry};

/// Up to this many connections of a region are read one by one. For more, the region is listed.
const MAX_SINGLE_READS: usize = 2;
/// Maximum number of pages of a region. The rest is skipped, and the log says so.
const MAX_PAGES: u32 = 1000;
/// How many unreadable connections of a region have a log line of their own. The rest of a page shares one line.
const MAX_LOGGED_UNREADABLE: usize = 20;
/// How many connections that the list does not show are read one by one. A tick has no time for more.
const MAX_MISSING_READS: usize = 100;

impl RegionWork {
    /// Adds a connection of the index to the work.
    pub(super) fn add_entry(&mut self, entry: &IndexEntry) {
        if !entry.state.needs_polling() {
            self.finished.insert(entry.id.instance_id.clone(), entry.state);
            return;
        }
        self.polled.insert(entry.id.instance_id.clone(), entry.state);
        if entry.state == IndexState::Activating {
            self.activating_since = self.activating_since.max(Some(entry.due_at));
        }
    }

    /// Reads the activated connections that no page has shown. If all is well, there is none.
    pub(super) fn poll_unseen_active(&mut self) {
        let is_active = |state: &IndexState| matches!(state, IndexState::Active(_));
        let unseen = self.finished.iter().filter(|(_, state)| is_active(state));
        self.polled.extend(unseen.map(|(id, state)| (id.clone(), *state)));
        self.finished.retain(|_, state| !is_active(state));
    }

    /// Returns the jobs that do this work.
    pub(super) fn into_jobs(self, key: RegionKey) -> Vec<Job> {
        if self.discover || self.polled.len() > MAX_SINGLE_READS {
            return vec![Job::ListPage(Box::new(Listing {
                key,
                remaining: self,
                next_token: None,
                first_survey_at: None,
                followed_vpcs: None,
                pages: 0,
                unreadable: 0,
                repeat_detector: RepeatDetector::default(),
            }))];
        }
        self.into_poll_jobs(&key.target)
    }

    /// Returns a job for each remaining connection, which reads only that connection.
    fn into_poll_jobs(self, target: &str) -> Vec<Job> {
        let activating_since = self.activating_since;
        let poll = |(instance_id, indexed_state)| {
            let id = ApprovalId { target: target.to_owned(), instance_id };
            Job::Poll { id, indexed_state, activating_since }
        };
        self.polled.into_iter().map(poll).collect()
    }

    /// Like `into_poll_jobs`, but only as many as a tick has time for.
    fn into_limited_poll_jobs(self, target: &str) -> Vec<Job> {
        let mut jobs = self.into_poll_jobs(target);
        jobs.truncate(MAX_MISSING_READS);
        jobs
    }
}

/// Lists the next page of a region, and returns the jobs that follow from it.
pub(super) async fn list_next_page(app: &App, mut listing: Listing) -> Result<JobResult, store::Error> {
    let RegionKey { target, region } = listing.key.clone();
    let activating_since = listing.remaining.activating_since;
    let recheck_at = || activating_since.and_then(|since| activation_recheck_at(since, clock::now()));
    if listing.remaining.discover && listing.first_survey_at.is_none() {
        // Before the first page: a connection that is created later is not on any of its pages.
        listing.first_survey_at = load_first_survey(app, &listing.key).await;
    }
    let page = match fetch_page(app, &listing).await {
        Ok(page) => page,
        Err(error) => {
            let problem = error.to_problem();
            tracing::error!(
                outcome = "not_listed",
                target,
                region,
                alicloud.code = problem.code,
                alicloud.request_id = problem.request_id,
                "could not list a region"
            );
            // If Alibaba Cloud refuses the list, it may still answer for single connections.
            let answered = !matches!(error, accept::Error::Api(alicloud::Error::Transport(_)));
            let follow_ups = if answered { listing.remaining.into_limited_poll_jobs(&target) } else { vec![] };
            return Ok(JobResult { recheck_at: recheck_at(), follow_ups });
        }
    };
    let is_new = listing.repeat_detector.note_page(&page);
    log_unreadable(&listing, &page.unreadable);
    let mut follow_ups = compare_with_index(app, &mut listing, page.connections).await?;
    listing.pages += 1;
    listing.unreadable += page.unreadable.len();
    listing.next_token = page.next_token;
    if listing.next_token.is_some() && !is_new {
        tracing::error!(
            outcome = "list_repeats",
            target,
            region,
            pages = listing.pages,
            "stopped listing a region because its list repeats itself; some connections may be missing"
        );
        follow_ups.extend(listing.remaining.into_limited_poll_jobs(&target));
    } else {
        follow_ups.extend(listing.into_next_jobs(page.total, page.has_unreadable_token));
    }
    Ok(JobResult { recheck_at: recheck_at(), follow_ups })
}

/// Returns a job for each connection of a page that is new or differs from the index.
async fn compare_with_index(
    app: &App,
    listing: &mut Listing,
    connections: Vec<Connection>,
) -> Result<Vec<Job>, store::Error> {
    let (target, remaining, first_survey_at) = (&listing.key.target, &mut listing.remaining, listing.first_survey_at);
    let Some(account) = app.config.targets.get(target).map(|target| target.account) else { return Ok(vec![]) };
    let followed_vpcs = listing.followed_vpcs.get_or_insert_default();
    let (mut jobs, mut unknown, now) = (vec![], HashMap::new(), clock::now());
    for connection in connections {
        let id = ApprovalId { target: target.clone(), instance_id: connection.instance_id.clone() };
        let polled = remaining.polled.remove(&id.instance_id);
        if let Some(state) = polled.or_else(|| remaining.finished.remove(&id.instance_id)) {
            if let IndexState::Active(digest) = state
                && remaining.vpc_calls.is_some()
                && connection.accepter.account == account
            {
                let of_vpc = followed_vpcs.entry(connection.accepter.vpc.clone()).or_default();
                of_vpc.push((id.instance_id.clone(), digest.own_vpc));
            }
            if is_outdated(app, state, &id, &connection, now) {
                jobs.push(Job::Ingest { id, connection: Box::new(connection), indexed_state: Some(state) });
            }
            continue;
        }
        let is_ours = connection.accepter.account == account && remaining.discover;
        if is_ours && (connection.is_waiting(now) || !app.store.is_unrecorded(&id)) {
            unknown.insert(id, connection);
        }
    }
    jobs.extend(compare_with_records(app, &listing.key, unknown, first_survey_at).await?);
    Ok(jobs)
}

/// When the region was surveyed first. `None` if the table is unavailable; the next tick tries again.
async fn load_first_survey(app: &App, RegionKey { target, region }: &RegionKey) -> Option<Timestamp> {
    match app.store.first_survey_at(target, region, clock::now()).await {
        Ok(at) => Some(at),
        Err(error) => {
            tracing::error!(
                outcome = "store_failed",
                target,
                region,
                %error,
                "could not read when a region was surveyed first; connections accepted outside peergate may stay unreported"
            );
            None
        }
    }
}

/// Whether a connection without a record was accepted outside peergate: another account requested it after the first
/// survey, and it is usable. Without a record, nobody was asked.
fn is_bypass(connection: &Connection, first_survey_at: Timestamp, retention: SignedDuration, now: Timestamp) -> bool {
    let is_from_outside = connection.requester.account != connection.accepter.account;
    // Alibaba's own services accept their connections themselves.
    let is_customers = connection.managed_service.is_empty();
    // The record of an older connection may be past its retention.
    let is_later = |created_at: Timestamp| created_at > first_survey_at && now.duration_since(created_at) < retention;
    connection.status == Status::Activated
        && is_from_outside
        && is_customers
        && connection.created_at.is_some_and(is_later)
}

/// Whether a connection without a record needs no further look: nobody will have to be asked about it, or told of it.
fn may_stay_unrecorded(connection: &Connection, first_survey_at: Option<Timestamp>) -> bool {
    match connection.status {
        Status::Rejected | Status::Expired | Status::Deleted => true,
        // It was not reported as a bypass, unless nobody knows when the region was surveyed first.
        Status::Activated => first_survey_at.is_some(),
        // It may become active.
        Status::Creating | Status::Accepting | Status::Updating | Status::Deleting | Status::Other(_) => false,
    }
}

/// Logs the connections of a page that peergate cannot understand.
fn log_unreadable(listing: &Listing, unreadable: &[UnreadableConnection]) {
    let RegionKey { target, region } = &listing.key;
    let (own_line, together) =
        unreadable.split_at(MAX_LOGGED_UNREADABLE.saturating_sub(listing.unreadable).min(unreadable.len()));
    if !together.is_empty() {
        let ids: Vec<_> =
            together.iter().map(|UnreadableConnection { id, field: fact }| format!("{id}:{}", fact.name())).collect();
        tracing::error!(
            outcome = "not_understood",
            target,
            region,
            peering.ids = ids.join(","),
            "could not understand Alibaba Cloud's answer about further connections"
        );
    }
    for UnreadableConnection { id, field: fact } in own_line {
        tracing::error!(
            outcome = "not_understood",
            target,
            region,
            peering.id = id,
            field = fact.name(),
            "could not understand Alibaba Cloud's answer about a connection"
        );
    }
}

impl Listing {
    /// Returns the jobs after the page that was listed last.
    fn into_next_jobs(mut self, total: Option<u32>, has_unreadable_token: bool) -> Vec<Job> {
        let pages_left = total.map_or(1, |total| total.div_ceil(MAX_PAGE_SIZE).saturating_sub(self.pages));
        let cheaper = usize::try_from(pages_left).unwrap_or(usize::MAX) > self.remaining.polled.len();
        match &self.next_token {
            Some(_) if !self.remaining.discover && self.remaining.polled.is_empty() => vec![],
            Some(_) if !self.remaining.discover && cheaper => self.remaining.into_poll_jobs(&self.key.target),
            Some(_) if self.pages < MAX_PAGES => vec![Job::ListPage(Box::new(self))],
            next_token => {
                let more = next_token.is_some() || has_unreadable_token;
                let read_vpcs = self.read_vpcs_job();
                let (RegionKey { target, region }, left_out) = (&self.key, self.unreadable);
                if left_out > 0 || more {
                    tracing::error!(
                        outcome = "listed_in_part",
                        target,
                        region,
                        left_out,
                        more,
                        "could not look at all connections of a region"
                    );
                }
                if !more && self.remaining.discover {
                    self.remaining.poll_unseen_active();
                }
                let missing = self.remaining.polled.len();
                if missing > MAX_MISSING_READS {
                    tracing::error!(
                        outcome = "missing_in_list",
                        target,
                        region,
                        missing,
                        "skipped connections that the list does not show; a tick has no time to read them all"
                    );
                }
                let mut jobs = self.remaining.into_limited_poll_jobs(&self.key.target);
                jobs.extend(read_vpcs);
                jobs
            }
        }
    }

    /// The job that reads our own VPCs, once the region is listed.
    fn read_vpcs_job(&mut self) -> Option<Job> {
        let budget = self.remaining.vpc_calls.clone()?;
        let vpcs = self.followed_vpcs.take().filter(|vpcs| !vpcs.is_empty())?;
        Some(Job::ReadOwnVpcs(Box::new(VpcReading { key: self.key.clone(), vpcs, budget })))
    }
}

/// Fetches the next page. Waits while the rate limit requires it.
async fn fetch_page(app: &App, listing: &Listing) -> Result<alicloud::Page, accept::Error> {
    let RegionKey { target, region } = &listing.key;
    loop {
        let scope = ListScope::of_region(region);
        match accept::list_connections(app, target, scope, listing.next_token.as_deref(), clock::now()).await {
            Err(accept::Error::Api(alicloud::Error::RateLimited(wait))) => sleep(wait).await,
            page => return page,
        }
    }
}

/// Returns a job for each connection that is new or differs from its record. Earlier versions gave finished records no
/// index entry, so such a record is written again once. If the records cannot be loaded, the next tick tries again.
async fn compare_with_records(
    app: &App,
    RegionKey { target, region }: &RegionKey,
    unknown: HashMap<ApprovalId, Connection>,
    first_survey_at: Option<Timestamp>,
) -> Result<Vec<Job>, store::Error> {
    let ids: Vec<_> = unknown.keys().cloned().collect();
    let known = match app.store.load_many(&ids).await {
        Ok(known) => known,
        Err(error) => {
            let waiting = ids.len();
            tracing::error!(
                outcome = error.log_outcome(),
                target,
                region,
                waiting,
                %error,
                "could not look up the records of listed requests; the next tick tries again"
            );
            return Ok(vec![]);
        }
    };
    let (mut jobs, now) = (vec![], clock::now());
    // The oldest request is told first.
    let mut unknown: Vec<_> = unknown.into_iter().collect();
    unknown.sort_by_cached_key(|(id, connection)| (connection.created_at, id.clone()));
    for (id, connection) in unknown {
        let is_outdated = match known.get(&id) {
            None if connection.is_waiting(now) => true,
            None if first_survey_at.is_some_and(|first| is_bypass(&connection, first, app.store.retention(), now)) => {
                jobs.push(Job::ReportBypass(id));
                continue;
            }
            None => {
                if may_stay_unrecorded(&connection, first_survey_at) {
                    app.store.note_unrecorded(&id);
                }
                false
            }
            Some(Ok(stored)) => {
                let is_outdated = is_outdated(app, stored.approval.index_state(), &id, &connection, now);
                if !is_outdated && stored.is_from_earlier_version() {
                    // A failure stops nothing else. The next tick tries again.
                    if let Err(error) = app.store.save(&stored.approval, Some(stored)).await {
                        let (peering, outcome) = (id.instance_id.as_str(), error.log_outcome());
                        tracing::error!(outcome, target, peering.id = peering, %error, "could not write the index entry of a record");
                    }
                }
                is_outdated
            }
            // A newer version wrote the record, or the store did not return it. Leave it alone.
            Some(Err(error)) => {
                let (peering, outcome) = (id.instance_id.as_str(), error.log_outcome());
                tracing::error!(outcome, target, peering.id = peering, %error, "could not read the record of a connection");
                false
            }
        };
        if is_outdated {
            jobs.push(Job::Ingest { id, connection: Box::new(connection), indexed_state: None });
        }
    }
    Ok(jobs)
}
