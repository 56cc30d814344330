//! Lists regions: a page shows how a hundred connections are, those that are followed and those that are new.

use std::collections::HashMap;

use tokio::time::sleep;

use super::job::{Done, Job, Listing, Region};
use super::seen::Seen;
use crate::accept;
use crate::alicloud::{self, LARGEST_PAGE, LeftOut};
use crate::app::App;
use crate::approval::{ApprovalId, Stage, follow_again_at};
use crate::clock;
use crate::config::Target;
use crate::peering::Connection;
use crate::store::{self, Entry};

/// So many connections of a region are read one by one; for more, it is listed.
const FEW: usize = 2;
/// What is beyond this many pages of a region is not looked at, and said not to be.
const MOST_PAGES: u32 = 1000;
/// How many connections that cannot be understood have a line of their own for each region; the rest of a page has one.
const MAX_NAMED: usize = 20;
/// So many that are followed and not in the list are read one by one: a tick has time for no more.
const MOST_MISSING: usize = 100;

impl Region {
    /// Looks for this one, too.
    pub(super) fn follow(&mut self, entry: &Entry) {
        if !entry.stage.is_followed() {
            self.over.insert(entry.id.instance_id.clone(), entry.stage);
            return;
        }
        self.followed.insert(entry.id.instance_id.clone(), entry.stage);
        if entry.stage == Stage::Activating {
            self.since = self.since.max(Some(entry.due_at));
        }
    }

    /// What is to be done to find out.
    pub(super) fn jobs(self, target: &str, region: String) -> Vec<Job> {
        if self.discover || self.followed.len() > FEW {
            return vec![Job::List(Listing {
                region,
                left: self,
                next_token: None,
                pages: 0,
                left_out: 0,
                seen: Seen::default(),
            })];
        }
        self.readings(target)
    }

    /// Reads each of what is left.
    fn readings(self, target: &str) -> Vec<Job> {
        let since = self.since;
        let read =
            |(instance_id, stage)| Job::Read(ApprovalId { target: target.to_owned(), instance_id }, stage, since);
        self.followed.into_iter().map(read).collect()
    }

    /// As many as a tick has time for.
    fn some_readings(self, target: &str) -> Vec<Job> {
        let mut readings = self.readings(target);
        readings.truncate(MOST_MISSING);
        readings
    }
}

/// Lists the next page of a region, and says what is to be done about it.
pub(super) async fn list(app: &App, target: &str, mut listing: Listing) -> Result<Done, store::Error> {
    let Some(Target { account, .. }) = app.config.targets.get(target) else { return Ok(Done::default()) };
    let since = listing.left.since;
    let look_at = || since.and_then(|since| follow_again_at(since, clock::now()));
    let page = match next_page(app, target, &listing).await {
        Ok(page) => page,
        Err(error) => {
            let problem = error.problem();
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
            let more = if answered { listing.left.some_readings(target) } else { vec![] };
            return Ok(Done { look_at: look_at(), more });
        }
    };
    let is_new = listing.seen.take_in(&page);
    name_left_out(target, &listing, &page.left_out);
    let id =
        |connection: &Connection| ApprovalId { target: target.to_owned(), instance_id: connection.instance_id.clone() };
    let (mut more, mut unknown, now) = (vec![], HashMap::new(), clock::now());
    for connection in page.connections {
        let known = listing.left.followed.remove(&connection.instance_id);
        match known.or_else(|| listing.left.over.remove(&connection.instance_id)) {
            Some(stage) if stage.is_news(&connection, now, || app.config.policy.terms(target, &connection)) => {
                more.push(Job::News(id(&connection), Box::new(connection), Some(stage)));
            }
            Some(_) => {}
            None => {
                let is_ours = connection.accepter.account == *account && listing.left.discover;
                let id = id(&connection);
                if is_ours && (connection.is_waiting(now) || !app.store.is_unrecorded(&id)) {
                    unknown.insert(id, connection);
                }
            }
        }
    }
    more.extend(discovered(app, target, &listing.region, unknown).await?);
    listing.pages += 1;
    listing.left_out += page.left_out.len();
    listing.next_token = page.next_token;
    if listing.next_token.is_some() && !is_new {
        tracing::error!(
            outcome = "list_repeats",
            target,
            region = listing.region,
            pages = listing.pages,
            "stopped listing a region because its list brings nothing new; some of its connections may be missing"
        );
        more.extend(listing.left.some_readings(target));
    } else {
        more.extend(listing.after(target, page.total, page.token_is_odd));
    }
    Ok(Done { look_at: look_at(), more })
}

