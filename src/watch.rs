//! Story two: a tick. Every approval that is due is brought a step further, and what channels are owed is delivered.
//!
//! A tick goes on while something moves and time is left, so that people hear of an activation seconds after it; with
//! nothing due it ends at once. The failure of one connection or one channel stops no other.

use std::time::Duration;

use futures_util::stream::{self, FuturesUnordered, StreamExt};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout_at};

use crate::accept;
use crate::app::App;
use crate::approval::{Approval, ApprovalId, Event, Notice, Redelivery, State};
use crate::chat::{Reference, Undelivered, message, slack, standard_webhooks};
use crate::clock;
use crate::config::Channel;
use crate::logging::Chain;
use crate::store::{self, Saved, Stored};

/// A tick waits for what is due this soon.
const HORIZON: SignedDuration = SignedDuration::from_secs(10);
/// The pause between two rounds, at least and at most.
const PAUSE: [SignedDuration; 2] = [SignedDuration::from_millis(500), SignedDuration::from_secs(3)];
/// What must be left of the invocation to begin another round.
const ROUND: Duration = Duration::from_secs(10);
/// What must be left of it to go on working: time to say what was done.
const END: Duration = Duration::from_secs(2);
/// How many connections are worked on at once.
const AT_ONCE: usize = 16;

/// What invokes the watcher: each means "tick".
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Trigger {
    /// A schedule of EventBridge.
    Schedule {
        /// `aws.events` or `aws.scheduler`.
        source: ScheduleSource,
    },
    /// Changes of the table.
    Stream {
        /// What changed; only where it comes from is looked at.
        #[serde(rename = "Records")]
        records: Vec<StreamRecord>,
    },
}

/// Where a schedule's event comes from.
#[derive(Debug, Deserialize)]
pub enum ScheduleSource {
    /// A rule.
    #[serde(rename = "aws.events")]
    Rule,
    /// EventBridge Scheduler.
    #[serde(rename = "aws.scheduler")]
    Scheduler,
}

/// A change of the table.
#[derive(Debug, Deserialize)]
pub struct StreamRecord {
    /// Always `aws:dynamodb`.
    #[serde(rename = "eventSource")]
    pub source: StreamSource,
}

/// Where a change comes from.
#[derive(Debug, Deserialize)]
pub enum StreamSource {
    /// A `DynamoDB` stream.
    #[serde(rename = "aws:dynamodb")]
    DynamoDb,
}

/// What a tick did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Rounds that it took.
    pub rounds: u32,
    /// Steps of approvals that changed something.
    pub changed: u32,
    /// Notices that reached a channel.
    pub delivered: u32,
    /// Notices that did not.
    pub undelivered: u32,
}

impl Trigger {
    /// How many rounds a tick has at least: a change reaches us at times before it reaches the index that we ask.
    #[must_use]
    pub fn least_rounds(&self) -> u32 {
        match self {
            Self::Schedule { .. } => 1,
            Self::Stream { .. } => 2,
        }
    }
}

/// Works on what is due, round after round, until nothing moves or `deadline` is near.
///
/// # Errors
/// When the table can't be asked for what is due.
pub async fn tick(app: &App, least_rounds: u32, deadline: Instant) -> Result<Summary, store::Error> {
    let started = Instant::now();
    let mut summary = Summary::default();
    loop {
        summary.rounds = summary.rounds.saturating_add(1);
        let next = round(app, &mut summary, deadline).await?;
        if next.is_none() && summary.rounds >= least_rounds {
            break;
        }
        let [least, most] = PAUSE;
        let pause = next.map_or(most, |next| next.duration_since(clock::now())).clamp(least, most);
        let pause = Duration::try_from(pause).unwrap_or_default();
        if Instant::now() + pause + ROUND > deadline {
            break;
        }
        sleep(pause).await;
    }
    let Summary { rounds, changed, delivered, undelivered } = summary;
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(outcome = "ticked", rounds, changed, delivered, undelivered, duration_ms, "ticked");
    Ok(summary)
}

/// Works on everything that is due now; says when the next thing is, if that is soon.
async fn round(app: &App, summary: &mut Summary, deadline: Instant) -> Result<Option<Timestamp>, store::Error> {
    let stop_at = deadline.checked_sub(END).unwrap_or(deadline);
    let mut next: Option<Timestamp> = None;
    let mut from = None;
    loop {
        let now = clock::now();
        let (page, more) = app.store.due(now + HORIZON, from).await?;
        let is_due = |stored: &Stored| stored.approval.due_at().is_some_and(|due_at| due_at <= now);
        let (due, soon): (Vec<_>, Vec<_>) = page.into_iter().partition(is_due);
        let mut looks: Vec<_> = soon.iter().filter_map(|stored| stored.approval.due_at()).collect();
        let work = due.into_iter().map(|stored| work_on(app, stored, stop_at));
        let mut work = stream::iter(work).buffer_unordered(AT_ONCE);
        while let Some((look_again_at, did)) = work.next().await {
            looks.extend(look_again_at.filter(|at| at.duration_since(now) <= HORIZON));
            summary.changed = summary.changed.saturating_add(did.changed);
            summary.delivered = summary.delivered.saturating_add(did.delivered);
            summary.undelivered = summary.undelivered.saturating_add(did.undelivered);
        }
        next = next.into_iter().chain(looks).min();
        match more {
            Some(_) => from = more,
            None => return Ok(next),
        }
    }
}

