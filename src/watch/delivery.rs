//! Tells the channels what they are owed. Where a platform lets us, the card is redrawn and the news stands below it;
//! elsewhere each piece of news is a message.

use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;

use super::Summary;
use crate::app::App;
use crate::approval::{
    Approval, ApprovalId, CardId, CardKey, CardRef, Claim, Display, Event, News, Notice, Redelivery,
};
use crate::chat::message::Message;
use crate::chat::platform::{Channel, Context};
use crate::chat::{Digest, Undelivered, Update, binding, message};
use crate::clock;
use crate::peering::Fingerprint;
use crate::store::{self, Stored};

/// Posts what each channel is owed, once nobody else can be about to post it. Redraws the cards of earlier versions.
pub(super) async fn deliver(app: &App, stored: Stored, did: &mut Summary) -> Result<Stored, store::Error> {
    let mut current = stored;
    loop {
        let (stored, claims) = claim_with(app, current, |approval| approval.redraw(false, clock::now())).await?;
        if claims.is_empty() {
            return Ok(stored);
        }
        current = post_claims(app, stored, claims, did).await?;
    }
}

/// Applies a change to a record, and claims in the same write what its channels are owed from then on.
pub(super) async fn claim_with(
    app: &App,
    stored: Stored,
    mut change: impl FnMut(&mut Approval) -> bool,
) -> Result<(Stored, Vec<Claim>), store::Error> {
    let mut claims = vec![];
    let change = |approval: &mut Approval| {
        let changed = change(approval);
        let before = approval.outbox.clone();
        claims = claim(app, approval, clock::now());
        changed || approval.outbox != before
    };
    let stored = app.store.update(stored, change).await?;
    Ok((stored, claims))
}

/// Posts what was claimed, and stores for each post what came of it.
pub(super) async fn post_claims(
    app: &App,
    stored: Stored,
    claims: Vec<Claim>,
    did: &mut Summary,
) -> Result<Stored, store::Error> {
    let (claimed, mut current, mut unmarked) = (stored.approval.clone(), stored, None);
    let post = async |claim: Claim| (claim.notice.at, post(app, &claimed, claim).await);
    let mut posts: FuturesUnordered<_> = claims.into_iter().map(post).collect();
    while let Some((at, event)) = posts.next().await {
        let now = clock::now();
        if matches!(event, Event::Undelivered { .. }) {
            did.undelivered = did.undelivered.saturating_add(1);
            did.oldest_undelivered = did.oldest_undelivered.max(Some(now.duration_since(at)));
        } else {
            did.delivered = did.delivered.saturating_add(1);
        }
        match app.store.update(current.clone(), |approval| approval.apply(&event, now)).await {
            Ok(stored) => current = stored,
            Err(error) => unmarked = Some(error),
        }
    }
    match unmarked {
        Some(error) => Err(error),
        None => Ok(current),
    }
}

/// Claims what is due. A new card of an account that asks for too many at once waits for its turn.
pub(super) fn claim(app: &App, approval: &mut Approval, now: Timestamp) -> Vec<Claim> {
    let can = |channel: &str| app.config.channels.get(channel).map(Channel::abilities);
    let has_cards = |channel: &str| can(channel).is_some_and(|can| can.edits);
    let new_card = |channel: &str| has_cards(channel).then(clock::card_id);
    let (mut claims, mut later) = (approval.outbox.claim(now, new_card), vec![]);
    claims.retain(|Claim { notice, channel, .. }| {
        let is_chat = can(channel).is_some_and(|can| can.people);
        let account = approval.facts.requester.account;
        let makes_card =
            notice.news == News::Discovered || (has_cards(channel) && !approval.cards.contains_key(channel));
        let turn =
            (is_chat && makes_card).then(|| app.card_rate.reserve(account, channel, &approval.id, now)).flatten();
        later.extend(turn.map(|turn| (notice.number, channel.clone(), turn)));
        turn.is_none()
    });
    for (number, channel, turn) in later {
        approval.outbox.postpone(number, &channel, turn);
    }
    claims
}

