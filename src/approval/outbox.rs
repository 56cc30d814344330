//! What the channels are owed: each notification once per channel, in order, however long a channel is down.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{ApprovalState, Approver, CardId, Decision, MAX_RETRY_AFTER, SendBackReason, Verdict, backoff};
use crate::peering::{Change, Problem};

/// The longest wait between two tries of a message that failed.
const MAX_BACKOFF: SignedDuration = SignedDuration::from_mins(5);
/// The wait after a chat platform refused a message for good, e.g. an archived channel: a person has to act first.
const REFUSED_MESSAGE_RETRY_INTERVAL: SignedDuration = SignedDuration::from_hours(1);
/// After so long, a message that is refused for good is given up. One that only failed never is.
const MAX_REFUSED_MESSAGE_AGE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The wait after a platform refused what a message says; after so many tries, others need not wait for it any longer.
const REFUSED_CONTENT_RETRY_INTERVAL: SignedDuration = SignedDuration::from_mins(5);
const MAX_REFUSED_CONTENT_TRIES: u32 = 3;
/// Notices that every channel has are forgotten beyond this many: the history keeps what happened.
const MAX_NOTIFICATIONS: usize = 40;
/// The most notices that wait for one channel. Beyond it, peergate forgets news that the card shows, then older ends; the
/// last end stays.
const MAX_WAITING_PER_CHANNEL: usize = 24;
/// How long a watcher has the posts that it claimed to itself.
const CLAIM_LEASE: SignedDuration = SignedDuration::from_secs(30);

/// The notices of a record, delivered ones too. Changed only by what happens to the record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Outbox(Vec<Notification>);

impl Deref for Outbox {
    type Target = [Notification];

    fn deref(&self) -> &[Notification] {
        &self.0
    }
}

/// Something to tell the channels, once each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Unique within the record, in the order of happening.
    pub number: u32,
    /// What happened.
    #[serde(rename = "news")]
    pub kind: NotificationKind,
    /// When it happened.
    pub at: Timestamp,
    /// How far it has got, per channel.
    pub deliveries: BTreeMap<String, Delivery>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotificationKind {
    /// Somebody asks for a connection.
    Discovered,
    /// It is not what was asked for first.
    Changed {
        /// What is not as it was.
        changes: Vec<Change>,
        /// Whose approvals are void.
        void: Vec<Approver>,
    },
    /// Another rule is about it, or none, or the rule asks for something else.
    RuleChanged {
        /// Whose approvals are void.
        void: Vec<Approver>,
    },
    /// The checks found something else than before: nothing to say, but the card shows it.
    Checked,
    /// Somebody approved or rejected.
    Decided {
        /// Who, what, why.
        decision: Decision,
        /// How many have approved.
        given: u32,
        /// How many have to.
        needed: u32,
    },
    /// Somebody took an approval back.
    Withdrawn {
        /// Who.
        by: Approver,
        /// How many approvals are left.
        given: u32,
        /// How many are needed.
        needed: u32,
    },
    /// Still nobody decided.
    Reminder {
        /// Seconds since it was asked for.
        waiting_s: i64,
    },
    /// Nobody decided for so long that others hear of it.
    Escalated {
        /// Seconds since it was asked for.
        waiting_s: i64,
    },
    /// Soon it will be too late.
    ExpiresSoon {
        /// When.
        expires_at: Timestamp,
    },
    /// Accepted; without a decision, when not by us.
    Accepted(Option<Decision>),
    /// The activation takes too long; with a problem, what was decided can't be carried out.
    Stuck {
        /// Seconds since it was accepted, or decided.
        for_s: i64,
        /// Why it can't.
        problem: Option<Problem>,
    },
    /// It was activated, but not with the facts that were decided on.
    #[serde(rename = "differs")]
    FactsDiffer {
        /// What is not as it was.
        changes: Vec<Change>,
    },
    /// Usable.
    Activated {
        /// Seconds since it was approved.
        took_s: i64,
    },
    /// Refused; without a decision, when not by us.
    Rejected(Option<Decision>),
    /// Nobody decided in time.
    Expired,
    /// Gone.
    Deleted,
    /// Impossible.
    Failed {
        /// What was to be done.
        verdict: Verdict,
        /// Why it is not.
        problem: Problem,
    },
    /// An approved request needs a new decision.
    SentBack {
        /// Why.
        why: SendBackReason,
        /// Whose approvals are void.
        void: Vec<Approver>,
    },
    /// Channels heard something wrong.
    Corrected {
        /// What they heard.
        was: ApprovalState,
        /// What is true.
        now: ApprovalState,
    },
}

