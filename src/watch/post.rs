//! What is posted to a channel. If the platform can edit messages, the card is updated and the notification goes below it.
//! Otherwise each notification is a message of its own.

use crate::app::App;
use crate::approval::{
    Approval, CardId, CardKey, CardRef, ChannelDisplay, Claim, Notification, NotificationKind, Principal, RetryPolicy,
};
use crate::chat::message::Message;
use crate::chat::platform::{Channel, ChatContext, Platform};
use crate::chat::{CommandScope, DeliveryError, PostAttempt, UpdateOutcome, binding, message};
use crate::clock;
use crate::peering::Fingerprint;

/// The most people whom a message mentions. Among more, nobody feels addressed.
const MAX_MENTIONS: usize = 20;

/// Posts to one channel. `display` receives what the channel shows, even if a later step fails.
pub(super) async fn post_to_channel(
    app: &App,
    approval: &Approval,
    claim: &Claim,
    display: &mut ChannelDisplay,
) -> Result<(), DeliveryError> {
    let Claim { notification, channel, .. } = claim;
    let unread = |_| DeliveryError::refused("the secrets cannot be read", RetryPolicy::Backoff(None));
    let secrets = app.secrets.current(clock::now()).await.map_err(unread)?;
    let context = app.chat_context(&secrets);
    let Some(to) = app.config.channels.get(channel) else {
        return Err(DeliveryError::refused("the channel is not in the configuration", RetryPolicy::Never));
    };
    let key = notification_key(approval, channel, notification.number);
    let attempt = attempt_of(claim, &key);
    let can = to.capabilities();
    if approval.is_requesters_only(channel) {
        // It counts for no decision, so nobody remembers what it shows.
        let message = message::describe_for_requester(approval, notification);
        return post_message(context, to, channel, &message, attempt).await.map(|_| ());
    }
    if can.can_edit {
        let mentions = mentions_for(app, approval);
        let reference = draw_card(context, to, approval, claim, &mentions, display).await?;
        // The card itself is the notification.
        if matches!(notification.kind, NotificationKind::Discovered | NotificationKind::Checked) {
            return Ok(());
        }
        let urgent = is_urgent(&notification.kind);
        let mentions = if urgent { mentions } else { vec![] };
        let message = Message { mentions, ..message::describe_notification(approval, notification) };
        let sent = to.reply_below(context, &reference, &message, urgent, attempt).await;
        return match without_mentions(&message, &sent) {
            Some(plain) => to.reply_below(context, &reference, &plain, urgent, attempt).await,
            None => sent,
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
    let asks = is_urgent(&notification.kind) || notification.kind == NotificationKind::Discovered;
    let mentions = if asks { mentions_for(app, approval) } else { vec![] };
    let message = Message { mentions, ..message::follow_up(approval, notification, clock::now()) };
    let message = without_buttons(app, to, message, notification);
    post_message(context, to, channel, &message, attempt).await?;
    *display = ChannelDisplay::Facts(shown_fingerprint(approval));
    Ok(())
}

/// Posts a message. If the platform refuses its content, posts it without its mentions.
async fn post_message(
    context: ChatContext<'_>,
    to: &Channel,
    channel: &str,
    message: &Message,
    attempt: PostAttempt<'_>,
) -> Result<Option<String>, DeliveryError> {
    let posted = to.post(context, channel, message, attempt).await;
    match without_mentions(message, &posted) {
        Some(plain) => to.post(context, channel, &plain, attempt).await,
        None => posted,
    }
}

/// The message without its mentions, if the platform has refused its content. It may no longer know one of the
/// users, and the notification matters more than the mention.
fn without_mentions<T>(message: &Message, sent: &Result<T, DeliveryError>) -> Option<Message> {
    let is_refused = matches!(sent, Err(DeliveryError { retry: RetryPolicy::FewTimes, .. }));
    (is_refused && !message.mentions.is_empty()).then(|| Message { mentions: vec![], ..message.clone() })
}

/// The identities of the approvers who must decide. Empty if the rule mentions nobody, or if they are too many.
fn mentions_for(app: &App, approval: &Approval) -> Vec<Principal> {
    let needed = message::needed_approvers(approval, clock::now());
    match &approval.policy().rule {
        Some(rule) if needed.len() <= MAX_MENTIONS => app.config.policy.identities_to_mention(rule, &needed),
        Some(_) | None => vec![],
    }
}

fn attempt_of<'a>(claim: &Claim, key: &'a str) -> PostAttempt<'a> {
    PostAttempt { key, unconfirmed_since: claim.unconfirmed_since, attempts: claim.attempts }
}

/// A message that can never be updated has no buttons: nothing could remove them. It says how to decide instead.
fn without_buttons(app: &App, to: &Channel, message: Message, notification: &Notification) -> Message {
    let has_card = |channel: &&String| app.config.channels.get(*channel).is_some_and(|to| to.capabilities().can_edit);
    let cards: Vec<_> = notification.deliveries.keys().filter(has_card).map(String::as_str).collect();
    let decides = |app_of: Platform| app_of.command_scope() == CommandScope::Everything;
    let has_commands = to.app().is_some_and(|app_of| app_of.is_configured(&app.config.platforms) && decides(app_of));
    message::without_buttons(message, &cards, has_commands)
}

