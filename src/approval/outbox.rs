//! Notifications for the channels. Each channel receives each notification once and in order, even after a long outage.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{CardId, MAX_RETRY_AFTER, Notification, NotificationKind, backoff};

/// Longest wait between two attempts after a failed post.
const MAX_BACKOFF: SignedDuration = SignedDuration::from_mins(5);
/// Wait after a chat platform permanently refused a message, e.g. because its channel is archived. A person has to act
/// first.
const REFUSED_MESSAGE_RETRY_INTERVAL: SignedDuration = SignedDuration::from_hours(1);
/// A message that is permanently refused for this long is abandoned. A message that only fails is never abandoned.
const MAX_REFUSED_MESSAGE_AGE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Wait after a platform refused the content of a message. The message is abandoned after a few attempts, so that later
/// messages do not wait for it.
const REFUSED_CONTENT_RETRY_INTERVAL: SignedDuration = SignedDuration::from_mins(5);
const MAX_REFUSED_CONTENT_TRIES: u32 = 3;
/// Maximum number of notifications that a record keeps. Delivered ones are removed first; the history keeps their
/// events.
const MAX_NOTIFICATIONS: usize = 40;
/// Maximum number of notifications that wait for one channel. Above it, peergate drops those that the card shows as
/// well, then earlier ends. The last end always stays.
const MAX_WAITING_PER_CHANNEL: usize = 24;
/// For this long after a claim, no other watcher posts the claimed notifications. The watcher gives up a post earlier.
const CLAIM_LEASE: SignedDuration = SignedDuration::from_secs(60);

/// The notifications of a record, delivered ones too. They only change together with the record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Outbox(Vec<Notification>);

impl Deref for Outbox {
    type Target = [Notification];

    fn deref(&self) -> &[Notification] {
        &self.0
    }
}

/// Progress of a notification in one channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Not posted yet.
    Waiting {
        /// Earliest time of the next attempt.
        due_at: Timestamp,
        /// Number of failed attempts.
        attempts: u32,
        /// The error of the last attempt.
        error: Option<String>,
        /// Id of the card that the post creates, the same in every attempt. `None` if the post creates no card.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        card: Option<CardId>,
        /// When a watcher claimed it. The watcher removes this with the result of its post, unless it dies before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        claimed_at: Option<Timestamp>,
        /// When the first post without a known result began: the channel may show the message already.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unconfirmed_since: Option<Timestamp>,
    },
    /// Posted.
    Delivered {
        /// When it was posted.
        at: Timestamp,
    },
    /// Given up: the receiver is gone, or refused the message for too long.
    #[serde(rename = "gone")]
    Abandoned,
}

impl Delivery {
    /// A delivery that no watcher has tried.
    fn waiting_from(due_at: Timestamp, card: Option<CardId>, unconfirmed_since: Option<Timestamp>) -> Self {
        Self::Waiting { due_at, attempts: 0, error: None, card, claimed_at: None, unconfirmed_since }
    }
}

/// Names the delivery of a notification to a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryKey<'a> {
    /// Number of the notification in the outbox.
    pub number: u32,
    /// Configured name of the channel.
    pub channel: &'a str,
}

/// The first pending delivery of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextDelivery<'a> {
    /// Which notification goes to which channel.
    pub key: DeliveryKey<'a>,
    /// Earliest time of the next attempt.
    pub due_at: Timestamp,
}

/// A notification that this process may post after it has stored the claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What to post.
    pub notification: Notification,
    /// Configured name of the channel.
    pub channel: String,
    /// The earliest time of the post.
    pub due_at: Timestamp,
    /// Id of the card that the post creates. `None` if it creates no card.
    pub card: Option<CardId>,
    /// Number of failed attempts.
    pub attempts: u32,
    /// When the first post without a known result began. `None` if no earlier attempt can have reached the channel.
    pub unconfirmed_since: Option<Timestamp>,
}

impl Claim {
    /// Names the delivery.
    #[must_use]
    pub fn key(&self) -> DeliveryKey<'_> {
        DeliveryKey { number: self.notification.number, channel: &self.channel }
    }
}

/// A failed attempt to post a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedPost {
    /// Why it failed, e.g. the platform's error code.
    pub error: String,
    /// When to try again.
    pub retry: RetryPolicy,
    /// Whether the channel may show the message all the same, because the answer to the post was lost.
    pub may_be_posted: bool,
}

/// When to try an undelivered notification again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryPolicy {
    /// Soon, with back-off, but not before the `Retry-After` of the platform.
    Backoff(Option<SignedDuration>),
    /// After people had time to fix the cause.
    AfterFix,
    /// A few times: the platform refuses the content of this message.
    FewTimes,
    /// Never: the receiver is gone.
    Never,
}