/// Logs the connections of a page that cannot be understood.
fn name_left_out(target: &str, listing: &Listing, left_out: &[LeftOut]) {
    let (own_line, together) = left_out.split_at(MAX_NAMED.saturating_sub(listing.left_out).min(left_out.len()));
    if !together.is_empty() {
        let ids: Vec<_> = together.iter().map(|LeftOut { id, fact }| format!("{id}:{}", fact.name())).collect();
        tracing::error!(
            outcome = "not_understood",
            target,
            region = listing.region,
            peering.ids = ids.join(","),
            "Alibaba Cloud's answer about more connections could not be understood"
        );
    }
    for LeftOut { id, fact } in own_line {
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
    fn after(self, target: &str, total: Option<u32>, token_is_odd: bool) -> Vec<Job> {
        let pages_left = total.map_or(1, |total| total.div_ceil(LARGEST_PAGE).saturating_sub(self.pages));
        let cheaper = usize::try_from(pages_left).unwrap_or(usize::MAX) > self.left.followed.len();
        match &self.next_token {
            Some(_) if !self.left.discover && self.left.followed.is_empty() => vec![],
            Some(_) if !self.left.discover && cheaper => self.left.readings(target),
            Some(_) if self.pages < MOST_PAGES => vec![Job::List(self)],
            more => {
                let more = more.is_some() || token_is_odd;
                let (region, left_out) = (self.region.as_str(), self.left_out);
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
                let missing = self.left.followed.len();
                if missing > MOST_MISSING {
                    tracing::error!(
                        outcome = "missing_in_list",
                        target,
                        region,
                        missing,
                        "too many to look at in one tick"
                    );
                }
                self.left.some_readings(target)
            }
        }
    }
}

/// The next page, when its turn has come.
async fn next_page(app: &App, target: &str, listing: &Listing) -> Result<alicloud::Page, accept::Error> {
    loop {
        let place = (listing.region.as_str(), None);
        match accept::list(app, target, place, listing.next_token.as_deref(), clock::now()).await {
            Err(accept::Error::Api(alicloud::Error::Paced(wait))) => sleep(wait).await,
            page => return page,
        }
    }
}

/// The connections that are new or differ from their record. An earlier version gave finished records no line in the
/// index: such a record is rewritten once. The next tick looks up what could not be loaded: it may not be new.
async fn discovered(
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
                outcome = error.outcome(),
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
                let stage = stored.approval.stage();
                let terms = || app.config.policy.terms(&id.target, &connection);
                let is_news = stage.is_news(&connection, now, terms);
                if !is_news && stored.is_of_earlier_version() {
                    // It stops no other: the next tick tries again.
                    if let Err(error) = app.store.save(&stored.approval, Some(stored)).await {
                        let (peering, outcome) = (id.instance_id.as_str(), error.outcome());
                        tracing::error!(outcome, target, peering.id = peering, %error, "could not rewrite a record");
                    }
                }
                is_news
            }
            // This version must not touch it, or it may exist.
            Some(Err(error)) => {
                let (peering, outcome) = (id.instance_id.as_str(), error.outcome());
                tracing::error!(outcome, target, peering.id = peering, %error, "could not read the record of a connection");
                false
            }
        };
        if is_news {
            news.push(Job::News(id, Box::new(connection), None));
        }
    }
    Ok(news)
}