/// Fingerprint of the facts if a card can show all of them. Otherwise the fingerprint of nothing.
fn shown_fingerprint(approval: &Approval) -> Fingerprint {
    if message::can_show_all(&approval.asked_facts()) {
        approval.asked_fingerprint().clone()
    } else {
        Fingerprint::of_nothing()
    }
}

/// Shows the current record: updates its card, or posts a new one. Returns the reference of the card.
async fn draw_card(
    context: ChatContext<'_>,
    to: &Channel,
    approval: &Approval,
    claim: &Claim,
    mentions: &[Principal],
    display: &mut ChannelDisplay,
) -> Result<String, DeliveryError> {
    let channel = claim.channel.as_str();
    let message = Message { mentions: mentions.to_vec(), ..message::request_card(approval, clock::now()) };
    let fingerprint = shown_fingerprint(approval);
    let (known, mut frozen) = (approval.cards().get(channel), None);
    if let Some(card) = known {
        let (message, key) = bind_buttons(context, to, message.clone(), card.id);
        let mut updated = to.update(context, &card.reference, &message).await;
        if let Some(plain) = without_mentions(&message, &updated) {
            updated = to.update(context, &card.reference, &plain).await;
        }
        match updated? {
            UpdateOutcome::Updated => {
                let card = CardRef { fingerprint, shown_at: clock::now(), key, ..card.clone() };
                let reference = card.reference.clone();
                *display = ChannelDisplay::Card(card);
                return Ok(reference);
            }
            UpdateOutcome::Frozen => frozen = Some(card),
            UpdateOutcome::Gone => {}
        }
    }
    let is_new = |id: &CardId| known.is_none_or(|known| known.id != *id);
    let id = claim.card.filter(is_new).unwrap_or_else(clock::new_card_id);
    let (message, key) = bind_buttons(context, to, message, id);
    let card_key = format!("card-{id}");
    let posted = post_message(context, to, channel, &message, attempt_of(claim, &card_key)).await?;
    let reference = posted.ok_or_else(|| DeliveryError::misconfigured("the platform did not say where the card is"))?;
    let card = CardRef { reference: reference.clone(), id, fingerprint, shown_at: clock::now(), key };
    if claim.unconfirmed_since.is_some() {
        // This may be the message of an earlier attempt, which may show other facts.
        let unread = CardRef { fingerprint: Fingerprint::of_nothing(), key: None, ..card.clone() };
        *display = ChannelDisplay::Card(unread);
        if to.update(context, &reference, &message).await? != UpdateOutcome::Updated {
            return Err(DeliveryError::refused("the card cannot be updated", RetryPolicy::Backoff(None)));
        }
    }
    *display = ChannelDisplay::Card(card);
    if let Some(old) = frozen {
        remove_frozen_card(context, to, approval, old, id).await;
    }
    Ok(reference)
}

/// Deletes a card that keeps its old content. If the platform refuses, a reply in its thread says that there is a new card.
/// So does the answer to a click on the old one.
async fn remove_frozen_card(context: ChatContext<'_>, to: &Channel, approval: &Approval, old: &CardRef, new: CardId) {
    let Err(undelivered) = to.delete(context, &old.reference).await else { return };
    let id = approval.id();
    tracing::info!(
        outcome = "old_card_kept",
        target = id.target,
        peering.id = id.instance_id.as_str(),
        error = undelivered.error,
        "could not delete a card that a new one replaces"
    );
    let (message, key) = (message::card_moved(approval), format!("moved-{new}"));
    let _ = to.reply_below(context, &old.reference, &message, false, PostAttempt::only(&key)).await;
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

/// Whether the channel itself must show the notification, and not only the thread. Then somebody has to act.
fn is_urgent(kind: &NotificationKind) -> bool {
    match kind {
        NotificationKind::Changed { .. }
        | NotificationKind::Reminder { .. }
        | NotificationKind::Escalated { .. }
        | NotificationKind::ExpiresSoon { .. }
        | NotificationKind::Stuck { .. }
        | NotificationKind::FactsDiffer { .. }
        | NotificationKind::Drifted { .. }
        | NotificationKind::DriftReminder { .. }
        | NotificationKind::Removed { .. }
        | NotificationKind::SentBack { .. }
        | NotificationKind::Corrected { .. }
        | NotificationKind::Bypassed { .. }
        | NotificationKind::Failed { .. } => true,
        NotificationKind::Discovered
        | NotificationKind::RuleChanged { .. }
        | NotificationKind::Checked
        | NotificationKind::Decided { .. }
        | NotificationKind::Withdrawn { .. }
        | NotificationKind::DriftEnded
        | NotificationKind::DriftAcknowledged { .. }
        | NotificationKind::Adopted { .. }
        | NotificationKind::Accepted(_)
        | NotificationKind::Activated { .. }
        | NotificationKind::Rejected(_)
        | NotificationKind::Expired
        | NotificationKind::Deleted => false,
    }
}