impl NotificationKind {
    /// Whether the card shows it, too: then a channel that is down need not hear it afterwards.
    fn is_shown_on_card(&self) -> bool {
        match self {
            Self::Changed { .. }
            | Self::RuleChanged { .. }
            | Self::Checked
            | Self::Decided { .. }
            | Self::Withdrawn { .. }
            | Self::Reminder { .. }
            | Self::Escalated { .. }
            | Self::ExpiresSoon { .. }
            | Self::Stuck { .. }
            | Self::SentBack { .. } => true,
            Self::Discovered
            | Self::Accepted(_)
            | Self::FactsDiffer { .. }
            | Self::Activated { .. }
            | Self::Rejected(_)
            | Self::Expired
            | Self::Deleted
            | Self::Failed { .. }
            | Self::Corrected { .. } => false,
        }
    }
}

/// How far a notification has got in one channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// To be posted.
    Waiting {
        /// Not before.
        due_at: Timestamp,
        /// Failed tries so far.
        attempts: u32,
        /// What the platform said last.
        error: Option<String>,
        /// The id of the card that the post makes, if it makes one: every try has the same.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        card: Option<CardId>,
    },
    /// Posted.
    Delivered {
        /// When.
        at: Timestamp,
    },
    /// Given up: the receiver is gone, or refused it for too long.
    #[serde(rename = "gone")]
    Abandoned,
}

/// A notification to post after the claim is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What.
    pub notification: Notification,
    /// Where.
    pub channel: String,
    /// The id of the card that the post makes, if it makes one.
    pub card: Option<CardId>,
}

/// When to try an undelivered notification again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryPolicy {
    /// Soon, with back-off, and not before the time that the platform asked for.
    Backoff(Option<SignedDuration>),
    /// Once people had time to mend it.
    AfterFix,
    /// A few times: it is this message that the platform does not take.
    FewTimes,
    /// Never: the receiver is gone.
    Never,
}

impl Outbox {
    /// Owes `news` to each of the channels.
    pub(super) fn enqueue(&mut self, kind: NotificationKind, channels: &[String], now: Timestamp) {
        let waiting = Delivery::Waiting { due_at: now, attempts: 0, error: None, card: None };
        let number = self.0.last().map_or(1, |notification| notification.number.saturating_add(1));
        let deliveries = channels.iter().map(|channel| (channel.clone(), waiting.clone())).collect();
        self.0.push(Notification { number, kind, at: now, deliveries });
        if self.0.len() > MAX_NOTIFICATIONS {
            let told = |notification: &Notification| {
                notification.deliveries.values().all(|delivery| !matches!(delivery, Delivery::Waiting { .. }))
            };
            // The first stays, with all channels that have heard of it.
            if let Some(position) = self.0.iter().skip(1).position(told) {
                self.0.remove(position.saturating_add(1));
            }
        }
        self.drop_excess(channels);
    }

    /// A channel that is down for long is not owed everything that the card says as well.
    fn drop_excess(&mut self, channels: &[String]) {
        for channel in channels {
            let waits = |notification: &&mut Notification| {
                matches!(notification.deliveries.get(channel), Some(Delivery::Waiting { .. }))
            };
            while self.0.iter_mut().filter(waits).count() > MAX_WAITING_PER_CHANNEL {
                // The last one says how things are.
                let last = self.0.len().saturating_sub(1);
                let earlier = || self.0.iter().take(last).enumerate();
                let is_owed = |notification: &Notification| {
                    matches!(notification.deliveries.get(channel), Some(Delivery::Waiting { .. }))
                };
                let on_the_card = earlier().find(|(_, it)| is_owed(it) && it.kind.is_shown_on_card());
                // Then ends that were not the last. The first notification makes the card.
                let any = || earlier().find(|(_, it)| is_owed(it) && it.kind != NotificationKind::Discovered);
                let Some((position, _)) = on_the_card.or_else(any) else { break };
                if let Some(notification) = self.0.get_mut(position) {
                    notification.deliveries.remove(channel);
                }
            }
        }
    }

    /// The channels that have heard, or will, but for those that are gone.
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

    /// The notices that are due, with their channels. A channel hears them in order: a later one waits for the earlier.
    #[must_use]
    pub fn due_notifications(&self, now: Timestamp) -> Vec<(&Notification, &str)> {
        let due = self.next_per_channel().filter(|(_, _, due_at)| *due_at <= now);
        due.map(|(notification, channel, _)| (notification, channel)).collect()
    }