impl Outbox {
    /// Adds a notification of this kind for each of the channels.
    pub(super) fn enqueue(&mut self, kind: NotificationKind, channels: &[String], now: Timestamp) {
        let waiting = Delivery::waiting_from(now, None, None);
        let number = self.0.last().map_or(1, |notification| notification.number.saturating_add(1));
        let deliveries = channels.iter().map(|channel| (channel.clone(), waiting.clone())).collect();
        self.0.push(Notification { number, kind, at: now, deliveries });
        if self.0.len() > MAX_NOTIFICATIONS {
            let is_done = |notification: &Notification| {
                notification.deliveries.values().all(|delivery| !matches!(delivery, Delivery::Waiting { .. }))
            };
            // The first notification stays: it names the channels that know of the request.
            if let Some(position) = self.0.iter().skip(1).position(is_done) {
                self.0.remove(position.saturating_add(1));
            }
        }
        self.drop_excess(channels);
    }

    /// Drops notifications of a channel that has been down for long. It does not have to hear what the card shows as
    /// well.
    fn drop_excess(&mut self, channels: &[String]) {
        for channel in channels {
            while self.0.iter().filter(|notification| notification.is_waiting_for(channel)).count()
                > MAX_WAITING_PER_CHANNEL
            {
                // The last notification stays: it tells the current state.
                let last = self.0.len().saturating_sub(1);
                let earlier = || self.0.iter().take(last).enumerate();
                let on_the_card = earlier().find(|(_, it)| it.is_waiting_for(channel) && it.kind.is_shown_on_card());
                // Next, ends that were not the last. The first notification stays: it creates the card.
                let any =
                    || earlier().find(|(_, it)| it.is_waiting_for(channel) && it.kind != NotificationKind::Discovered);
                let Some((position, _)) = on_the_card.or_else(any) else { break };
                if let Some(notification) = self.0.get_mut(position) {
                    notification.deliveries.remove(channel);
                }
            }
        }
    }

    /// The channels that have heard of the request, or will. Channels that are gone are left out.
    pub(super) fn informed_channels(&self) -> BTreeSet<String> {
        let mut channels = BTreeSet::new();
        for (channel, delivery) in self.0.iter().flat_map(|notification| &notification.deliveries) {
            if *delivery == Delivery::Abandoned {
                channels.remove(channel);
            } else {
                channels.insert(channel.clone());
            }
        }
        channels
    }

