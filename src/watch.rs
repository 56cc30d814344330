//! Story two: a tick. Every approval that is due is brought a step further, and what channels are owed is delivered.
//!
//! A tick goes on while something moves and time is left, so that people hear of an activation seconds after it; with
//! nothing due it ends at once. The failure of one connection or one channel stops no other.

use std::time::Duration;

use futures_util::stream::{self, FuturesUnordered, StreamExt};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::accept;
use crate::app::App;
use crate::approval::{Approval, ApprovalId, Event, Notice, Redelivery, State};
use crate::chat::{Reference, Undelivered, message, slack, standard_webhooks};
use crate::clock;
use crate::config::Channel;
use crate::logging::Chain;
use crate::store::{self, Stored};

/// A tick waits for what is due this soon.
const HORIZON: SignedDuration = SignedDuration::from_secs(10);
/// The longest pause within a tick.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_secs(3);
/// What must be left of the invocation to begin another round: the longest exchange and a write.
const MARGIN: Duration = Duration::from_secs(13);
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

/// Works on what is due, round after round, until nothing moves or `deadline` is near.
///
/// # Errors
/// When the table can't be asked for what is due.
pub async fn tick(app: &App, deadline: Instant) -> Result<Summary, store::Error> {
    let started = Instant::now();
    let mut summary = Summary::default();
    loop {
        summary.rounds = summary.rounds.saturating_add(1);
        let next = round(app, &mut summary).await?;
        let Some(next) = next else { break };
        let pause = next.duration_since(clock::now()).clamp(SignedDuration::from_millis(50), LONGEST_PAUSE);
        let pause = Duration::try_from(pause).unwrap_or_default();
        if Instant::now() + pause + MARGIN > deadline {
            break;
        }
        sleep(pause).await;
    }
    let Summary { rounds, changed, delivered, undelivered } = summary;
    let duration_ms = started.elapsed().as_millis();
    tracing::info!(outcome = "ticked", rounds, changed, delivered, undelivered, duration_ms, "ticked");
    Ok(summary)
}

/// Works on everything that is due now; says when the next thing is, if that is soon.
async fn round(app: &App, summary: &mut Summary) -> Result<Option<Timestamp>, store::Error> {
    let mut next: Option<Timestamp> = None;
    let mut from = None;
    loop {
        let now = clock::now();
        let (page, more) = app.store.due(now + HORIZON, from).await?;
        let is_due = |stored: &Stored| stored.approval.due_at().is_some_and(|due_at| due_at <= now);
        let (due, soon): (Vec<_>, Vec<_>) = page.into_iter().partition(is_due);
        let mut looks: Vec<_> = soon.iter().filter_map(|stored| stored.approval.due_at()).collect();
        let mut work = stream::iter(due.into_iter().map(|stored| work_on(app, stored))).buffer_unordered(AT_ONCE);
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

/// Brings one approval a step further and delivers what it owes; says when to look again.
async fn work_on(app: &App, stored: Stored) -> (Option<Timestamp>, Summary) {
    let mut did = Summary::default();
    let id = stored.approval.id.clone();
    let worked = async {
        let stored = step(app, stored, &mut did).await?;
        deliver(app, stored, &mut did).await
    };
    match worked.await {
        Ok(stored) => (stored.approval.look_again_at(clock::now()), did),
        Err(error) => {
            let (target, peering) = (&id.target, id.instance_id.as_str());
            tracing::error!(outcome = "store_failed", target, peering.id = peering, error = %Chain(&error), "not stored");
            (None, did)
        }
    }
}

async fn step(app: &App, stored: Stored, did: &mut Summary) -> Result<Stored, store::Error> {
    let now = clock::now();
    if stored.approval.next_step_at.is_none_or(|at| at > now) {
        return Ok(stored);
    }
    let event = accept::advance(app, &stored.approval, now).await;
    let before = stored.version;
    let stored = app.store.update(stored, |approval| approval.apply(&event, now)).await?;
    if stored.version != before {
        did.changed = did.changed.saturating_add(1);
        log_step(&stored.approval, &event);
    }
    Ok(stored)
}

/// Posts what each channel is owed. The record is read again first: the index may not yet know of the last delivery.
async fn deliver(app: &App, stored: Stored, did: &mut Summary) -> Result<Stored, store::Error> {
    if stored.approval.due_notices(clock::now()).is_empty() {
        return Ok(stored);
    }
    let mut current = app.store.load(&stored.approval.id).await?.unwrap_or(stored);
    loop {
        let now = clock::now();
        let snapshot = current.approval.clone();
        let post = |(notice, channel): (&Notice, &str)| post(app, &snapshot, notice.clone(), channel.to_owned());
        let mut posts: FuturesUnordered<_> = snapshot.due_notices(now).into_iter().map(post).collect();
        if posts.is_empty() {
            return Ok(current);
        }
        while let Some(event) = posts.next().await {
            let counted =
                if matches!(event, Event::Undelivered { .. }) { &mut did.undelivered } else { &mut did.delivered };
            *counted = counted.saturating_add(1);
            let now = clock::now();
            current = app.store.update(current, |approval| approval.apply(&event, now)).await?;
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
        None => Err(misconfigured("the channel is not in the configuration")),
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

/// The line about a step: what happened to which connection. Refused credentials are somebody's to mend.
fn log_step(approval: &Approval, event: &Event) {
    let (target, peering) = (&approval.id.target, approval.id.instance_id.as_str());
    let (state, problem) = (approval.state.name(), approval.last_problem.as_ref());
    let (code, request_id) = (problem.map(|problem| &problem.code), problem.and_then(|it| it.request_id.as_ref()));
    if matches!(event, Event::CredentialsRefused(_)) {
        tracing::error!(
            outcome = "credentials_refused",
            target,
            peering.id = peering,
            alicloud.code = code,
            alicloud.request_id = request_id,
            "Alibaba Cloud refuses our credentials or permissions"
        );
    } else if matches!(event, Event::Deferred { .. }) && !matches!(approval.state, State::Failed { .. }) {
        tracing::warn!(
            outcome = "deferred",
            target,
            peering.id = peering,
            alicloud.code = code,
            alicloud.request_id = request_id,
            "will be tried again"
        );
    } else {
        tracing::info!(outcome = "advanced", target, peering.id = peering, peering.state = state, "advanced");
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
