//! Clicks on outdated cards: the buttons decide nothing, and the click brings the current card.

use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use super::reply::store_failure_reply;
use crate::app::App;
use crate::approval::{Approval, ApprovalId, Principal};
use crate::chat::binding;
use crate::chat::{Action, Click, ClickedCard, Command, CommandRequest, ConnectionCommand, Reply};
use crate::store::Stored;

/// For how many hours the buttons of a private reply decide.
const PRIVATE_REPLY_HOURS: i64 = 11;

/// Whether the clicked message is the current one of its card.
pub(super) fn is_current_card(
    clicked: &ClickedCard,
    by: &Principal,
    id: &ApprovalId,
    record: Option<&Approval>,
    now: Timestamp,
) -> bool {
    let hour = binding::hours_since_epoch(now);
    // A private reply decides for the person who received it.
    if (hour - PRIVATE_REPLY_HOURS..=hour).any(|hour| binding::private_card_id(by.as_str(), hour) == clicked.card_id) {
        return true;
    }
    let Some(record) = record else { return false };
    if let Some(card) = record.cards().values().find(|card| card.id == clicked.card_id) {
        return clicked.message_ref.as_ref() == Some(&card.reference);
    }
    // A notification can be a message of its own. Incoming webhooks do not say where it is.
    let id = id.to_string();
    let is_notification =
        |channel: &String, number| binding::notification_card_id(&id, channel, number) == clicked.card_id;
    record
        .outbox()
        .iter()
        .any(|notification| notification.deliveries.keys().any(|channel| is_notification(channel, notification.number)))
}

/// Whether another card replaced the clicked one: the record knows one in the same place.
fn is_replaced(record: Option<&Approval>, message: Option<&str>) -> bool {
    let channel_of = |reference: &str| reference.rsplit_once('/').map(|(channel, _)| channel.to_owned());
    let (Some(record), Some(message)) = (record, message) else { return false };
    let mut here = record.cards().values().filter(|card| channel_of(&card.reference) == channel_of(message)).peekable();
    here.peek().is_some() && here.all(|card| card.reference != message)
}

/// The reply to a click on a button that decides nothing.
pub(super) fn old_card_reply(record: Option<&Approval>, message: Option<&str>, now: Timestamp) -> Reply {
    let alone = record.filter(|record| record.cards().is_empty() && record.is_open(now));
    Reply::StaleCard { has_new_card: is_replaced(record, message), approval: alone.cloned().map(Box::new) }
}

/// Asks the watcher to update the cards.
pub(super) async fn update_cards(app: &App, stored: Stored, now: Timestamp, deadline: Instant) {
    let redraw = app.store.update(stored, |approval| approval.request_redraw(true, now));
    match timeout_at(deadline, redraw).await {
        Ok(Ok(_)) | Err(_) => {}
        Ok(Err(error)) => {
            store_failure_reply(&error);
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
    let mut reply = old_card_reply(None, None, now);
    if let Ok(Ok(Some(stored))) = timeout_at(deadline, app.store.load(&id)).await {
        reply = old_card_reply(Some(&stored.approval), click.message_ref.as_deref(), now);
        update_cards(app, stored, now, deadline).await;
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
