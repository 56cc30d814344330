//! What the configuration says about a request, as the record keeps it, and when to remind people.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::history::Reminder;

/// The wait between two reminders doubles each time, up to this.
const MAX_REMINDER_INTERVAL: SignedDuration = SignedDuration::from_hours(24);

/// What the configuration says about a request. Each review replaces it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySnapshot {
    /// Name of the matching rule. `None` if no rule matches; then nobody can decide.
    pub rule: Option<String>,
    /// Without a rule: the facts that no rule allows, in words.
    pub unmatched: Vec<String>,
    /// Without a rule: a rule that would match, as TOML for the configuration.
    pub suggestion: Option<String>,
    /// How many different people must approve. 0 if the rule accepts by itself.
    pub approvals: u32,
    /// Who may approve: names of people, or principals of identities that belong to no person.
    pub approvers: Vec<String>,
    /// Display names of people among `approvers`, by their key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub display_names: BTreeMap<String, String>,
    /// Whether a decision requires a reason.
    pub require_reason: bool,
    /// Configured name of the requesting account. `None` if the configuration does not name it.
    pub requester: Option<String>,
    /// Channels that hear of the request.
    pub channels: Vec<String>,
    /// How long the request is pending before the first reminder.
    pub remind_after: SignedDuration,
    /// How long the request is pending before `escalate_to` hears of it. `None` for never.
    pub escalate_after: Option<SignedDuration>,
    /// More channels that hear of the request after the escalation.
    pub escalate_to: Vec<String>,
    /// How long before the expiry of the request people are warned.
    pub expiry_notice: SignedDuration,
    /// How long a call or an activation may take before people are told.
    pub stuck_after: SignedDuration,
    /// Channels of the requester, which hear what becomes of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requester_channels: Vec<String>,
    /// Whether peergate reads the route tables of our VPC.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reads_routes: bool,
}

impl PolicySnapshot {
    /// How many approvals complete the request. If a rule accepts by itself but a check does not pass, one person must
    /// approve.
    #[must_use]
    pub fn needed_approvals(&self) -> u32 {
        self.approvals.max(1)
    }

    /// Whether the rule accepts by itself.
    #[must_use]
    pub fn needs_no_approval(&self) -> bool {
        self.rule.is_some() && self.approvals == 0
    }

    fn expiry_notice_at(&self, expires_at: Timestamp) -> Timestamp {
        expires_at.checked_sub(self.expiry_notice).unwrap_or(expires_at)
    }

    /// The channels that hear of the request, each once.
    pub(super) fn channels_to_notify(&self, escalated: bool) -> Vec<String> {
        let others = self.escalate_to.iter().filter(|channel| escalated && !self.channels.contains(channel));
        self.channels.iter().chain(others).cloned().collect()
    }
}

/// Which reminders were sent in the current state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReminderState {
    reminders: u32,
    /// Stays set in later states: the escalation channels also hear the end.
    pub(super) escalated: bool,
    expires_soon: bool,
    stuck: bool,
}

impl ReminderState {
    /// Forgets the reminders of the previous state.
    pub(super) fn reset(&mut self) {
        *self = Self { escalated: self.escalated, ..Self::default() };
    }