/// Posts one notice to one channel; says what came of it.
async fn post(app: &App, approval: &Approval, claim: Claim) -> Event {
    let Claim { notice, channel, card } = claim;
    let (number, id) = (notice.number, &approval.id);
    let mut display = Display::Unchanged;
    match post_to(app, approval, &notice, &channel, card, &mut display).await {
        Ok(()) => {
            log(id, &notice, &channel, None);
            Event::Delivered { number, channel, display }
        }
        Err(Undelivered { error, retry }) => {
            log(id, &notice, &channel, Some((&error, retry)));
            Event::Undelivered { number, channel, error, retry, display }
        }
    }
}

/// `display` says what the channel shows from then on; it is set even if a later step fails.
async fn post_to(
    app: &App,
    approval: &Approval,
    notice: &Notice,
    channel: &str,
    card: Option<CardId>,
    display: &mut Display,
) -> Result<(), Undelivered> {
    let secrets = app
        .secrets
        .current(clock::now())
        .await
        .map_err(|_| Undelivered { error: "the secrets cannot be read".into(), retry: Redelivery::Soon(None) })?;
    let context = app.chat(&secrets);
    let Some(to) = app.config.channels.get(channel) else {
        return Err(Undelivered { error: "the channel is not in the configuration".into(), retry: Redelivery::Never });
    };
    let can = to.abilities();
    if can.edits {
        let drawn = draw_card(context, to, channel, approval, card).await?;
        let reference = drawn.reference.clone();
        *display = Display::Card(drawn);
        // The card is the news.
        if matches!(notice.news, News::Discovered | News::Checked) {
            return Ok(());
        }
        let (message, key) = (message::notice(approval, notice), notice_key(approval, channel, notice.number));
        return if can.threads {
            to.reply_below(context, &reference, &message, is_urgent(&notice.news), &key).await
        } else {
            to.post(context, channel, &message, &key).await.map(|_| ())
        };
    }
    if !can.people {
        to.notify(context, channel, approval, notice).await?;
        *display = Display::Facts(approval.connection.fingerprint());
        return Ok(());
    }
    if notice.news == News::Checked {
        // Worth a look at the card, not a message.
        return Ok(());
    }
    let card = binding::card_of_notice(&approval.id.to_string(), channel, notice.number);
    let (message, _) = bound(context, to, message::follow_up(approval, notice, clock::now()), card);
    to.post(context, channel, &message, &notice_key(approval, channel, notice.number)).await?;
    *display = Display::Facts(shown_facts(approval));
    Ok(())
}

/// The fingerprint of the facts, if a card shows all of them.
fn shown_facts(approval: &Approval) -> Fingerprint {
    if message::shows_all(&approval.facts) { approval.fingerprint.clone() } else { Fingerprint::of_nothing() }
}

/// Shows the record as it is now: updates its card, or posts a new one. Returns the card.
async fn draw_card(
    context: Context<'_>,
    to: &Channel,
    channel: &str,
    approval: &Approval,
    card: Option<CardId>,
) -> Result<CardRef, Undelivered> {
    let drawn = message::card(approval, clock::now());
    let fingerprint = shown_facts(approval);
    let mut too_old = None;
    if let Some(card) = approval.cards.get(channel) {
        let (message, key) = bound(context, to, drawn.clone(), card.card);
        match to.update(context, &card.reference, &message).await? {
            Update::Done => return Ok(CardRef { fingerprint, shown_at: clock::now(), key, ..card.clone() }),
            Update::Closed => too_old = Some(card),
            Update::Gone => {}
        }
    }
    let card = card.unwrap_or_else(clock::card_id);
    let (message, key) = bound(context, to, drawn, card);
    let posted = to.post(context, channel, &message, &format!("card-{card}-{:.16}", fingerprint.to_string())).await?;
    let reference = posted.ok_or_else(|| Undelivered::misconfigured("the platform does not say where the card is"))?;
    if let Some(old) = too_old {
        // A courtesy: a click there says the same.
        let _ =
            to.reply_below(context, &old.reference, &message::moved(approval), false, &format!("moved-{card}")).await;
    }
    Ok(CardRef { reference, card, fingerprint, shown_at: clock::now(), key })
}

