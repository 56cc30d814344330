//! Clicks on outdated cards: the buttons decide nothing, and the click brings the current card.

use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use super::reply::store_failure_reply;
use crate::app::App;
use crate::approval::{Approval, CardId, CardRef, Delivery, Principal};
use crate::chat::message::{self, Message};
use crate::chat::{Action, Click, ClickedCard, Command, CommandRequest, ConnectionCommand, MessageRef, Reply, binding};
use crate::store::Stored;

/// For how many hours the buttons of a private reply decide.
const PRIVATE_REPLY_HOURS: i64 = 11;

/// Whether the clicked message is a private reply to this person whose buttons decide.
fn is_private_card(clicked: &ClickedCard, by: &Principal, now: Timestamp) -> bool {
    let hour = binding::hours_since_epoch(now);
    (hour - PRIVATE_REPLY_HOURS..=hour).any(|hour| binding::private_card_id(by.as_str(), hour) == clicked.card_id)
}

/// Whether the clicked message is the current one of its card.
fn is_current_card(clicked: &ClickedCard, record: Option<&Approval>) -> bool {
    let card = record.and_then(|record| record.cards().values().find(|card| card.id == clicked.card_id));
    card.zip(clicked.message_ref.as_deref()).is_some_and(|(card, message)| is_same_message(&card.reference, message))
}

/// Refuses a decision on a message that is not the current one of its card. The reply brings the current card. `None` if
/// the button may decide.
pub(super) async fn refuse_old_card(
    app: &App,
    request: &CommandRequest,
    stored: Option<&Stored>,
    now: Timestamp,
    deadline: Instant,
) -> Option<Reply> {
    let clicked = request.clicked_card.as_ref()?;
    let record = stored.map(|stored| &stored.approval);
    if is_private_card(clicked, &request.by, now) || is_current_card(clicked, record) {
        return None;
    }
    if let Some(stored) = stored {
        let updated = update_cards(app, stored.clone(), Some(clicked), now, deadline).await;
        if is_current_card(clicked, updated.as_ref().map(|stored| &stored.approval)) {
            return None;
        }
    }
    Some(old_card_reply(record, Some(clicked.card_id), clicked.message_ref.as_deref(), now))
}

/// Whether both references name one message. A click may not say in which channel it is; then the message's id decides.
fn is_same_message(known: &str, clicked: &str) -> bool {
    match (MessageRef::parse(known), MessageRef::parse(clicked)) {
        (Some(known), Some(clicked)) => {
            known.message_id == clicked.message_id && (clicked.channel.is_empty() || known.channel == clicked.channel)
        }
        (None, _) | (_, None) => known == clicked,
    }
}

/// Whether a post that was to create this card has no known result. Then its message may become the card.
fn may_become_card(record: &Approval, card: CardId) -> bool {
    record
        .outbox()
        .iter()
        .flat_map(|notification| notification.deliveries.values())
        .any(|delivery| matches!(delivery, Delivery::Waiting { card: Some(expected), .. } if *expected == card))
}

/// The current card, if the clicked message is another one. A card in the same channel comes first.
fn find_current_card<'a>(record: &'a Approval, clicked: Option<CardId>, message: &str) -> Option<&'a CardRef> {
    let channel_of = |reference: &str| reference.rsplit_once('/').map(|(channel, _)| channel.to_owned());
    let is_current = record.cards().values().any(|card| is_same_message(&card.reference, message));
    if is_current || clicked.is_some_and(|card| may_become_card(record, card)) {
        return None;
    }
    let mut cards = record.cards().values();
    let here = cards.clone().find(|card| channel_of(&card.reference) == channel_of(message));
    here.or_else(|| cards.next())
}

