//! Delivers notifications. If the platform can edit messages, the card is updated and the notification goes below it.
//! Otherwise each notification is a message of its own.

use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;

use super::TickSummary;
use super::job::JobResult;
use crate::accept;
use crate::app::App;
use crate::approval::{
    Approval, ApprovalId, CardId, CardKey, CardRef, ChannelDisplay, Claim, DeliveryKey, Event, Notification,
    NotificationKind, RetryPolicy,
};
use crate::chat::message::Message;
use crate::chat::platform::{Channel, ChatContext};
use crate::chat::{CardDigest, DeliveryError, UpdateOutcome, binding, message};
use crate::clock;
use crate::peering::Fingerprint;
use crate::store::{self, Stored};

/// A stored record, and the notifications that this process has claimed and must post.
pub(super) struct Claimed {
    pub(super) stored: Stored,
    pub(super) claims: Vec<Claim>,
}

impl Claimed {
    pub(super) fn nothing(stored: Stored) -> Self {
        Self { stored, claims: vec![] }
    }
}

/// Changes a record, and claims its due notifications in the same write. If the record changed because of an event,
/// counts and logs the event.
pub(super) async fn update_and_claim(
    app: &App,
    stored: Stored,
    event: Option<&Event>,
    mut change: impl FnMut(&mut Approval) -> bool,
    summary: &mut TickSummary,
) -> Result<Claimed, store::Error> {
    let (mut changed, mut claims) = (false, vec![]);
    let change = |approval: &mut Approval| {
        changed = change(approval);
        let before = approval.outbox().clone();
        claims = claim_due(app, approval, clock::now());
        changed || *approval.outbox() != before
    };
    let stored = app.store.update(stored, change).await?;
    if let Some(event) = event.filter(|_| changed) {
        summary.changed += 1;
        accept::log_event(&stored.approval, event);
    }
    Ok(Claimed { stored, claims })
}

