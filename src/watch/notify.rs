//! Delivers notifications: claims what is due, waits for its turn in the channel, and stores the result.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

use super::job::{ClaimedPost, Job, JobResult, PacedClaim};
use super::post::post_to_channel;
use super::{CLAIM_LEAD, TickSummary};
use crate::accept;
use crate::app::App;
use crate::approval::{
    Approval, ApprovalId, ChannelDisplay, Claim, DeliveryKey, Event, FailedPost, Notification, NotificationKind,
    RetryPolicy,
};
use crate::chat::platform::Channel;
use crate::chat::{
    CardDigest, DeliveryError, FailureCause, PostAttempt, PostLane, PostStart, ThrottleScope, Turn, message,
};
use crate::clock;
use crate::store::{self, Stored};

/// The timeout of a delivery with all its calls. It is shorter than a claim, so that no other watcher posts the same
/// notification.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(45);
/// peergate gives a claim back that waited longer for a slow channel, so that the delivery ends before its claim does.
const MAX_CLAIM_AGE: Duration = Duration::from_secs(10);
/// The wait until such a notification is claimed again.
const SLOW_CHANNEL_PAUSE: SignedDuration = SignedDuration::from_secs(10);
/// The time that remains to store the result when the tick ends.
const RESULT_RESERVE: Duration = Duration::from_secs(1);

/// A stored record, and the notifications that this process has claimed and must post.
pub(super) struct Claimed {
    pub(super) stored: Stored,
    pub(super) claims: Vec<PacedClaim>,
}

impl Claimed {
    pub(super) fn nothing(stored: Stored) -> Self {
        Self { stored, claims: vec![] }
    }

    /// Ends a job. A job of its own posts each claimed notification.
    fn into_result(self) -> JobResult {
        let (id, recheck_at) = (self.stored.approval.id().clone(), self.stored.approval.recheck_at(clock::now()));
        let record = Arc::new(Mutex::new(self.stored));
        JobResult { recheck_at, follow_ups: post_jobs(&id, &record, self.claims) }
    }
}

/// Changes a record, and claims its due notifications in the same write. If the record changed because of an event,
/// counts and logs the event.
pub(super) async fn update_and_claim(
    app: &App,
    stored: Stored,
    event: Option<&Event>,
    change: impl FnMut(&mut Approval) -> bool,
    summary: &mut TickSummary,
) -> Result<Claimed, store::Error> {
    update_and_claim_ahead(app, stored, event, change, SignedDuration::ZERO, summary).await
}

/// As [`update_and_claim`], and claims what is due within `lead`, too.
async fn update_and_claim_ahead(
    app: &App,
    stored: Stored,
    event: Option<&Event>,
    mut change: impl FnMut(&mut Approval) -> bool,
    lead: SignedDuration,
    summary: &mut TickSummary,
) -> Result<Claimed, store::Error> {
    let (mut changed, mut claims) = (false, vec![]);
    let change = |approval: &mut Approval| {
        changed = change(approval);
        let before = approval.outbox().clone();
        let now = clock::now();
        claims = claim_due(app, approval, now, now + lead);
        changed || *approval.outbox() != before
    };
    let stored = app.store.update(stored, change).await?;
    if let Some(event) = event.filter(|_| changed) {
        summary.changed += 1;
        accept::log_event(&stored.approval, event);
    }
    Ok(Claimed { stored, claims })
}

/// Ends a job: other jobs post what it claimed. Also updates cards of earlier versions.
pub(super) async fn deliver(app: &App, claimed: Claimed, summary: &mut TickSummary) -> Result<JobResult, store::Error> {
    if !claimed.claims.is_empty() {
        return Ok(claimed.into_result());
    }
    let redraw = |approval: &mut Approval| approval.request_redraw(false, clock::now());
    Ok(update_and_claim_ahead(app, claimed.stored, None, redraw, CLAIM_LEAD, summary).await?.into_result())
}

fn post_jobs(id: &ApprovalId, record: &Arc<Mutex<Stored>>, claims: Vec<PacedClaim>) -> Vec<Job> {
    let job = |paced| {
        let (id, record) = (id.clone(), Arc::clone(record));
        Job::Post(Box::new(ClaimedPost { id, record, paced, claimed_at: Instant::now() }))
    };
    claims.into_iter().map(job).collect()
}