    /// The due notifications with their channels. A channel hears them in order: a later one waits for an earlier one.
    #[must_use]
    pub fn due_notifications(&self, now: Timestamp) -> Vec<NextDelivery<'_>> {
        self.next_per_channel().filter(|next| next.due_at <= now).collect()
    }

    /// When the next notification is due. `None` if none is pending.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        self.next_per_channel().map(|next| next.due_at).min()
    }

    /// The first pending notification of each channel.
    fn next_per_channel(&self) -> impl Iterator<Item = NextDelivery<'_>> {
        let mut first = BTreeMap::new();
        for notification in &self.0 {
            for (channel, delivery) in &notification.deliveries {
                if let Delivery::Waiting { due_at, .. } = *delivery {
                    let key = DeliveryKey { number: notification.number, channel };
                    first.entry(channel).or_insert(NextDelivery { key, due_at });
                }
            }
        }
        first.into_values()
    }

    /// Claims the notifications that are due by `until`. The process that stores this change posts them when they are
    /// due, and no other process does so for 60 s. If the process dies, they become due again, as posts without a known
    /// result. `new_card` returns an id for the card that a post may create, and `None` for channels without cards.
    pub fn claim_due(
        &mut self,
        now: Timestamp,
        until: Timestamp,
        new_card: impl Fn(&str) -> Option<CardId>,
    ) -> Vec<Claim> {
        let due = self.due_notifications(until).into_iter().map(|next| (next.key.number, next.key.channel.to_owned()));
        let due: Vec<_> = due.collect();
        let mut claims = vec![];
        for (number, channel) in due {
            let delivery = self.find_waiting(DeliveryKey { number, channel: &channel });
            let Some(Delivery::Waiting { due_at, attempts, card, claimed_at, unconfirmed_since, .. }) = delivery else {
                continue;
            };
            let was_due_at = *due_at;
            *due_at = now + CLAIM_LEASE;
            *card = card.or_else(|| new_card(&channel));
            *unconfirmed_since = unconfirmed_since.or(*claimed_at);
            *claimed_at = Some(now);
            let (card, attempts, unconfirmed_since) = (*card, *attempts, *unconfirmed_since);
            let notification = self.0.iter().find(|notification| notification.number == number).cloned();
            claims.extend(notification.map(|notification| Claim {
                notification,
                channel,
                due_at: was_due_at,
                card,
                attempts,
                unconfirmed_since,
            }));
        }
        claims
    }

    /// Makes deliveries due that wait for their turn. Those that failed, or that a watcher has claimed, stay as they are.
    pub(super) fn hasten(&mut self, now: Timestamp) {
        for delivery in self.0.iter_mut().flat_map(|notification| notification.deliveries.values_mut()) {
            if let Delivery::Waiting { due_at, attempts: 0, claimed_at: None, .. } = delivery {
                *due_at = now.min(*due_at);
            }
        }
    }

    /// Postpones a claimed delivery that was not posted, e.g. while a channel receives too many cards.
    pub fn postpone_delivery(&mut self, key: DeliveryKey<'_>, until: Timestamp) {
        if let Some(Delivery::Waiting { due_at, claimed_at, .. }) = self.find_waiting(key) {
            *due_at = until;
            *claimed_at = None;
        }
    }

    /// Marks a notification as delivered to a channel.
    pub(super) fn mark_delivered(&mut self, key: DeliveryKey<'_>, now: Timestamp) {
        if let Some(delivery) = self.find_waiting(key) {
            *delivery = Delivery::Delivered { at: now };
        }
    }

    /// Records a failed attempt and schedules the next one. The id of the record spreads the attempts of different
    /// records.
    pub(super) fn mark_failed(&mut self, record: &str, key: DeliveryKey<'_>, failed: &FailedPost, now: Timestamp) {
        let notification = self.0.iter().find(|notification| notification.number == key.number);
        let Some(age) = notification.map(|notification| now.duration_since(notification.at)) else { return };
        let Some(delivery) = self.find_waiting(key) else { return };
        let Delivery::Waiting { attempts, card, claimed_at, unconfirmed_since, .. } = *delivery else { return };
        let wait = match failed.retry {
            RetryPolicy::Backoff(retry_after) => {
                let seed = format!("{record}#{}>{}", key.number, key.channel);
                let asked_for = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
                backoff(&seed, attempts, MAX_BACKOFF).max(asked_for)
            }
            RetryPolicy::AfterFix if age < MAX_REFUSED_MESSAGE_AGE => REFUSED_MESSAGE_RETRY_INTERVAL,
            RetryPolicy::FewTimes if attempts < MAX_REFUSED_CONTENT_TRIES => REFUSED_CONTENT_RETRY_INTERVAL,
            RetryPolicy::AfterFix | RetryPolicy::FewTimes | RetryPolicy::Never => {
                *delivery = Delivery::Abandoned;
                return;
            }
        };
        let lost = failed.may_be_posted.then(|| claimed_at.unwrap_or(now));
        *delivery = Delivery::Waiting {
            due_at: now + wait,
            attempts: attempts.saturating_add(1),
            error: Some(failed.error.clone()),
            card,
            claimed_at: None,
            unconfirmed_since: unconfirmed_since.or(lost),
        };
    }

    /// Makes failed deliveries due now, as if they were new: those of `channel`, or those of all channels. Abandoned
    /// ones are due again only with `include_abandoned`. Returns the number of posts that are due.
    pub(super) fn redrive(&mut self, channel: Option<&str>, include_abandoned: bool, now: Timestamp) -> usize {
        let mut redriven = 0_usize;
        for notification in &mut self.0 {
            for (name, delivery) in &mut notification.deliveries {
                let (failed, card, unconfirmed_since) = match delivery {
                    // A process may be posting a claimed delivery.
                    Delivery::Waiting { attempts, card, claimed_at, unconfirmed_since, .. } => {
                        (*attempts > 0 && claimed_at.is_none(), *card, *unconfirmed_since)
                    }
                    Delivery::Abandoned => (include_abandoned, None, None),
                    Delivery::Delivered { .. } => (false, None, None),
                };
                if failed && channel.is_none_or(|wanted| wanted == name) {
                    *delivery = Delivery::waiting_from(now, card, unconfirmed_since);
                    redriven = redriven.saturating_add(1);
                }
            }
        }
        redriven
    }

    /// The delivery, if it is still pending.
    fn find_waiting(&mut self, key: DeliveryKey<'_>) -> Option<&mut Delivery> {
        let notification = self.0.iter_mut().find(|notification| notification.number == key.number)?;
        let delivery = notification.deliveries.get_mut(key.channel)?;
        matches!(delivery, Delivery::Waiting { .. }).then_some(delivery)
    }
}