/// Ends a job: posts what it claimed, and stores the result of each post. Goes on with what is due by then, until
/// nothing is. Also updates cards of earlier versions.
pub(super) async fn deliver(
    app: &App,
    mut claimed: Claimed,
    summary: &mut TickSummary,
) -> Result<JobResult, store::Error> {
    loop {
        let Claimed { stored, claims } = claimed;
        let (approval, mut current, mut failure) = (stored.approval.clone(), stored, None);
        let post = async |claim: Claim| (claim.notification.at, post_claim(app, &approval, claim).await);
        let mut posts: FuturesUnordered<_> = claims.into_iter().map(post).collect();
        while let Some((at, event)) = posts.next().await {
            let now = clock::now();
            if matches!(event, Event::Undelivered { .. }) {
                summary.undelivered = summary.undelivered.saturating_add(1);
                summary.oldest_undelivered = summary.oldest_undelivered.max(Some(now.duration_since(at)));
            } else {
                summary.delivered = summary.delivered.saturating_add(1);
            }
            match app.store.update(current.clone(), |approval| approval.apply_event(&event, now)).await {
                Ok(stored) => current = stored,
                Err(error) => failure = Some(error),
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        let redraw = |approval: &mut Approval| approval.request_redraw(false, clock::now());
        claimed = update_and_claim(app, current, None, redraw, summary).await?;
        if claimed.claims.is_empty() {
            let recheck_at = claimed.stored.approval.recheck_at(clock::now());
            return Ok(JobResult { recheck_at, follow_ups: vec![] });
        }
    }
}

/// Claims the due notifications. If an account requests too many cards at once, its new cards wait for their turn.
pub(super) fn claim_due(app: &App, approval: &mut Approval, now: Timestamp) -> Vec<Claim> {
    let can = |channel: &str| app.config.channels.get(channel).map(Channel::capabilities);
    let has_cards = |channel: &str| can(channel).is_some_and(|can| can.can_edit);
    let new_card = |channel: &str| has_cards(channel).then(clock::new_card_id);
    let (mut claims, mut postponed) = (approval.claim_due(now, new_card), vec![]);
    claims.retain(|Claim { notification, channel, .. }| {
        let is_chat = can(channel).is_some_and(|can| can.is_for_people);
        let account = approval.facts().requester.account;
        let makes_card = notification.kind == NotificationKind::Discovered
            || (has_cards(channel) && !approval.cards().contains_key(channel));
        let turn_at =
            (is_chat && makes_card).then(|| app.card_rate.reserve(account, channel, approval.id(), now)).flatten();
        postponed.extend(turn_at.map(|turn_at| (notification.number, channel.clone(), turn_at)));
        turn_at.is_none()
    });
    for (number, channel, turn_at) in postponed {
        approval.postpone_delivery(DeliveryKey { number, channel: &channel }, turn_at);
    }
    claims
}

/// Posts one notification to one channel, and returns the result as an event.
async fn post_claim(app: &App, approval: &Approval, claim: Claim) -> Event {
    let mut display = ChannelDisplay::Unchanged;
    let result = post_to_channel(app, approval, &claim, &mut display).await;
    log_delivery(approval.id(), &claim, result.as_ref().err());
    let Claim { notification: Notification { number, .. }, channel, .. } = claim;
    match result {
        Ok(()) => Event::Delivered { number, channel, display },
        Err(DeliveryError { error, retry }) => Event::Undelivered { number, channel, error, retry, display },
    }
}

/// Posts to one channel. `display` receives what the channel shows, even if a later step fails.
async fn post_to_channel(
    app: &App,
    approval: &Approval,
    Claim { notification, channel, card }: &Claim,
    display: &mut ChannelDisplay,
) -> Result<(), DeliveryError> {
    let unread = |_| DeliveryError { error: "the secrets cannot be read".into(), retry: RetryPolicy::Backoff(None) };
    let secrets = app.secrets.current(clock::now()).await.map_err(unread)?;
    let context = app.chat_context(&secrets);
    let Some(to) = app.config.channels.get(channel) else {
        return Err(DeliveryError {
            error: "the channel is not in the configuration".into(),
            retry: RetryPolicy::Never,
        });
    };
    let key = notification_key(approval, channel, notification.number);
    let can = to.capabilities();
    if can.can_edit {
        let card = draw_card(context, to, channel, approval, *card).await?;
        let reference = card.reference.clone();
        *display = ChannelDisplay::Card(card);
        // The card itself is the notification.
        if matches!(notification.kind, NotificationKind::Discovered | NotificationKind::Checked) {
            return Ok(());
        }
        let message = message::describe_notification(approval, notification);
        return if can.can_thread {
            to.reply_below(context, &reference, &message, is_urgent(&notification.kind), &key).await
        } else {
            to.post(context, channel, &message, &key).await.map(|_| ())
        };
    }
    if !can.is_for_people {
        to.send_notification(context, channel, approval, notification).await?;
        *display = ChannelDisplay::Facts(approval.connection().fingerprint());
        return Ok(());
    }
    if notification.kind == NotificationKind::Checked {
        // This only changes cards. It is not worth a message.
        return Ok(());
    }
    let card = binding::notification_card_id(&approval.id().to_string(), channel, notification.number);
    let (message, _) = bind_buttons(context, to, message::follow_up(approval, notification, clock::now()), card);
    to.post(context, channel, &message, &key).await?;
    *display = ChannelDisplay::Facts(shown_fingerprint(approval));
    Ok(())
}

/// Fingerprint of the facts if a card can show all of them. Otherwise the fingerprint of nothing.
fn shown_fingerprint(approval: &Approval) -> Fingerprint {
    if message::can_show_all(approval.facts()) { approval.fingerprint().clone() } else { Fingerprint::of_nothing() }
}

/// Shows the current record: updates its card, or posts a new one. Returns the card.
async fn draw_card(
    context: ChatContext<'_>,
    to: &Channel,
    channel: &str,
    approval: &Approval,
    card: Option<CardId>,
) -> Result<CardRef, DeliveryError> {
    let message = message::request_card(approval, clock::now());
    let fingerprint = shown_fingerprint(approval);
    let mut too_old = None;
    if let Some(card) = approval.cards().get(channel) {
        let (message, key) = bind_buttons(context, to, message.clone(), card.id);
        match to.update(context, &card.reference, &message).await? {
            UpdateOutcome::Updated => return Ok(CardRef { fingerprint, shown_at: clock::now(), key, ..card.clone() }),
            UpdateOutcome::TooOld => too_old = Some(card),
            UpdateOutcome::Gone => {}
        }
    }
    let card = card.unwrap_or_else(clock::new_card_id);
    let (message, key) = bind_buttons(context, to, message, card);
    let posted = to.post(context, channel, &message, &format!("card-{card}-{:.16}", fingerprint.to_string())).await?;
    let reference = posted.ok_or_else(|| DeliveryError::misconfigured("the platform did not say where the card is"))?;
    if let Some(old) = too_old {
        // Best effort: a click on the old card says the same.
        let _ = to
            .reply_below(context, &old.reference, &message::card_moved(approval), false, &format!("moved-{card}"))
            .await;
    }
    Ok(CardRef { reference, id: card, fingerprint, shown_at: clock::now(), key })
}

/// Idempotency key of a post. It is the same in every attempt, and differs between notifications.
fn notification_key(approval: &Approval, channel: &str, number: u32) -> String {
    format!("notice-{}", binding::notification_card_id(&approval.id().to_string(), channel, number))
}

/// Adds the buttons that the channel's app can verify. Returns the message and the key of the buttons.
fn bind_buttons(context: ChatContext<'_>, to: &Channel, message: Message, card: CardId) -> (Message, Option<CardKey>) {
    // Without an app, nobody receives a click.
    let app = to.app().filter(|app| app.is_configured(context.configs));
    let keyring = app.map(|app| context.keyring(app));
    let Some(keyring) = keyring else { return (Message { buttons: None, ..message }, None) };
    let message = binding::bind_buttons(message, &keyring, card, to.capabilities().max_binding_chars);
    let key = keyring.signing_key_id().filter(|_| message.buttons.is_some());
    (message, key)
}

/// Posts digests for accounts whose cards wait for their turn.
pub(super) async fn deliver_digests(app: &App) {
    for digest in app.card_rate.due_digests(clock::now()) {
        let (account, channel) = (digest.account.to_string(), digest.channel.as_str());
        let cards = digest.ids.len();
        match post_digest(app, &digest).await {
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
                tracing::warn!(outcome = "undelivered", account, channel, cards, error, "could not post a digest");
            }
        }
    }
}

async fn post_digest(app: &App, digest: &CardDigest) -> Result<(), DeliveryError> {
    let unread = |_| DeliveryError::misconfigured("the secrets cannot be read");
    let secrets = app.secrets.current(clock::now()).await.map_err(unread)?;
    let name = app.config.policy.accounts.get(&digest.account).map(|account| account.name.as_str());
    match app.config.channels.get(&digest.channel) {
        Some(to) if to.capabilities().is_for_people => {
            let key = format!("digest-{:.32}", clock::nonce());
            to.post(app.chat_context(&secrets), &digest.channel, &message::describe_digest(digest, name), &key)
                .await
                .map(|_| ())
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether the channel itself must show the notification, and not only the thread. Then somebody has to act.
fn is_urgent(kind: &NotificationKind) -> bool {
    match kind {
        NotificationKind::Changed { .. }
        | NotificationKind::Reminder { .. }
        | NotificationKind::Escalated { .. }
        | NotificationKind::ExpiresSoon { .. }
        | NotificationKind::Stuck { .. }
        | NotificationKind::FactsDiffer { .. }
        | NotificationKind::SentBack { .. }
        | NotificationKind::Corrected { .. }
        | NotificationKind::Bypassed { .. }
        | NotificationKind::Failed { .. } => true,
        NotificationKind::Discovered
        | NotificationKind::RuleChanged { .. }
        | NotificationKind::Checked
        | NotificationKind::Decided { .. }
        | NotificationKind::Withdrawn { .. }
        | NotificationKind::Accepted(_)
        | NotificationKind::Activated { .. }
        | NotificationKind::Rejected(_)
        | NotificationKind::Expired
        | NotificationKind::Deleted => false,
    }
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