/// What replaces the clicked message if it is not the current card: a pointer to the current card, or the same text
/// without buttons. `link` makes a link of a reference.
pub(super) fn redraw_copy(
    request: &CommandRequest,
    reply: &Reply,
    link: impl Fn(&str) -> Option<String>,
    now: Timestamp,
) -> Option<Message> {
    let (current, record) = if let Reply::StaleCard { current_card, approval } = reply {
        (current_card.as_ref(), approval.as_deref())
    } else {
        (None, reply.approval())
    };
    if let Some(reference) = current {
        return Some(message::card_replaced(link(reference)));
    }
    let (record, clicked) = (record?, request.clicked_card.as_ref()?);
    let message = clicked.message_ref.as_deref().filter(|_| !is_private_card(clicked, &request.by, now))?;
    if let Some(card) = find_current_card(record, Some(clicked.card_id), message) {
        return Some(message::card_replaced(link(&card.reference)));
    }
    let has_no_card = record.cards().is_empty() && !may_become_card(record, clicked.card_id);
    has_no_card.then(|| message::without_old_buttons(record, now))
}

/// The reply to a click on a button that decides nothing.
fn old_card_reply(record: Option<&Approval>, card: Option<CardId>, message: Option<&str>, now: Timestamp) -> Reply {
    let alone = record.filter(|record| record.cards().is_empty() && record.is_open(now));
    let current = record.zip(message).and_then(|(record, message)| find_current_card(record, card, message));
    Reply::StaleCard {
        current_card: current.map(|card| card.reference.clone()),
        approval: alone.cloned().map(Box::new),
    }
}

/// Asks the watcher to update the cards. If the clicked message is that of a post without a known result, it becomes the
/// card: its button binds the facts beside it, and the watcher posts no other one. `None` if nothing could be stored.
async fn update_cards(
    app: &App,
    stored: Stored,
    clicked: Option<&ClickedCard>,
    now: Timestamp,
    deadline: Instant,
) -> Option<Stored> {
    let adopt = |approval: &mut Approval| {
        let Some((clicked, reference)) = clicked.and_then(|card| Some((card, card.message_ref.as_deref()?))) else {
            return false;
        };
        let Some(MessageRef { channel: here, message_id }) = MessageRef::parse(reference) else { return false };
        let is_here = |id: &&str| here.is_empty() || *id == here;
        let mut channels = app.config.channels.iter().filter_map(|(name, to)| Some((name, to.id().filter(is_here)?)));
        channels.any(|(name, id)| {
            let place = MessageRef { channel: id.to_owned(), message_id: message_id.clone() };
            approval.adopt_card(name, clicked.card_id, &place.to_string(), now)
        })
    };
    let redraw = app.store.update(stored, |approval| {
        let adopted = adopt(approval);
        approval.request_redraw(true, now) || adopted
    });
    match timeout_at(deadline, redraw).await {
        Ok(Ok(stored)) => Some(stored),
        Err(_elapsed) => None,
        Ok(Err(error)) => {
            store_failure_reply(&error);
            None
        }
    }
}

/// Answers a click on a button that is no longer valid. `None` if the button is not ours.
pub(super) async fn reply_to_old_card(
    app: &App,
    click: &Click,
    now: Timestamp,
    deadline: Instant,
) -> Option<(CommandRequest, Reply)> {
    let id = binding::unverified_connection(&click.binding)?;
    app.config.find_target(Some(&id.target))?;
    let mut reply = old_card_reply(None, None, None, now);
    if let Ok(Ok(Some(stored))) = timeout_at(deadline, app.store.load(&id)).await {
        reply = old_card_reply(Some(&stored.approval), None, click.message_ref.as_deref(), now);
        update_cards(app, stored, None, now, deadline).await;
    }
    let command = ConnectionCommand {
        action: Action::Status,
        target: Some(id.target),
        instance_id: id.instance_id,
        seen_fingerprint: None,
        reason: None,
    };
    let request = CommandRequest {
        command: Command::Connection(command),
        by: click.by.clone(),
        origin: click.origin.clone(),
        clicked_card: None,
    };
    Some((request, reply))
}