/// The same for every try of a notice, and another for any other.
fn notice_key(approval: &Approval, channel: &str, number: u32) -> String {
    format!("notice-{}", binding::card_of_notice(&approval.id.to_string(), channel, number))
}

/// A message whose buttons carry what the channel's app will check, and the key of that.
fn bound(context: Context<'_>, to: &Channel, message: Message, card: CardId) -> (Message, Option<CardKey>) {
    // Without its app, nobody hears of a click.
    let app = to.app().filter(|app| app.is_configured(context.configs));
    let keyring = app.map(|app| context.keyring(app));
    let Some(keyring) = keyring else { return (Message { buttons: None, ..message }, None) };
    let message = binding::bind(message, &keyring, card, to.abilities().max_binding_chars);
    let key = keyring.current().filter(|_| message.buttons.is_some());
    (message, key)
}

/// Posts the digests of accounts whose cards wait.
pub(super) async fn deliver_digests(app: &App) {
    for digest in app.card_rate.digests(clock::now()) {
        let (account, channel) = (digest.account.to_string(), digest.channel.as_str());
        let cards = digest.ids.len();
        match post_digest(app, &digest).await {
            Ok(()) => {
                app.card_rate.posted(&digest, clock::now());
                tracing::warn!(
                    outcome = "cards_delayed",
                    account,
                    channel,
                    cards,
                    "posted a digest of requests whose cards wait"
                );
            }
            Err(Undelivered { error, .. }) => {
                tracing::warn!(outcome = "undelivered", account, channel, cards, error, "could not post a digest");
            }
        }
    }
}

async fn post_digest(app: &App, digest: &Digest) -> Result<(), Undelivered> {
    let unread = |_| Undelivered::misconfigured("the secrets cannot be read");
    let secrets = app.secrets.current(clock::now()).await.map_err(unread)?;
    let name = app.config.policy.accounts.get(&digest.account).map(|account| account.name.as_str());
    match app.config.channels.get(&digest.channel) {
        Some(to) if to.abilities().people => {
            let key = format!("digest-{:.32}", clock::nonce());
            to.post(app.chat(&secrets), &digest.channel, &message::digest(digest, name), &key).await.map(|_| ())
        }
        Some(_) | None => Ok(()),
    }
}

/// What must be seen in the channel, not only below the card: somebody is to act.
fn is_urgent(news: &News) -> bool {
    match news {
        News::Changed { .. }
        | News::Reminder { .. }
        | News::Escalated { .. }
        | News::ExpiresSoon { .. }
        | News::Stuck { .. }
        | News::Differs { .. }
        | News::SentBack { .. }
        | News::Corrected { .. }
        | News::Failed { .. } => true,
        News::Discovered
        | News::RuleChanged { .. }
        | News::Checked
        | News::Decided { .. }
        | News::Withdrawn { .. }
        | News::Accepted(_)
        | News::Activated { .. }
        | News::Rejected(_)
        | News::Expired
        | News::Deleted => false,
    }
}

fn log(id: &ApprovalId, notice: &Notice, channel: &str, failure: Option<(&str, Redelivery)>) {
    let (target, peering, news) = (&id.target, id.instance_id.as_str(), message::news_name(&notice.news));
    match failure {
        None => tracing::info!(outcome = "delivered", target, peering.id = peering, channel, news, "delivered"),
        Some((error, Redelivery::Soon(_))) => {
            tracing::warn!(outcome = "undelivered", target, peering.id = peering, channel, news, error, "undelivered");
        }
        Some((error, Redelivery::Later | Redelivery::Few | Redelivery::Never)) => {
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
