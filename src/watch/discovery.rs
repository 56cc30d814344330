//! Lists regions: a page shows how a hundred connections are, those that are followed and those that are new.

use std::collections::HashMap;

use tokio::time::sleep;

use super::job::{Job, JobResult, Listing, RegionWork};
use super::repeat_detector::RepeatDetector;
use crate::accept;
use crate::alicloud::{self, ListScope, MAX_PAGE_SIZE, UnreadableConnection};
use crate::app::App;
use crate::approval::{ApprovalId, IndexState, activation_recheck_at};
use crate::clock;
use crate::config::Target;
use crate::peering::Connection;
use crate::store::{self, IndexEntry};

/// So many connections of a region are read one by one; for more, it is listed.
const MAX_SINGLE_READS: usize = 2;
/// What is beyond this many pages of a region is not looked at, and said not to be.
const MAX_PAGES: u32 = 1000;
/// How many connections that cannot be understood have a line of their own for each region; the rest of a page has one.
const MAX_LOGGED_UNREADABLE: usize = 20;
/// So many that are followed and not in the list are read one by one: a tick has time for no more.
const MAX_MISSING_READS: usize = 100;

impl RegionWork {
    /// Looks for this one, too.
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

    /// What is to be done to find out.
    pub(super) fn into_jobs(self, target: &str, region: String) -> Vec<Job> {
        if self.discover || self.polled.len() > MAX_SINGLE_READS {
            return vec![Job::ListPage(Listing {
                region,
                remaining: self,
                next_token: None,
                pages: 0,
                unreadable: 0,
                repeat_detector: RepeatDetector::default(),
            })];
        }
        self.into_poll_jobs(target)
    }

    /// Reads each of what is left.
    fn into_poll_jobs(self, target: &str) -> Vec<Job> {
        let since = self.activating_since;
        let read =
            |(instance_id, stage)| Job::Poll(ApprovalId { target: target.to_owned(), instance_id }, stage, since);
        self.polled.into_iter().map(read).collect()
    }

    /// As many as a tick has time for.
    fn into_limited_poll_jobs(self, target: &str) -> Vec<Job> {
        let mut readings = self.into_poll_jobs(target);
        readings.truncate(MAX_MISSING_READS);
        readings
    }
}

/// Lists the next page of a region, and says what is to be done about it.
pub(super) async fn list_next_page(app: &App, target: &str, mut listing: Listing) -> Result<JobResult, store::Error> {
    let Some(Target { account, .. }) = app.config.targets.get(target) else { return Ok(JobResult::default()) };
    let since = listing.remaining.activating_since;
    let look_at = || since.and_then(|since| activation_recheck_at(since, clock::now()));
    let page = match fetch_page(app, target, &listing).await {
        Ok(page) => page,
        Err(error) => {
            let problem = error.to_problem();
            tracing::error!(
                outcome = "not_listed",
                target,
                region = listing.region,
                alicloud.code = problem.code,
                alicloud.request_id = problem.request_id,
                "a region could not be listed"
            );
            // Whoever answers that it can't be listed may answer how one of them is.
            let answered = !matches!(error, accept::Error::Api(alicloud::Error::Transport(_)));
            let more = if answered { listing.remaining.into_limited_poll_jobs(target) } else { vec![] };
            return Ok(JobResult { recheck_at: look_at(), follow_ups: more });
        }
    };
    let is_new = listing.repeat_detector.note_page(&page);
    log_unreadable(target, &listing, &page.unreadable);
    let id =
        |connection: &Connection| ApprovalId { target: target.to_owned(), instance_id: connection.instance_id.clone() };
    let (mut more, mut unknown, now) = (vec![], HashMap::new(), clock::now());
    for connection in page.connections {
        let known = listing.remaining.polled.remove(&connection.instance_id);
        match known.or_else(|| listing.remaining.finished.remove(&connection.instance_id)) {
            Some(stage)
                if stage.is_outdated_by(&connection, now, || app.config.policy.snapshot_for(target, &connection)) =>
            {
                more.push(Job::Ingest(id(&connection), Box::new(connection), Some(stage)));
            }
            Some(_) => {}
            None => {
                let is_ours = connection.accepter.account == *account && listing.remaining.discover;
                let id = id(&connection);
                if is_ours && (connection.is_waiting(now) || !app.store.is_unrecorded(&id)) {
                    unknown.insert(id, connection);
                }
            }
        }
    }
    more.extend(ingest_jobs(app, target, &listing.region, unknown).await?);
    listing.pages += 1;
    listing.unreadable += page.unreadable.len();
    listing.next_token = page.next_token;
    if listing.next_token.is_some() && !is_new {
        tracing::error!(
            outcome = "list_repeats",
            target,
            region = listing.region,
            pages = listing.pages,
            "stopped listing a region because its list brings nothing new; some of its connections may be missing"
        );
        more.extend(listing.remaining.into_limited_poll_jobs(target));
    } else {
        more.extend(listing.into_next_jobs(target, page.total, page.has_unreadable_token));
    }
    Ok(JobResult { recheck_at: look_at(), follow_ups: more })
}