    /// Returns the reminders that are due and marks them as sent. Each is sent once, even if nobody looked for a long
    /// time.
    pub(super) fn take_due_reminders(
        &mut self,
        policy: &PolicySnapshot,
        since: Timestamp,
        expires_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Vec<Reminder> {
        let waiting = now.duration_since(since);
        let mut reminders = vec![];
        if !self.escalated && policy.escalate_after.is_some_and(|after| waiting >= after) {
            self.escalated = true;
            reminders.push(Reminder::Escalation);
        }
        if !self.expires_soon && expires_at.is_some_and(|expires_at| policy.expiry_notice_at(expires_at) <= now) {
            self.expires_soon = true;
            reminders.push(Reminder::ExpiresSoon);
        }
        if reminder_delay(policy.remind_after, self.reminders) <= waiting {
            while reminder_delay(policy.remind_after, self.reminders) <= waiting {
                self.reminders = self.reminders.saturating_add(1);
            }
            if reminders.is_empty() {
                reminders.push(Reminder::StillWaiting);
            }
        }
        reminders
    }

    /// When the next reminder is due.
    pub(super) fn next_reminder_at(
        &self,
        policy: &PolicySnapshot,
        since: Timestamp,
        expires_at: Option<Timestamp>,
    ) -> Timestamp {
        let escalation = policy.escalate_after.filter(|_| !self.escalated).map(|wait| add_saturating(since, wait));
        let warning = expires_at.filter(|_| !self.expires_soon).map(|expires_at| policy.expiry_notice_at(expires_at));
        let reminder = add_saturating(since, reminder_delay(policy.remind_after, self.reminders));
        [escalation, warning].into_iter().flatten().fold(reminder, Timestamp::min)
    }

    /// When a call or an activation that began at `since` takes too long. `None` if people were told.
    pub(super) fn stuck_at(&self, policy: &PolicySnapshot, since: Timestamp) -> Option<Timestamp> {
        (!self.stuck).then(|| add_saturating(since, policy.stuck_after))
    }

    /// Remembers that people were told of the delay. Returns whether this is the first time.
    pub(super) fn mark_stuck(&mut self) -> bool {
        !std::mem::replace(&mut self.stuck, true)
    }
}

/// The configuration may set any wait, so the sum may be out of range.
fn add_saturating(since: Timestamp, wait: SignedDuration) -> Timestamp {
    since.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// How long a request is pending before the reminder that follows `earlier` others. The waits between reminders double.
fn reminder_delay(first: SignedDuration, earlier: u32) -> SignedDuration {
    let first = first.max(SignedDuration::from_mins(1));
    let max_interval = MAX_REMINDER_INTERVAL.max(first);
    let mut doublings = 0;
    let (mut wait, mut after) = (first, first);
    while doublings < earlier && wait < max_interval {
        wait = wait.saturating_add(wait).min(max_interval);
        after = after.saturating_add(wait);
        doublings += 1;
    }
    let rest = i32::try_from(earlier - doublings).unwrap_or(i32::MAX);
    after.saturating_add(max_interval.saturating_mul(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> PolicySnapshot {
        PolicySnapshot {
            rule: Some("r".into()),
            unmatched: vec![],
            suggestion: None,
            approvals: 1,
            approvers: vec![],
            display_names: BTreeMap::new(),
            require_reason: false,
            requester: None,
            channels: vec!["one".into()],
            remind_after: SignedDuration::from_hours(4),
            escalate_after: Some(SignedDuration::from_hours(30)),
            escalate_to: vec!["one".into(), "oncall".into()],
            expiry_notice: SignedDuration::from_hours(24),
            stuck_after: SignedDuration::from_mins(10),
            requester_channels: vec![],
            reads_routes: false,
        }
    }

    #[test]
    fn reminder_intervals_double_up_to_a_day() {
        let after = |earlier| reminder_delay(SignedDuration::from_hours(4), earlier).as_hours();
        assert_eq!((0..7).map(after).collect::<Vec<_>>(), [4, 12, 28, 52, 76, 100, 124]);
        assert_eq!(reminder_delay(SignedDuration::from_hours(48), 2).as_hours(), 144);
    }

    #[test]
    fn each_reminder_is_due_once_in_a_week_of_ticks() {
        let since: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let expires_at = since + SignedDuration::from_hours(7 * 24);
        let (mut state, mut sent) = (ReminderState::default(), vec![]);
        for tick in 0..7 * 24 * 12 {
            let now = since + SignedDuration::from_mins(5 * tick);
            let reminders = state.take_due_reminders(&policy(), since, Some(expires_at), now);
            sent.extend(reminders.into_iter().map(|reminder| (now.duration_since(since).as_hours(), reminder)));
        }
        let expected_reminders = [4, 12, 28, 52, 76, 100, 124, 148].map(|hours| (hours, Reminder::StillWaiting));
        let mut expected =
            [&expected_reminders[..], &[(30, Reminder::Escalation), (144, Reminder::ExpiresSoon)]].concat();
        expected.sort_by_key(|(hours, _)| *hours);
        assert_eq!(sent, expected);
    }

    #[test]
    fn overdue_reminders_collapse_into_one_escalation() {
        let since: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let mut state = ReminderState::default();
        let now = since + SignedDuration::from_hours(100);
        assert_eq!(state.take_due_reminders(&policy(), since, None, now), [Reminder::Escalation]);
        assert_eq!(state.take_due_reminders(&policy(), since, None, now), []);
    }

    #[test]
    fn escalated_audience_lists_each_channel_once() {
        assert_eq!(policy().channels_to_notify(false), ["one"]);
        assert_eq!(policy().channels_to_notify(true), ["one", "oncall"]);
    }
}
