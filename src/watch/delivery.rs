//! Tells the channels what they are owed. Where a platform lets us, the card is drawn anew and the news stands below it;
//! elsewhere each piece of news is a message.

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::Summary;
use crate::app::App;
use crate::approval::{ApprovalId, Event, News, Notice, Redelivery};
use crate::chat::{Undelivered, message, slack, standard_webhooks};
use crate::clock;
use crate::config::Channel;
use crate::logging::Chain;
use crate::store::{self, Saved, Stored};

/// Posts what each channel is owed, once nobody else can be about to post it.
pub(super) async fn deliver(app: &App, stored: Stored, did: &mut Summary) -> Result<Stored, store::Error> {
    let mut current = stored;
    loop {
        let mut claimed = current.approval.clone();
        let claims = claimed.outbox.claim(clock::now());
        if claims.is_empty() {
            return Ok(current);
        }
        current = match app.store.save(&claimed, Some(&current)).await? {
            Saved::Done(stored) => stored,
            Saved::Conflict(theirs) => {
                current = theirs;
                continue;
            }
        };
        let claimed = &current.clone();
        let post = async |(notice, channel): (Notice, String)| (notice.at, post(app, claimed, notice, channel).await);
        let mut posts: FuturesUnordered<_> = claims.into_iter().map(post).collect();
        let mut unmarked = None;
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
        if let Some(error) = unmarked {
            return Err(error);
        }
    }
}

/// Posts one notice to one channel; says what came of it.
async fn post(app: &App, stored: &Stored, notice: Notice, channel: String) -> Event {
    let (number, id) = (notice.number, &stored.approval.id);
    match post_to(app, stored, &notice, &channel).await {
        Ok(()) => {
            log(id, &notice, &channel, None);
            Event::Delivered { number, channel }
        }
        Err(Undelivered { error, retry }) => {
            log(id, &notice, &channel, Some((&error, retry)));
            Event::Undelivered { number, channel, error, retry }
        }
    }
}

async fn post_to(app: &App, stored: &Stored, notice: &Notice, channel: &str) -> Result<(), Undelivered> {
    let approval = &stored.approval;
    let misconfigured = |error: &str| Undelivered { error: error.to_owned(), retry: Redelivery::Later };
    let secrets = app
        .secrets
        .current(clock::now())
        .await
        .map_err(|_| Undelivered { error: "the secrets cannot be read".into(), retry: Redelivery::Soon(None) })?;
    let endpoint = || secrets.channels.get(channel).ok_or_else(|| misconfigured("the channel has no secrets"));
    match app.config.channels.get(channel) {
        None => Err(Undelivered { error: "the channel is not in the configuration".into(), retry: Redelivery::Never }),
        Some(Channel::Slack { channel: id }) => {
            let (Some(slack), Some(token)) =
                (&app.config.slack, secrets.slack.as_ref().and_then(|slack| slack.bot_token.as_ref()))
            else {
                return Err(misconfigured("there is no Slack app or no bot token"));
            };
            let api = slack::Api { http: &app.http, url: &slack.api, token };
            let reference = draw_card(app, api, id, stored, channel).await?;
            if matches!(notice.news, News::Discovered | News::Checked) {
                // The card is the news.
                return Ok(());
            }
            api.reply(&reference, &message::notice(approval, notice), is_urgent(&notice.news)).await
        }
        // Worth a look at the card, not a message.
        Some(Channel::SlackWebhook {}) if notice.news == News::Checked => Ok(()),
        Some(Channel::SlackWebhook {}) => {
            slack::post_webhook(&app.http, &endpoint()?.url, &message::follow_up(approval, notice)).await
        }
        Some(Channel::StandardWebhooks {}) => {
            standard_webhooks::deliver(&app.http, endpoint()?, approval, notice).await
        }
    }
}

/// Draws the card as the record is now, where it is or, if it is not there, anew; returns where.
async fn draw_card(
    app: &App,
    api: slack::Api<'_>,
    id: &str,
    stored: &Stored,
    channel: &str,
) -> Result<String, Undelivered> {
    let card = message::card(&stored.approval);
    // The configuration may name another channel by now.
    let here = |reference: &&String| reference.split_once('/').is_some_and(|(channel, _)| channel == id);
    if let Some(reference) = stored.approval.cards.get(channel).filter(here)
        && api.update(reference, &card).await?
    {
        return Ok(reference.clone());
    }
    let reference = api.post(id, &card).await?;
    // Kept at once, whatever comes of the rest: nobody wants a second card.
    let carded = Event::Carded { channel: channel.to_owned(), reference: reference.clone() };
    let now = clock::now();
    if let Err(error) = app.store.update(stored.clone(), |approval| approval.apply(&carded, now)).await {
        let (target, peering) = (&stored.approval.id.target, stored.approval.id.instance_id.as_str());
        tracing::error!(outcome = error.outcome(), target, peering.id = peering, error = %Chain(&error), "not stored");
    }
    Ok(reference)
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