/// Logs the connections of a page that cannot be understood.
fn log_unreadable(target: &str, listing: &Listing, unreadable: &[UnreadableConnection]) {
    let (own_line, together) =
        unreadable.split_at(MAX_LOGGED_UNREADABLE.saturating_sub(listing.unreadable).min(unreadable.len()));
    if !together.is_empty() {
        let ids: Vec<_> =
            together.iter().map(|UnreadableConnection { id, field: fact }| format!("{id}:{}", fact.name())).collect();
        tracing::error!(
            outcome = "not_understood",
            target,
            region = listing.region,
            peering.ids = ids.join(","),
            "Alibaba Cloud's answer about more connections could not be understood"
        );
    }
    for UnreadableConnection { id, field: fact } in own_line {
        tracing::error!(
            outcome = "not_understood",
            target,
            region = listing.region,
            peering.id = id,
            field = fact.name(),
            "Alibaba Cloud's answer about a connection could not be understood"
        );
    }
}

impl Listing {
    /// What follows the page that was listed last.
    fn into_next_jobs(self, target: &str, total: Option<u32>, has_unreadable_token: bool) -> Vec<Job> {
        let pages_left = total.map_or(1, |total| total.div_ceil(MAX_PAGE_SIZE).saturating_sub(self.pages));
        let cheaper = usize::try_from(pages_left).unwrap_or(usize::MAX) > self.remaining.polled.len();
        match &self.next_token {
            Some(_) if !self.remaining.discover && self.remaining.polled.is_empty() => vec![],
            Some(_) if !self.remaining.discover && cheaper => self.remaining.into_poll_jobs(target),
            Some(_) if self.pages < MAX_PAGES => vec![Job::ListPage(self)],
            more => {
                let more = more.is_some() || has_unreadable_token;
                let (region, left_out) = (self.region.as_str(), self.unreadable);
                if left_out > 0 || more {
                    tracing::error!(
                        outcome = "listed_in_part",
                        target,
                        region,
                        left_out,
                        more,
                        "not all could be looked at"
                    );
                }
                let missing = self.remaining.polled.len();
                if missing > MAX_MISSING_READS {
                    tracing::error!(
                        outcome = "missing_in_list",
                        target,
                        region,
                        missing,
                        "too many to look at in one tick"
                    );
                }
                self.remaining.into_limited_poll_jobs(target)
            }
        }
    }
}

/// The next page, when its turn has come.
async fn fetch_page(app: &App, target: &str, listing: &Listing) -> Result<alicloud::Page, accept::Error> {
    loop {
        let scope = ListScope::of_region(&listing.region);
        match accept::list_connections(app, target, scope, listing.next_token.as_deref(), clock::now()).await {
            Err(accept::Error::Api(alicloud::Error::RateLimited(wait))) => sleep(wait).await,
            page => return page,
        }
    }
}

/// The connections that are new or differ from their record. An earlier version gave finished records no line in the
/// index: such a record is rewritten once. The next tick looks up what could not be loaded: it may not be new.
async fn ingest_jobs(
    app: &App,
    target: &str,
    region: &str,
    unknown: HashMap<ApprovalId, Connection>,
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
    let (mut news, now) = (vec![], clock::now());
    for (id, connection) in unknown {
        let is_news = match known.get(&id) {
            None if connection.is_waiting(now) => true,
            None => {
                app.store.note_unrecorded(&id);
                false
            }
            Some(Ok(stored)) => {
                let stage = stored.approval.index_state();
                let terms = || app.config.policy.snapshot_for(&id.target, &connection);
                let is_news = stage.is_outdated_by(&connection, now, terms);
                if !is_news && stored.is_from_earlier_version() {
                    // It stops no other: the next tick tries again.
                    if let Err(error) = app.store.save(&stored.approval, Some(stored)).await {
                        let (peering, outcome) = (id.instance_id.as_str(), error.log_outcome());
                        tracing::error!(outcome, target, peering.id = peering, %error, "could not rewrite a record");
                    }
                }
                is_news
            }
            // This version must not touch it, or it may exist.
            Some(Err(error)) => {
                let (peering, outcome) = (id.instance_id.as_str(), error.log_outcome());
                tracing::error!(outcome, target, peering.id = peering, %error, "could not read the record of a connection");
                false
            }
        };
        if is_news {
            news.push(Job::Ingest(id, Box::new(connection), None));
        }
    }
    Ok(news)
}