    /// When the next is due; `None` when nothing is owed.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        self.next_per_channel().map(|(_, _, due_at)| due_at).min()
    }

    /// The first notification that each channel still waits for.
    fn next_per_channel(&self) -> impl Iterator<Item = (&Notification, &str, Timestamp)> {
        let mut first = BTreeMap::new();
        for notification in &self.0 {
            for (channel, delivery) in &notification.deliveries {
                if let Delivery::Waiting { due_at, .. } = delivery {
                    first.entry(channel.as_str()).or_insert((notification, *due_at));
                }
            }
        }
        first.into_iter().map(|(channel, (notification, due_at))| (notification, channel, due_at))
    }

    /// Takes the notices that are due for posting, so that nobody else posts them meanwhile: whoever stores this change
    /// posts them. If they die before they do, the notices are due again after 30 s. `new_card` gives the id of the card
    /// that a post may make in a channel that has cards.
    pub fn claim_due(&mut self, now: Timestamp, new_card: impl Fn(&str) -> Option<CardId>) -> Vec<Claim> {
        let due = self
            .due_notifications(now)
            .into_iter()
            .map(|(notification, channel)| (notification.number, channel.to_owned()));
        let due: Vec<_> = due.collect();
        let mut claims = vec![];
        for (number, channel) in due {
            let mut claimed = None;
            if let Some((_, Delivery::Waiting { due_at, card, .. })) = self.find_waiting(number, &channel) {
                *due_at = now + CLAIM_LEASE;
                *card = card.or_else(|| new_card(&channel));
                claimed = Some(*card);
            }
            let notification = self.0.iter().find(|notification| notification.number == number).cloned();
            claims.extend(notification.zip(claimed).map(|(notification, card)| Claim { notification, channel, card }));
        }
        claims
    }

    /// Puts a notification off, e.g. while a channel gets too many of its kind.
    pub fn postpone_delivery(&mut self, number: u32, channel: &str, until: Timestamp) {
        if let Some((_, Delivery::Waiting { due_at, .. })) = self.find_waiting(number, channel) {
            *due_at = until;
        }
    }

    /// A notification reached a channel.
    pub(super) fn mark_delivered(&mut self, number: u32, channel: &str, now: Timestamp) {
        if let Some((_, delivery)) = self.find_waiting(number, channel) {
            *delivery = Delivery::Delivered { at: now };
        }
    }

    /// A notification did not reach a channel. `record` spreads the tries of different records.
    pub(super) fn mark_failed(
        &mut self,
        record: &str,
        (number, channel): (u32, &str),
        error: &str,
        retry: RetryPolicy,
        now: Timestamp,
    ) {
        let Some((told_at, delivery)) = self.find_waiting(number, channel) else { return };
        let Delivery::Waiting { attempts, card, .. } = *delivery else { return };
        let wait = match retry {
            RetryPolicy::Backoff(retry_after) => {
                let seed = format!("{record}#{number}>{channel}");
                let asked_for = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
                backoff(&seed, attempts, MAX_BACKOFF).max(asked_for)
            }
            RetryPolicy::AfterFix if now.duration_since(told_at) < MAX_REFUSED_MESSAGE_AGE => {
                REFUSED_MESSAGE_RETRY_INTERVAL
            }
            RetryPolicy::FewTimes if attempts < MAX_REFUSED_CONTENT_TRIES => REFUSED_CONTENT_RETRY_INTERVAL,
            RetryPolicy::AfterFix | RetryPolicy::FewTimes | RetryPolicy::Never => {
                *delivery = Delivery::Abandoned;
                return;
            }
        };
        let attempts = attempts.saturating_add(1);
        *delivery = Delivery::Waiting { due_at: now + wait, attempts, error: Some(error.to_owned()), card };
    }

    /// Has what no channel (or not this one) took so far tried again at once, and as often as if it were new; what was
    /// given up, only if `given_up`. Returns how many posts that is.
    pub(super) fn redrive(&mut self, channel: Option<&str>, include_abandoned: bool, now: Timestamp) -> usize {
        let mut redriven = 0_usize;
        for notification in &mut self.0 {
            for (name, delivery) in &mut notification.deliveries {
                let (failed, card) = match delivery {
                    // What is due that soon may be being posted.
                    Delivery::Waiting { due_at, attempts, card, .. } => {
                        (*attempts > 0 && *due_at > now + CLAIM_LEASE, *card)
                    }
                    Delivery::Abandoned => (include_abandoned, None),
                    Delivery::Delivered { .. } => (false, None),
                };
                if failed && channel.is_none_or(|wanted| wanted == name) {
                    *delivery = Delivery::Waiting { due_at: now, attempts: 0, error: None, card };
                    redriven = redriven.saturating_add(1);
                }
            }
        }
        redriven
    }

    /// A delivery that still waits, and when its news happened.
    fn find_waiting(&mut self, number: u32, channel: &str) -> Option<(Timestamp, &mut Delivery)> {
        let notification = self.0.iter_mut().find(|notification| notification.number == number)?;
        let delivery = notification.deliveries.get_mut(channel)?;
        matches!(delivery, Delivery::Waiting { .. }).then_some((notification.at, delivery))
    }
}