/// Posts a claimed notification, and stores the result. In the same write, claims what is due by then.
pub(super) async fn post_claimed(
    app: &App,
    ClaimedPost { id, record, paced, claimed_at }: ClaimedPost,
    stop_at: Instant,
    summary: &mut TickSummary,
) -> Result<JobResult, store::Error> {
    let PacedClaim { claim, begin_at } = paced;
    if claimed_at.elapsed() > DELIVERY_TIMEOUT {
        // Another watcher may have it.
        return Ok(JobResult::default());
    }
    let until = (claimed_at + DELIVERY_TIMEOUT).min(stop_at.checked_sub(RESULT_RESERVE).unwrap_or(stop_at));
    let result = if claimed_at.elapsed() > MAX_CLAIM_AGE {
        Err(clock::now() + SLOW_CHANNEL_PAUSE)
    } else {
        let approval = record.lock().await.approval.clone();
        post_in_turn(app, &approval, &claim, begin_at, until).await
    };
    let mut stored = record.lock().await;
    let event = match result {
        Ok(event) => event,
        Err(until) => {
            let postpone = |approval: &mut Approval| {
                approval.postpone_delivery(claim.key(), until);
                true
            };
            *stored = app.store.update(stored.clone(), postpone).await?;
            return Ok(JobResult { recheck_at: Some(until), follow_ups: vec![] });
        }
    };
    let now = clock::now();
    if matches!(event, Event::Undelivered { .. }) {
        summary.undelivered = summary.undelivered.saturating_add(1);
        summary.oldest_undelivered = summary.oldest_undelivered.max(Some(now.duration_since(claim.notification.at)));
    } else {
        summary.delivered = summary.delivered.saturating_add(1);
    }
    let apply = |approval: &mut Approval| {
        let changed = approval.apply_event(&event, now);
        approval.request_redraw(false, now) || changed
    };
    let claimed = update_and_claim(app, stored.clone(), None, apply, summary).await?;
    let recheck_at = claimed.stored.approval.recheck_at(clock::now());
    *stored = claimed.stored;
    Ok(JobResult { recheck_at, follow_ups: post_jobs(&id, &record, claimed.claims) })
}

/// Claims the notifications that are due by `until`. If an account requests too many cards at once, its new cards wait for
/// their turn. So do posts to a channel that takes no more at the moment.
pub(super) fn claim_due(app: &App, approval: &mut Approval, now: Timestamp, until: Timestamp) -> Vec<PacedClaim> {
    let can = |channel: &str| app.config.channels.get(channel).map(Channel::capabilities);
    let has_cards = |channel: &str| can(channel).is_some_and(|can| can.can_edit);
    let new_card = |channel: &str| has_cards(channel).then(clock::new_card_id);
    let (mut paced, mut postponed) = (vec![], vec![]);
    for claim in approval.claim_due(now, until, new_card) {
        let Claim { notification, channel, .. } = &claim;
        let is_chat = can(channel).is_some_and(|can| can.is_for_people);
        let account = approval.facts().requester.account;
        let is_known = approval.cards().contains_key(channel) || approval.shown().contains_key(channel);
        // The requester's other requests must not delay an alarm.
        let is_alarm = is_bypassed(approval);
        let is_card = !is_alarm && (notification.kind == NotificationKind::Discovered || !is_known);
        let makes_card = is_card && !approval.is_requesters_only(channel);
        let card_turn =
            (is_chat && makes_card).then(|| app.card_rate.reserve(account, channel, approval.id(), now)).flatten();
        match card_turn.map_or_else(|| reserve_turn(app, approval.id(), &claim, now), Turn::Later) {
            Turn::Soon(begin_at) => paced.push(PacedClaim { claim, begin_at }),
            Turn::Later(until) => postponed.push((claim, until)),
        }
    }
    for (claim, until) in postponed {
        approval.postpone_delivery(claim.key(), until);
    }
    paced
}

/// Whether the record has an alarm about an accept outside peergate.
fn is_bypassed(approval: &Approval) -> bool {
    approval.outbox().iter().any(|earlier| matches!(earlier.kind, NotificationKind::Bypassed { .. }))
}

fn reserve_turn(app: &App, id: &ApprovalId, claim: &Claim, now: Timestamp) -> Turn {
    match app.config.channels.get(&claim.channel) {
        Some(to) => {
            let was_postponed = claim.due_at > claim.notification.at;
            let due_at = was_postponed.then_some(claim.due_at);
            app.pacer.reserve(&to.lane(&claim.channel), &post_name(id, claim.key()), due_at, now)
        }
        None => Turn::Soon(now.max(claim.due_at)),
    }
}

/// Names a post for the pacer.
fn post_name(id: &ApprovalId, DeliveryKey { number, .. }: DeliveryKey<'_>) -> String {
    format!("{id}#{number}")
}

/// Posts one notification to one channel when its turn comes, and returns the result as an event.
///
/// # Errors
/// When the channel pauses: until when the post must wait. Nothing was posted.
async fn post_in_turn(
    app: &App,
    approval: &Approval,
    claim: &Claim,
    begin_at: Timestamp,
    until: Instant,
) -> Result<Event, Timestamp> {
    let to = app.config.channels.get(&claim.channel);
    let (lane, name) = (to.map(|to| to.lane(&claim.channel)), post_name(approval.id(), claim.key()));
    sleep_until_time(begin_at).await;
    if let Some(lane) = &lane {
        let waited = timeout_at(until, wait_for_distance(app, lane, &name)).await;
        waited.unwrap_or_else(|_elapsed| Err(clock::now()))?;
    }
    let mut display = ChannelDisplay::Unchanged;
    let posted = timeout_at(until, post_to_channel(app, approval, claim, &mut display)).await;
    let result = posted.unwrap_or_else(|_elapsed| Err(DeliveryError::timed_out()));
    if let Some(lane) = &lane {
        end_turn(app, lane, &name, result.as_ref().err());
    }
    log_delivery(approval.id(), claim, result.as_ref().err());
    let Claim { notification: Notification { number, .. }, channel, .. } = claim.clone();
    Ok(match result {
        Ok(()) => Event::Delivered { number, channel, display },
        Err(DeliveryError { error, retry, cause }) => {
            let failed = FailedPost { error, retry, may_be_posted: cause == FailureCause::AnswerLost };
            Event::Undelivered { number, channel, failed, display }
        }
    })
}