/// Brings one approval a step further and delivers what it owes, until `stop_at`; says when to look again.
async fn work_on(app: &App, stored: Stored, stop_at: Instant) -> (Option<Timestamp>, Summary) {
    let mut did = Summary::default();
    let id = stored.approval.id.clone();
    let (target, peering) = (&id.target, id.instance_id.as_str());
    let worked = timeout_at(stop_at, async {
        let stored = step(app, stored, &mut did).await?;
        deliver(app, stored, &mut did).await
    });
    match worked.await {
        Ok(Ok(stored)) => return (stored.approval.look_again_at(clock::now()), did),
        Ok(Err(error)) => {
            tracing::error!(outcome = "store_failed", target, peering.id = peering, error = %Chain(&error), "not stored");
        }
        Err(_elapsed) => tracing::warn!(outcome = "out_of_time", target, peering.id = peering, "left to the next tick"),
    }
    (None, did)
}

async fn step(app: &App, mut stored: Stored, did: &mut Summary) -> Result<Stored, store::Error> {
    let is_due = |stored: &Stored| stored.approval.next_step_at.is_some_and(|at| at <= clock::now());
    if is_due(&stored) && matches!(stored.approval.state, State::Approved | State::Rejecting) {
        // A call is about to be made: not on the word of the index, which lags.
        stored = app.store.load(&stored.approval.id).await?.unwrap_or(stored);
    }
    if !is_due(&stored) {
        return Ok(stored);
    }
    let event = accept::advance(app, &stored.approval, clock::now()).await;
    let (now, generation, mut changed) = (clock::now(), stored.approval.generation, false);
    let apply = |approval: &mut Approval| {
        changed = approval.generation == generation && approval.apply(&event, now);
        changed
    };
    let stored = app.store.update(stored, apply).await?;
    if changed {
        did.changed = did.changed.saturating_add(1);
        accept::log(&stored.approval, &event);
    }
    Ok(stored)
}

/// Posts what each channel is owed, once nobody else can be about to post it.
async fn deliver(app: &App, stored: Stored, did: &mut Summary) -> Result<Stored, store::Error> {
    let mut current = stored;
    loop {
        let mut claimed = current.approval.clone();
        let claims = claimed.outbox.claim(clock::now());
        if claims.is_empty() {
            return Ok(current);
        }
        current = match app.store.save(&claimed, current.version).await? {
            Saved::Done(stored) => stored,
            Saved::Conflict(theirs) => {
                current = theirs;
                continue;
            }
        };
        let post = |(notice, channel)| post(app, &claimed, notice, channel);
        let mut posts: FuturesUnordered<_> = claims.into_iter().map(post).collect();
        let mut unmarked = None;
        while let Some(event) = posts.next().await {
            let failed = matches!(event, Event::Undelivered { .. });
            let counted = if failed { &mut did.undelivered } else { &mut did.delivered };
            *counted = counted.saturating_add(1);
            let now = clock::now();
            match app.store.update(current.clone(), |approval| approval.apply(&event, now)).await {
                Ok(stored) => current = stored,
                Err(error) => unmarked = Some(error),
            }
        }
        if let Some(error) = unmarked {
            return Err(error);
        }
    }
}

/// Posts one notice to one channel.
async fn post(app: &App, approval: &Approval, notice: Notice, channel: String) -> Event {
    let number = notice.number;
    match post_to(app, approval, &notice, &channel).await {
        Ok(reference) => {
            log_delivery(&approval.id, &notice, &channel, None);
            Event::Delivered { number, channel, reference }
        }
        Err(Undelivered { error, retry }) => {
            log_delivery(&approval.id, &notice, &channel, Some((&error, retry)));
            Event::Undelivered { number, channel, error, retry }
        }
    }
}

async fn post_to(app: &App, approval: &Approval, notice: &Notice, channel: &str) -> Result<Reference, Undelivered> {
    let misconfigured = |error: &str| Undelivered { error: error.to_owned(), retry: Redelivery::Later };
    let secrets = app
        .secrets
        .current(clock::now())
        .await
        .map_err(|_| Undelivered { error: "the secrets cannot be read".into(), retry: Redelivery::Soon(None) })?;
    let message = || message::notice(approval, notice);
    let endpoint = || secrets.channels.get(channel).ok_or_else(|| misconfigured("the channel has no secrets"));
    match app.config.channels.get(channel) {
        None => Err(Undelivered { error: "the channel is not in the configuration".into(), retry: Redelivery::Never }),
        Some(Channel::Slack { channel }) => {
            let (Some(slack), Some(token)) =
                (&app.config.slack, secrets.slack.as_ref().and_then(|slack| slack.bot_token.as_ref()))
            else {
                return Err(misconfigured("there is no Slack app or no bot token"));
            };
            slack::deliver(&app.http, &slack.api, token, channel, &message()).await
        }
        Some(Channel::SlackWebhook {}) => slack::deliver_webhook(&app.http, &endpoint()?.url, &message()).await,
        Some(Channel::StandardWebhooks {}) => {
            standard_webhooks::deliver(&app.http, endpoint()?, approval, notice).await
        }
    }
}

fn log_delivery(id: &ApprovalId, notice: &Notice, channel: &str, failure: Option<(&str, Redelivery)>) {
    let (target, peering, news) = (&id.target, id.instance_id.as_str(), message::news_name(&notice.news));
    match failure {
        None => tracing::info!(outcome = "delivered", target, peering.id = peering, channel, news, "delivered"),
        Some((error, Redelivery::Soon(_))) => {
            tracing::warn!(outcome = "undelivered", target, peering.id = peering, channel, news, error, "undelivered");
        }
        Some((error, Redelivery::Later | Redelivery::Never)) => {
            tracing::error!(
                outcome = "undeliverable",
                target,
                peering.id = peering,
                channel,
                news,
                error,
                "undeliverable"
            );
        }
    }
}