/// Waits if the post before this one was late.
///
/// # Errors
/// When the channel pauses: until when.
async fn wait_for_distance(app: &App, lane: &PostLane, name: &str) -> Result<(), Timestamp> {
    loop {
        match app.pacer.begin(lane, name, clock::now()) {
            PostStart::Now => return Ok(()),
            PostStart::Wait(free_at) => sleep_until_time(free_at).await,
            PostStart::Paused(until) => return Err(until),
        }
    }
}

async fn sleep_until_time(at: Timestamp) {
    sleep(Duration::try_from(at.duration_since(clock::now())).unwrap_or_default()).await;
}

/// Ends the turn of a post. If the platform throttled it, the other posts pause, too.
fn end_turn(app: &App, lane: &PostLane, name: &str, failure: Option<&DeliveryError>) {
    app.pacer.finish(lane, name);
    if let Some(DeliveryError { cause: FailureCause::Throttled(scope), retry, .. }) = failure {
        let retry_after = match retry {
            RetryPolicy::Backoff(retry_after) => *retry_after,
            RetryPolicy::AfterFix | RetryPolicy::FewTimes | RetryPolicy::Never => None,
        };
        app.pacer.pause(lane, *scope == ThrottleScope::App, name, retry_after, clock::now());
    }
}

/// Posts digests for accounts whose cards wait for their turn.
pub(super) async fn deliver_digests(app: &App) {
    for digest in app.card_rate.due_digests(clock::now()) {
        let (account, channel) = (digest.account.to_string(), digest.channel.as_str());
        let cards = digest.ids.len();
        let Some(to) = app.config.channels.get(channel) else { continue };
        let (lane, name) = (to.lane(channel), format!("digest of {account}"));
        let Turn::Soon(begin_at) = app.pacer.reserve(&lane, &name, None, clock::now()) else { continue };
        sleep_until_time(begin_at).await;
        if wait_for_distance(app, &lane, &name).await.is_err() {
            continue;
        }
        let posted = post_digest(app, to, &digest).await;
        end_turn(app, &lane, &name, posted.as_ref().err());
        match posted {
            Ok(()) => {
                app.card_rate.mark_digest_posted(&digest, clock::now());
                tracing::warn!(
                    outcome = "cards_delayed",
                    account,
                    channel,
                    cards,
                    "posted a digest of requests whose cards wait for their turn"
                );
            }
            Err(DeliveryError { error, .. }) => {
                app.card_rate.mark_digest_failed(&digest, clock::now());
                tracing::warn!(outcome = "undelivered", account, channel, cards, error, "could not post a digest");
            }
        }
    }
}

async fn post_digest(app: &App, to: &Channel, digest: &CardDigest) -> Result<(), DeliveryError> {
    if !to.capabilities().is_for_people {
        return Ok(());
    }
    let unread = |_| DeliveryError::misconfigured("the secrets cannot be read");
    let secrets = app.secrets.current(clock::now()).await.map_err(unread)?;
    let name = app.config.policy.accounts.get(&digest.account).map(|account| account.name.as_str());
    let (message, key) = (message::describe_digest(digest, name), format!("digest-{:.32}", clock::nonce()));
    to.post(app.chat_context(&secrets), &digest.channel, &message, PostAttempt::only(&key)).await.map(|_| ())
}

fn log_delivery(id: &ApprovalId, Claim { notification, channel, .. }: &Claim, failure: Option<&DeliveryError>) {
    let (target, peering, kind) = (&id.target, id.instance_id.as_str(), message::notification_name(&notification.kind));
    let error = failure.map(|failure| &failure.error);
    macro_rules! line {
        ($level:ident, $outcome:literal, $text:literal) => {
            tracing::$level!(outcome = $outcome, target, peering.id = peering, channel, news = kind, error, $text)
        };
    }
    match failure.map(|failure| failure.retry) {
        None => line!(info, "delivered", "posted the notification"),
        Some(RetryPolicy::Backoff(_)) => line!(warn, "undelivered", "could not post the notification"),
        Some(RetryPolicy::AfterFix | RetryPolicy::FewTimes | RetryPolicy::Never) => {
            line!(error, "undeliverable", "could not post the notification; somebody must act");
        }
    }
}
